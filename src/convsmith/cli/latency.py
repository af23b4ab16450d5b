"""convsmith latency: how long networks take on this device, measured in turns."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Batch, InputSize, Json, Names, Threads
from convsmith.cli.output import print_json, print_table, say
from convsmith.cli.subjects import subjects


@app.command(epilog="Example: convsmith latency resnet18 mobilenet_v2 --backend onnxruntime --threads 2")
def latency(
    architectures: Names,
    backend: Annotated[str, typer.Option(help="eager, onnxruntime, or auto for the fastest installed.")] = "eager",
    batch: Batch = 1,
    threads: Threads = 1,
    input_size: InputSize = None,
    device: Annotated[str, typer.Option(help="Where to run, as torch names it.")] = "cpu",
    json: Json = False,
) -> None:
    """Measure forward passes on this device: medians of interleaved rounds, with their spread."""
    from convsmith import measure
    from convsmith.network import output_shapes

    named = subjects(architectures)
    rows = []
    # Networks of one input shape take turns in one run; their ratios can be trusted.
    for shape in dict.fromkeys(subject.shape(batch, input_size) for subject in named):
        group = [subject for subject in named if subject.shape(batch, input_size) == shape]
        for subject in group:
            if subject.architecture is not None:
                output_shapes(subject.architecture, shape)  # an input that does not fit is told before anything runs
        modules = {subject.name: subject.build() for subject in group}
        found = measure.latencies(modules, shape, backend=backend, device=device, threads=threads)
        rows += [{"name": name, **dataclasses.asdict(own), "input_size": shape[-1]} for name, own in found.items()]
    if json:
        print_json(rows)
        return
    print_table(
        ("name", ">latency / ms", ">spread / ms", "backend", "device", ">batch", ">threads", ">input"),
        (
            (
                str(row["name"]),
                f"{row['median_ms']:.3f}",
                f"{row['spread_ms']:.3f}",
                *(str(row[key]) for key in ("backend", "device", "batch", "threads", "input_size")),
            )
            for row in rows
        ),
    )
    for row in rows:
        if row["noisy"]:
            say(f"{row['name']}: the spread is more than a twentieth of the median; measure again on a quieter machine")
