"""convsmith quantize: a trained network in int8, its accuracy and speed before and after."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import DataName, ImageSide, Json, Threads
from convsmith.cli.output import print_json, print_table, say
from convsmith.cli.subjects import architecture_for

if TYPE_CHECKING:
    from convsmith.deploy.agreement import Run

BATCH_SIZE = 32


@app.command(epilog="Example: convsmith quantize resnet18 --weights runs/r/weights.safetensors --data digits")
def quantize(
    arch: Annotated[
        str, typer.Argument(metavar="ARCH", help="A zoo name, as `train --arch` takes it, or a .json file.")
    ],
    weights: Annotated[Path, typer.Option(help="Its trained weights: a safetensors file or a state dict.")],
    data: DataName,
    backend: Annotated[
        str, typer.Option(help="onnxruntime, openvino, or auto for the faster of those installed.")
    ] = "auto",
    images: Annotated[int, typer.Option(min=1, help="Images of the training split that calibrate.")] = 512,
    max_drop: Annotated[float, typer.Option(min=0.0, help="How much accuracy may be lost, of 1.")] = 0.01,
    out: Annotated[Path | None, typer.Option(help="The folder to write; ARCH-int8 by default.")] = None,
    threads: Threads = 1,
    input_size: ImageSide = None,
    json: Json = False,
) -> None:
    """Quantise a network after training, judge it on the validation split, and write what is shipped."""
    from convsmith import data as data_sets, deploy, tasks, zoo
    from convsmith.deploy.int8.folder import check_folder

    folder = out or Path(f"{Path(arch).stem}-int8")
    check_folder(folder)
    source = data_sets.load(data, input_size=input_size)
    task = tasks.Classification(source.num_classes)
    network = zoo.create_model(architecture_for(arch, source), weights=weights).eval()

    def accuracy(run: Run) -> float:
        metric = task.metrics()["accuracy"]
        for inputs, labels in source.validation.batches(BATCH_SIZE):
            metric.update(run(inputs), labels)
        return metric.compute()

    calibration = islice(source.train.batches(BATCH_SIZE, shuffle_seed=0), -(-images // BATCH_SIZE))
    result = deploy.quantize(
        network, calibration, evaluate=accuracy, backend=backend, max_drop=max_drop, threads=threads
    )
    written = result.save(folder)
    if json:
        print_json({"folder": str(folder), "files": [path.name for path in written], **result.figures})
        return
    print_table(
        ("", ">accuracy", ">latency / ms"),
        (
            ("float32", f"{result.metric_before:.4f}", f"{result.float_ms:.3f}"),
            ("int8", f"{result.metric_after:.4f}", f"{result.int8_ms:.3f}"),
        ),
    )
    say(f"wrote {folder} for {result.backend}: {result.int8_layers} of {result.layers} layers in int8")
    if result.speedup < 1:
        say(f"int8 is not faster here: float32 takes {result.speedup:.2f} of its time; ship float32 for this device")
