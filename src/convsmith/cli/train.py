"""convsmith train: train one network on a data set, resumable at any moment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import DataName, ImageSide, Json, RunDir, Seed, run_name
from convsmith.cli.output import print_json, say
from convsmith.cli.subjects import architecture_for


@app.command(epilog="Example: convsmith train --arch resnet18 --data digits --epochs 20")
def train(
    arch: Annotated[
        str, typer.Option(help="A zoo name, fitted to the data's classes, channels and size, or a .json file.")
    ],
    data: DataName,
    recipe: Annotated[str, typer.Option(help="A recipe's name (basic) or its .json file.")] = "basic",
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.", show_default=False)] = None,
    seed: Seed = 0,
    input_size: ImageSide = None,
    device: Annotated[str, typer.Option(help="Where to train, as torch names it.")] = "cpu",
    run_dir: RunDir = None,
    json: Json = False,
) -> None:
    """Train a network and judge it on the test split. The same command on the same run goes on where it was."""
    import torch

    from convsmith import data as data_sets, tasks, train as training

    changes: dict[str, Any] = {
        key: value for key, value in (("epochs", epochs), ("batch_size", batch_size)) if value is not None
    }
    settings = dataclasses.replace(training.recipes.get(recipe), seed=seed, **changes)
    images = data_sets.load(data, input_size=input_size)
    task = tasks.Classification(images.num_classes)
    torch.manual_seed(seed)
    network = task.network(architecture_for(arch, images))
    folder = run_dir or run_name("train", arch, data, seed)
    result = training.fit(network, task, images, settings, run_dir=folder, device=device)
    test = training.evaluate(result.network, task, images.test, batch_size=settings.batch_size)
    if json:
        weights = str(Path(folder) / "weights.safetensors")
        print_json({"run_dir": str(folder), "validation": result.metrics, "test": test, "weights": weights})
        return
    say(f"{folder}: validation {_shown(result.metrics)}; test {_shown(test)}")


def _shown(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
