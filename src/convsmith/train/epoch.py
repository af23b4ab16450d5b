"""One epoch of a training, and its steps."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from convsmith.nn import group_lasso
from convsmith.tasks import Task
from convsmith.train.evaluation import evaluate
from convsmith.train.generators import epoch_seed, seed_generators
from convsmith.train.optimizer import make_optimizer
from convsmith.train.placement import Batch, place, workers_for
from convsmith.train.progress import Advance
from convsmith.train.recipe import Recipe
from convsmith.train.run_folder import Row
from convsmith.train.schedule import Schedule, cosine, with_warmup

if TYPE_CHECKING:
    from convsmith.data import DataSet

SECONDS_BETWEEN_READINGS = 1.0


class Epochs:
    """What the epochs of a training have in common; its state is in `network` and `optimizer`."""

    def __init__(self, network: nn.Module, task: Task[Tensor], data: DataSet, recipe: Recipe, device: torch.device):
        self.network, self.task, self.data, self.recipe, self.device = network, task, data, recipe, device
        self.optimizer = make_optimizer(network, recipe)
        self.memory_format = torch.channels_last if recipe.channels_last else torch.preserve_format
        self.schedule = with_warmup(cosine, recipe.warmup_epochs / recipe.epochs)
        self.drop_last = len(data.train) >= recipe.batch_size  # a split below one batch is trained on as it is
        self.train_steps = data.train.num_batches(recipe.batch_size, drop_last=self.drop_last)
        self.validation_steps = data.validation.num_batches(recipe.batch_size)
        # Blocks that change in the course of a training; their `forward` changes no state, so they are told the step.
        self.scheduled: list[Any] = [module for module in network.modules() if hasattr(module, "on_step")]
        has_aux = len(getattr(network, "aux", ())) > 0
        self.forward: Any = network.forward_aux if has_aux else network

    def run(self, epoch: int, advance: Advance) -> Row:
        """Train one epoch, counted from 1, then evaluate: its row of the history."""
        start = time.monotonic()
        recipe = self.recipe
        seed_generators(epoch_seed(recipe.seed, epoch, "network"), self.device)
        batches = self.data.train.batches(
            recipe.batch_size,
            shuffle_seed=epoch_seed(recipe.seed, epoch, "data"),
            augment=recipe.augment,
            drop_last=self.drop_last,
            workers=workers_for(self.device),
        )
        shown = f"epoch {epoch}/{recipe.epochs}"
        losses = _Losses()
        lr = 0.0
        self.network.train()
        for step, batch in enumerate(batches, (epoch - 1) * self.train_steps):
            lr = learning_rate(recipe.lr, self.schedule, step, recipe.epochs * self.train_steps)
            losses.append(step, lr, self._step(batch, lr, step))
            advance(1, shown)
        train_loss = losses.mean()
        metrics = evaluate(self.network, self.task, self.data.validation, recipe.batch_size)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the training diverged in epoch {epoch} (lr {lr:.3g}): {name} on the validation split is "
                    f"{value}; lower lr or lengthen warmup_epochs"
                )
        objective = self.task.objective
        advance(self.validation_steps, f"{shown}  loss {train_loss:.4f}  {objective} {metrics[objective]:.4f}")
        return {"epoch": epoch, "lr": lr, "train_loss": train_loss, "seconds": time.monotonic() - start, **metrics}

    def _step(self, batch: Batch, lr: float, step: int) -> Tensor:
        images, targets = place(batch, self.task, self.device, self.memory_format)
        for module in self.scheduled:
            module.on_step(step, self.recipe.epochs * self.train_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.task.loss(self.forward(images), targets)
        if self.recipe.group_lasso:
            loss = loss + self.recipe.group_lasso * group_lasso(self.network)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.detach()


def learning_rate(base_lr: float, schedule: Schedule, step: int, total_steps: int) -> float:
    """The rate of a step, counted from 0: the schedule's at the middle of the step, so that it is never 0."""
    return base_lr * schedule((step + 0.5) / total_steps)


class _Losses:
    """The losses of an epoch; FloatingPointError names the first that is not finite, within a second or a step."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, float, Tensor]] = []
        self._read: list[float] = []
        self._read_at = time.monotonic()

    def append(self, step: int, lr: float, loss: Tensor) -> None:
        self._waiting.append((step, lr, loss))
        # Not at every step: an accelerator stops for each reading.
        if time.monotonic() - self._read_at >= SECONDS_BETWEEN_READINGS:
            self._look()

    def mean(self) -> float:
        self._look()
        return math.fsum(self._read) / len(self._read)

    def _look(self) -> None:
        values = torch.stack([loss for _, _, loss in self._waiting]).tolist() if self._waiting else []
        for (step, lr, _), value in zip(self._waiting, values, strict=True):
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the training diverged at step {step} (lr {lr:.3g}): the loss is {value}; "
                    "lower lr or lengthen warmup_epochs"
                )
        self._read += values
        self._waiting.clear()
        self._read_at = time.monotonic()
