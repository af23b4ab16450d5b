"""convsmith predict: how long networks would take on a calibrated device, without running them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Batch, Json, Threads
from convsmith.cli.calibrations import opened
from convsmith.cli.output import print_json, print_table, say
from convsmith.cli.sizes import InputSize, shown_size
from convsmith.cli.subjects import subjects


@app.command(epilog="Example: convsmith predict resnet18 'mobilenet*' --threads 1")
def predict(
    architectures: Annotated[
        list[str],
        typer.Argument(
            metavar="ARCH...",
            help="Zoo names, globs such as 'resnet*', .json files, or FILE.py:NAME.",
            show_default=False,
        ),
    ],
    backend: Annotated[str, typer.Option(help="What was calibrated.")] = "onnxruntime",
    threads: Threads = 1,
    batch: Batch = 1,
    input_size: InputSize = None,
    calibration: Annotated[
        Path | None, typer.Option(help="The file of `convsmith calibrate`.", show_default=False)
    ] = None,
    elsewhere: Annotated[bool, typer.Option("--elsewhere", help="The file is of another machine, and meant.")] = False,
    json: Json = False,
) -> None:
    """Predict the latency of networks from their architecture; kernels that were never measured are named."""
    predictor = opened(calibration, backend, threads, elsewhere=elsewhere)
    rows = []
    for subject in subjects(architectures):
        if subject.architecture is None:
            raise ValueError(f"a latency is predicted from an architecture, and {subject.name} is a module; measure it")
        shape = subject.shape(batch, input_size)
        milliseconds = predictor.predict_ms(subject.architecture, shape, unknown="ignore")
        unknown = predictor.unknown(subject.architecture, shape)
        size = shown_size(shape)
        rows.append({"name": subject.name, "latency_ms": milliseconds, "input_size": size, "unknown": unknown})
    if json:
        print_json(rows)
        return
    print_table(
        ("name", ">predicted / ms", ">batch", ">input"),
        ((str(r["name"]), f"{r['latency_ms']:.3f}", str(batch), str(r["input_size"])) for r in rows),
    )
    held = predictor.held_out
    say(f"of {held.networks} networks held out of the calibration, {held.within_10:.0%} were within 10 %")
    for row in rows:
        if row["unknown"]:
            say(f"{row['name']}: never measured: {'; '.join(row['unknown'][:5])}")  # type: ignore[index]
