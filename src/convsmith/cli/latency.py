"""convsmith latency: how long networks take on this device, measured in turns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Batch, Json, Names, Threads, positive
from convsmith.cli.elsewhere import measured_elsewhere, refuse_files, refuse_local
from convsmith.cli.memory import kept_memory
from convsmith.cli.output import print_json, say
from convsmith.cli.sizes import InputSize, shown_size
from convsmith.cli.subjects import subjects
from convsmith.cli.times import print_times, tried


@app.command(epilog="Example: convsmith latency resnet18 mobilenet_v2 --backend onnxruntime --threads 2")
def latency(
    architectures: Names,
    backend: Annotated[
        str,
        typer.Option(
            help="eager, onnxruntime, openvino, compile, executorch, tensorrt, or auto for the fastest of those "
            "that are installed and quick to prepare."
        ),
    ] = "eager",
    batch: Batch = 1,
    threads: Threads = 1,
    input_size: InputSize = None,
    device: Annotated[str, typer.Option(help="Where to run, as torch names it.")] = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="What to compute in, such as bfloat16; by default the network's own type.")
    ] = None,
    layout: Annotated[str, typer.Option(help="contiguous, or channels_last in eager and compile.")] = "contiguous",
    rounds: Annotated[int, typer.Option(min=1, help="Samples of each network.")] = 20,
    seconds: Annotated[
        float, typer.Option(callback=positive, help="Time per network after which no further round starts.")
    ] = 5.0,
    target: Annotated[
        str | None,
        typer.Option(
            help="Another device: ssh://[user@]host[:port] or adb:[SERIAL]; ARCH may be .onnx and .pte files."
        ),
    ] = None,
    python: Annotated[str, typer.Option(help="The interpreter there, which has onnxruntime.")] = "python3",
    runner: Annotated[
        Path | None, typer.Option(help="For .pte files: ExecuTorch's executor_runner, built for the device.")
    ] = None,
    ssh_config: Annotated[Path | None, typer.Option(help="A configuration file for ssh.")] = None,
    timeout: Annotated[
        float, typer.Option(callback=positive, help="Seconds for all that is done on the other device.")
    ] = 600.0,
    json: Json = False,
) -> None:
    """Measure forward passes here or on another device: medians of interleaved rounds, their intervals and ratios."""
    if target is not None:
        from convsmith.measure import parse_target

        local = {"backend": (backend, "eager"), "device": (device, "cpu"), "precision": (precision, None)}
        refuse_local({**local, "layout": (layout, "contiguous")})
        rows = measured_elsewhere(
            architectures,
            parse_target(target, python=python, runner=runner, ssh_config=ssh_config),
            input_size=input_size,
            settings={
                "batch": batch,
                "threads": threads,
                "rounds": rounds,
                "budget_seconds": seconds,
                "timeout_seconds": timeout,
            },
        )
        _print(rows, ("runtime", "device", "batch", "threads"), json=json)
        return
    refuse_files(architectures)
    from convsmith import measure
    from convsmith.network import output_shapes

    named = subjects(architectures)
    rows = []
    with kept_memory(device):
        # Networks of one input shape take turns in one run; their ratios can be trusted.
        for shape in dict.fromkeys(subject.shape(batch, input_size) for subject in named):
            group = [subject for subject in named if subject.shape(batch, input_size) == shape]
            for subject in group:
                if subject.architecture is not None:  # an input that does not fit is told before anything runs
                    output_shapes(subject.architecture, shape)
            modules = {subject.name: subject.build() for subject in group}
            found = measure.latencies(
                modules,
                shape,
                backend=backend,
                device=device,
                threads=threads,
                precision=precision,
                layout=layout,
                rounds=rounds,
                budget_seconds=seconds,
            )
            size = {"input_size": shown_size(shape)}
            rows += [{"name": name, **dataclasses.asdict(own), **size} for name, own in found.items()]
    _print(rows, ("backend", "device", "precision", "batch", "threads", "input_size"), json=json)
    if backend == "auto" and not json:
        for row in rows:
            say(tried(row))


def _print(rows: list[dict[str, Any]], settings: tuple[str, ...], *, json: bool) -> None:
    if json:
        print_json(rows)
    else:
        print_times(rows, settings)
