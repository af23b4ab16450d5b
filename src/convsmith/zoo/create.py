"""`create_model`: a network from a name, a file or an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

from torch import Tensor

from convsmith.arch import Architecture, Reference, adapt
from convsmith.measure import cost
from convsmith.network import Network, build, load_weights, read_weights
from convsmith.network.weights import Order
from convsmith.zoo.registry import families, get


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
    found = find(architecture, num_classes=num_classes, in_channels=in_channels, aux_heads=aux_heads)
    network = build(found)
    if weights is not None:
        load_weights(network, weights, order=order_of(found.name, read_weights(weights)))
    return network


def order_of(name: str, state_dict: Mapping[str, Tensor]) -> Order | None:
    """The name patterns that map these weights of another library to a variant of the zoo; None for our own order."""
    if name not in families():
        return None
    orders: dict[str, Order] = getattr(import_module(f"convsmith.zoo.{families()[name]}"), "ORDERS", {})
    for order in orders.values():
        if all(any(fnmatchcase(key, theirs) for key in state_dict) for _, theirs in order):
            return order
    return None


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
