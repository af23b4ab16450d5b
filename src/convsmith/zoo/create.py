"""`create_model`: a network from a name, a file or an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from convsmith.arch import Architecture, Reference, adapt
from convsmith.measure import cost
from convsmith.network import Network, build, load_weights, read_weights
from convsmith.network.weights import Order
from convsmith.zoo.registry import families, get, variants
from convsmith.zoo.variant import PYTORCHCV, TIMM, TORCHVISION


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
        state = read_weights(weights)
        names = names_of_peer(found.name, state)
        load_weights(network, weights, order=order_of(found.name, state), names_in_order=names)
    return network


def names_of_peer(name: str, state_dict: Mapping[str, Tensor]) -> list[str] | None:
    """The names of these weights in the order of the peer's state dict, which a safetensors file does not keep.

    None where the names are not those of the variant's network in torchvision, timm or pytorchcv, or that is missing.
    """
    variant = variants().get(name)
    builders = {
        TORCHVISION: ("torchvision.models", "get_model"),
        TIMM: ("timm", "create_model"),
        PYTORCHCV: ("pytorchcv.model_provider", "get_model"),
    }
    if variant is None or variant.source not in builders or find_spec(variant.source) is None:
        return None
    module, function = builders[variant.source]
    try:
        with torch.device("meta"):
            peer = getattr(import_module(module), function)(variant.peer or name)
    except (ValueError, RuntimeError):  # a width or form that the library does not build by a name
        return None
    names = [key for key in peer.state_dict() if key in state_dict]
    return names if len(names) == len(state_dict) else None


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
        return get(
            architecture,
            num_classes=num_classes,
            in_channels=3 if in_channels is None else in_channels,
            aux_heads=aux_heads,
        )
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
