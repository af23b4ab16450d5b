"""convsmith export: the file that is shipped, verified against eager."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import InputSize, Json
from convsmith.cli.output import print_json, say
from convsmith.cli.subjects import subjects


@app.command(epilog="Example: convsmith export resnet18 --weights resnet18.pth --out resnet18.onnx")
def export(
    architecture: Annotated[
        str, typer.Argument(metavar="ARCH", help="A zoo name, a .json file, timm:NAME or torchvision:NAME.")
    ],
    format: Annotated[str, typer.Option(help="The format of the file: onnx.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="The file; NAME.onnx by default.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A safetensors file or a state dict; random weights without it.")
    ] = None,
    input_size: InputSize = None,
    json: Json = False,
) -> None:
    """Export a network for any batch size and compare it with eager in ONNX Runtime."""
    import torch
    from torch import nn

    from convsmith import deploy, zoo
    from convsmith.network import load_weights, output_shapes

    (subject, *others) = subjects([architecture])
    if others:
        raise ValueError(f"export takes one network, got the glob {architecture!r}; name one of them")
    shape = subject.shape(2, input_size)
    if subject.architecture is not None:
        output_shapes(subject.architecture, shape)
    if subject.architecture is not None:
        network: nn.Module = zoo.create_model(subject.architecture, weights=weights)
    else:
        network = subject.build()
        if weights is not None:
            load_weights(network, weights)
    path = out or Path(f"{Path(subject.name.rpartition(':')[2]).stem}.{format}")
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = deploy.export(network.eval(), path, example, format=format)
    if json:
        facts = ("format", "bytes", "opset", "largest_difference", "tolerance", "batch_sizes", "folded_norms")
        print_json({"name": subject.name, "path": str(result.path), **{key: getattr(result, key) for key in facts}})
        return
    say(
        f"wrote {result.path}: {result.bytes:,} bytes, opset {result.opset}, {result.folded_norms} norms folded; it "
        f"differs from eager by at most {result.largest_difference:.1e} of the largest output"
    )
