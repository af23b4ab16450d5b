"""`create_model`: a network from a name, a file or an architecture, with weights from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from convsmith.arch import Architecture, Reference, adapt
from convsmith.network import Network, adapt_weights, build, fit_weights, read_weights, stored_architecture
from convsmith.zoo.peers import is_pretrained, load_pretrained, names_of_peer, order_of
from convsmith.zoo.registry import get


def create_model(
    architecture: str | Path | Architecture,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    aux_heads: bool = False,
    weights: str | Path | Mapping[str, Tensor] | None = None,
) -> Network:
    """The network of a zoo name, of an architecture file (`.json`), of a weights file of ours, or of an architecture.

    `weights` is a state dict, a safetensors file or a state dict saved by torch, ours or a peer's (see
    `convsmith.network.load_weights`), or another library's pretrained weights: `"torchvision"`,
    `"timm/resnet50.a1_in1k"`, `"pytorchcv"` (see `convsmith.zoo.load_pretrained`). Where they were trained for another
    number of classes or input channels than asked for, the classifier stays fresh and the first convolution is adapted
    (see `convsmith.network.adapt_weights`). A safetensors file that `convsmith.network.save_weights` wrote, given as the
    architecture, brings its own weights. A file whose `reference` differs from a recount is refused with both figures.
    """
    if not isinstance(architecture, Architecture) and Path(architecture).suffix == ".safetensors":
        weights = weights or architecture
        architecture = stored_architecture(architecture)
    wanted = find(architecture, num_classes=num_classes, in_channels=in_channels, aux_heads=aux_heads)
    network = build(wanted)
    if weights is None:
        return network
    trained = find(architecture, aux_heads=aux_heads)
    if is_pretrained(weights):
        source = network if trained == wanted else build(trained)
        load_pretrained(source, str(weights))
    else:
        source = _with_state(network, trained, weights)
    if source is not network:
        adapt_weights(source, network)
    return network


def _with_state(network: Network, trained: Architecture, weights: str | Path | Mapping[str, Tensor]) -> Network:
    # They may be of the network as it is wanted, or as it was trained before: with other classes or channels.
    name, path, state = trained.name, "a state dict", weights
    if not isinstance(state, Mapping):
        path, state = str(state), read_weights(state)
    order = order_of(name, state)
    # Only a sorted file of another library needs that library to tell the order of its names.
    foreign = path.endswith(".safetensors") and state.keys().isdisjoint(network.state_dict())
    names = names_of_peer(name, state) if foreign else None
    try:
        fit_weights(network, state, path, order=order, names_in_order=names)
        return network
    except ValueError:
        if trained == network.architecture:
            raise
    original = build(trained)
    fit_weights(original, state, path, order=order, names_in_order=names)
    return original


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
    from convsmith.measure import cost  # here, as it brings the back ends along: names and tables do without

    counted = cost(architecture, (1, architecture.in_channels, stated.input_size, stated.input_size))
    found = Reference(counted.params, counted.macs, stated.input_size)
    if found != stated:
        raise ValueError(
            f"{where} states {stated.params:,} params and {stated.macs:,} MACs at {stated.input_size}x{stated.input_size}"
            f", a recount gives {found.params:,} and {found.macs:,}; correct the blocks or the reference"
        )
