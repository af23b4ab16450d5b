"""`create_model`: a network from a name, a file or an architecture."""

from __future__ import annotations

from pathlib import Path

from convsmith.arch import Architecture, Reference, adapt
from convsmith.measure import cost
from convsmith.network import Network, build, load_weights
from convsmith.zoo.registry import get


def create_model(
    architecture: str | Path | Architecture,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    aux_heads: bool = False,
    weights: str | Path | None = None,
) -> Network:
    """The network of a zoo name, of an architecture file (`.json`) or of an architecture.

    `weights` is a safetensors file or a state dict saved by torch, ours or a peer's (see
    `convsmith.network.load_weights`). A file whose `reference` differs from a recount is refused with both figures.
    """
    network = build(find(architecture, num_classes=num_classes, in_channels=in_channels, aux_heads=aux_heads))
    if weights is not None:
        load_weights(network, weights)
    return network


def find(
    architecture: str | Path | Architecture,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    aux_heads: bool = False,
) -> Architecture:
    """The architecture that a zoo name or a `.json` file names, adapted to `num_classes` and `in_channels`."""
    if isinstance(architecture, str) and not architecture.endswith(".json"):
        return get(architecture, num_classes=num_classes, in_channels=in_channels or 3, aux_heads=aux_heads)
    if aux_heads:
        raise ValueError("aux_heads builds the auxiliary heads of a zoo name; a file or an architecture has its own")
    if not isinstance(architecture, Architecture):
        if not Path(architecture).is_file():
            raise FileNotFoundError(
                f"there is no architecture file {architecture}; `convsmith list` shows the zoo's names"
            )
        path, architecture = architecture, Architecture.load(architecture)
        check_reference(architecture, str(path))
    return adapt(architecture, num_classes=num_classes, in_channels=in_channels)


def check_reference(architecture: Architecture, where: str) -> None:
    """Raise ValueError, with both figures, unless the params and MACs that a file states are those it has."""
    stated = architecture.reference
    if stated is None:
        return
    counted = cost(architecture, (1, architecture.in_channels, stated.input_size, stated.input_size))
    found = Reference(counted.params, counted.macs, stated.input_size)
    if found != stated:
        raise ValueError(
            f"{where} states {stated.params:,} params and {stated.macs:,} MACs at {stated.input_size}x{stated.input_size}"
            f", a recount gives {found.params:,} and {found.macs:,}; correct the blocks or the reference"
        )
