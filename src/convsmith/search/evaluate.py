"""The usual evaluation of a search: train the network for a short while, and measure it on the validation split."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from convsmith.arch import Architecture
from convsmith.data import DataSet, load
from convsmith.measure import cost
from convsmith.search.executors import Report
from convsmith.tasks import Classification, Task
from convsmith.train import Recipe, fit
from convsmith.train.run_folder import describe_task

load_once = lru_cache(maxsize=2)(load)  # per process: a worker opens its data with its first trial


@dataclass(frozen=True)
class TrainAndMeasure:
    """An `evaluate` that trains by a recipe, with the trial's seed, and reports the objective after each epoch.

    `data`, `input_size` and `root` are those of `data.load`; `task` None is the classification of these data. The
    metrics of a trial are the task's on the validation split, `train_loss` of the last epoch, `params` and `macs` of
    one image, and the `seconds` that it took. The test split is not touched.
    """

    data: str
    recipe: Recipe
    input_size: int | None = None
    root: str | Path | None = None
    task: Task[Any] | None = None
    device: str = "cpu"

    def __call__(self, architecture: Architecture, /, *, seed: int, report: Report) -> dict[str, float]:
        """Train and measure one architecture."""
        began = time.monotonic()
        data, task = self.load(), self._task()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = task.network(architecture)
        result = fit(
            network,
            task,
            data,
            dataclasses.replace(self.recipe, seed=seed),
            device=self.device,
            progress=False,
            on_epoch=lambda epoch, row: report(epoch, row[task.objective]),
        )
        counted = cost(architecture, (1, *data.input_shape))
        return {
            **result.metrics,
            "train_loss": result.history[-1]["train_loss"],
            "params": counted.params,
            "macs": counted.macs,
            "seconds": time.monotonic() - began,
        }

    def metrics(self) -> list[str]:
        """The names of the metrics that a trial gets."""
        return [*self._task().metrics(), "train_loss", "params", "macs", "seconds"]

    def load(self) -> DataSet:
        """The data, opened once per process."""
        return load_once(self.data, input_size=self.input_size, root=self.root)

    def facts(self) -> dict[str, Any]:
        """What a search with this evaluation is: its data, task and recipe, but for the seed, which each trial has."""
        data, recipe = self.load(), self.recipe.recorded()
        del recipe["seed"]
        return {
            "data": f"{data.name} {data.fingerprint}",
            "input_shape": list(data.input_shape),
            "task": describe_task(self._task()),
            "recipe": recipe,
        }

    def _task(self) -> Task[Any]:
        return Classification(self.load().num_classes) if self.task is None else self.task
