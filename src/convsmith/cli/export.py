"""convsmith export: the file that is shipped, verified against eager."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Batch, Json, Model, Threads
from convsmith.cli.memory import kept_memory
from convsmith.cli.output import print_json, print_table, say
from convsmith.cli.sizes import InputSize
from convsmith.cli.subjects import one_subject

if TYPE_CHECKING:
    from convsmith import deploy


@app.command(epilog="Example: convsmith export resnet18 --weights resnet18.pth --backend auto --precision bfloat16")
def export(
    architecture: Model,
    format: Annotated[str, typer.Option(help="The format of the file: onnx.")] = "onnx",
    backend: Annotated[
        str | None,
        typer.Option(help="Write a folder for the fastest back end (auto) or a named one, instead of a file alone."),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="With --backend, what may be computed in; may be repeated; float32 by default."),
    ] = None,
    threads: Threads = 1,
    batch: Batch = 1,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="With --backend auto, try those too that take many seconds to prepare.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The file or folder; NAME.onnx or NAME by default.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A safetensors file or a state dict; random weights without it.")
    ] = None,
    input_size: InputSize = None,
    json: Json = False,
) -> None:
    """Export a network for any batch size as a file, or as a folder for the back end that is fastest here.

    What is written is compared with eager: the file in ONNX Runtime, the folder by its own loader.
    """
    import torch
    from torch import nn

    from convsmith import deploy, zoo
    from convsmith.network import load_weights, output_shapes

    subject = one_subject(architecture)
    if backend is None and (precision or thorough):
        raise ValueError(
            "--precision and --thorough choose among back ends, and --backend is not given; add --backend auto"
        )
    shape = subject.shape(2 if backend is None else batch, input_size)
    if subject.architecture is not None:
        output_shapes(subject.architecture, shape)
        network: nn.Module = zoo.create_model(subject.architecture, weights=weights)
    else:
        network = subject.build()
        if weights is not None:
            load_weights(network, weights)
    stem = Path(subject.name.rpartition(":")[2]).name.removesuffix(".json")  # published names of timm have dots
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if backend is not None:
        with kept_memory() as keeps_memory:
            shipment = deploy.ship(
                network.eval(),
                out or Path(stem),
                example,
                backend=backend,
                precisions=precision or (),
                threads=threads,
                thorough=thorough,
            )
        _print(shipment, subject.name, keeps_memory=keeps_memory, json=json)
        return
    result = deploy.export(network.eval(), out or Path(f"{stem}.{format}"), example, format=format)
    if json:
        facts = ("format", "bytes", "opset", "largest_difference", "tolerance", "batch_sizes", "folded_norms")
        print_json({"name": subject.name, "path": str(result.path), **{key: getattr(result, key) for key in facts}})
        return
    say(
        f"wrote {result.path}: {result.bytes:,} bytes, opset {result.opset}, {result.folded_norms} norms folded; it "
        f"differs from eager by at most {result.largest_difference:.1e} of the largest output"
    )


def _print(shipment: deploy.Shipment, name: str, *, keeps_memory: bool, json: bool) -> None:
    from convsmith.deploy.ship import COLUMNS, doubts, table

    if json:
        print_json(
            {"name": name, **dataclasses.asdict(shipment), "folder": str(shipment.folder), "keeps_memory": keeps_memory}
        )
        return
    print_table(
        [*COLUMNS[:2], *(f">{column}" for column in COLUMNS[2:-1]), f"~{COLUMNS[-1]}"], table(shipment.candidates)
    )
    for doubt in doubts(shipment.candidates, shipment.chosen):
        say(doubt)
    say(
        f"wrote {shipment.folder}: {', '.join(shipment.files)} for {shipment.chosen.backend} in "
        f"{shipment.chosen.precision}, loader.py and README.md; run by the loader, it differs from eager by at most "
        f"{shipment.loader_difference:.1e} of the largest output"
    )
