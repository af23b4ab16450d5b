"""`fit`: from a network, a task, data and a recipe to a trained network, resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convsmith.tasks import Task
from convsmith.train.epoch import Epochs
from convsmith.train.evaluation import check_data
from convsmith.train.events import event_log
from convsmith.train.generators import generators_kept
from convsmith.train.placement import find_device
from convsmith.train.progress import progress_bar
from convsmith.train.recipe import Recipe
from convsmith.train.run_folder import Row, RunFolder, describe_network, describe_task

if TYPE_CHECKING:
    from convsmith.data import DataSet


@dataclass(frozen=True)
class TrainResult:
    """A trained network, in eval mode, and its figures.

    `metrics` are the task's on the validation split at the end. `history` has a row per epoch: `epoch` (from 1), `lr`
    of its last step, `train_loss` (mean over its batches), `seconds`, and the task's metrics on the validation split.
    A resumed training differs from an uninterrupted one in `seconds` alone.
    """

    network: nn.Module
    metrics: Row
    history: tuple[Row, ...]
    run_dir: Path | None


def fit(
    network: nn.Module,
    task: Task[Tensor],
    data: DataSet,
    recipe: Recipe,
    *,
    run_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool | None = None,
    on_epoch: Callable[[int, Row], None] | None = None,
) -> TrainResult:
    """Train a network, in place, from the weights that it has; the weights after the last epoch are the result.

    With `run_dir`, the same call goes on with a training that was killed, from its last finished epoch, and ends in the
    same weights bit for bit (on the CPU, with the same number of threads); on a finished run it loads the result. The
    weights that `network` then has are overridden. All randomness comes from `recipe.seed`, and torch's generators are
    left as they were. `progress` shows a bar on standard error; None shows it on a terminal. `on_epoch(epoch, row)` is
    called with each new row of the history, once its checkpoint is written; what it raises ends the training, which
    can be resumed.

    Raises:
        ValueError: for data that fit neither network nor task, and for a `run_dir` that holds another run.
        FloatingPointError: when a loss or a metric is not finite; the message names the step and its learning rate.
    """
    place = find_device(device)
    network.to(place)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    check_data(network, task, data)
    run = None
    if run_dir is not None:
        settings = {
            "architecture": describe_network(network),
            "task": describe_task(task),
            "data": {"name": data.name, "fingerprint": data.fingerprint, "input_shape": list(data.input_shape)},
            "recipe": recipe.recorded(),
        }
        run = RunFolder(Path(run_dir), settings=settings, seed=recipe.seed, device=place)
        if run.finished:
            rows, metrics = run.load_result(network)
            return TrainResult(network.eval(), metrics, tuple(rows), run.path)
    epochs = Epochs(network, task, data, recipe, place)
    history = run.restore(network, epochs.optimizer) if run else []
    steps = epochs.train_steps + epochs.validation_steps
    with ExitStack() as stack:
        stack.enter_context(generators_kept(place))
        log = stack.enter_context(event_log(run.path / "tensorboard", history)) if run else None
        bar = progress_bar(recipe.epochs * steps, len(history) * steps, shown=progress)
        advance = stack.enter_context(bar)
        for epoch in range(len(history) + 1, recipe.epochs + 1):
            history.append(epochs.run(epoch, advance))
            if run:
                run.save_epoch(network, epochs.optimizer, history)
            if log:
                log(history[-1])
            if on_epoch:
                on_epoch(epoch, dict(history[-1]))
    metrics = {name: history[-1][name] for name in task.metrics()}
    if run:
        run.finish(network, history, metrics)
    return TrainResult(network.eval(), metrics, tuple(history), run.path if run else None)
