"""The same network in torchvision, timm or pytorchcv: its pretrained weights into ours, and ours back into its names."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from convsmith.network import Network, transplant
from convsmith.network.weights import Order, map_names
from convsmith.nn.observe import evaluating
from convsmith.zoo.libraries import BUILDERS, build_peer, on_meta
from convsmith.zoo.registry import families, variants
from convsmith.zoo.variant import TORCHVISION

LARGEST_DIFFERENCE = 1e-3  # of float32 outputs, relative to the largest: the order of sums may differ


def load_pretrained(network: Network, source: str) -> None:
    """Fetch another library's pretrained weights and map them into ours, checked by shapes and by outputs.

    `source` is the library, as `"torchvision"`, or also its name of the network or its weights, as
    `"timm/resnet50.a1_in1k"`, `"pytorchcv/resnet50b"`, `"torchvision/IMAGENET1K_V2"`. The library fetches the file (and
    keeps it where it always does). torchvision's GoogLeNet and Inception v3 then expect images scaled to -1..1.

    Raises:
        ValueError: for a network that the library has not, and where shapes or the outputs on a fixed image differ.
        ImportError: where the library is missing.
    """
    name = network.architecture.name
    library, _, model = source.partition("/")
    peer = _pretrained(name, library, model)
    state = peer.state_dict()
    if not network.architecture.aux:  # torchvision's Inception v3 comes with its auxiliary classifier
        state = {key: tensor for key, tensor in state.items() if not key.startswith("AuxLogits.")}
    try:
        transplant(state, network, order=order_of(name, state))
    except ValueError as error:
        raise ValueError(f"the weights of {source} do not fit {name}: {error}") from None
    if not (difference := _difference(network, peer, variants()[name].input_size)) <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"{name} with the weights of {source} must give the library's outputs, they differ by {difference:.1e} of "
            f"the largest; {source} is another network of the same shapes"
        )


def export_state_dict(network: Network, *, like: str) -> dict[str, Tensor]:
    """Our weights under the names of another library: `"torchvision"`, `"timm/resnet50"`, `"pytorchcv/resnet50b"`.

    The tensors are the network's own, reshaped where the other library stores a layer otherwise; a strict
    `load_state_dict` of its network takes them.
    """
    library, _, model = like.partition("/")
    name = network.architecture.name
    classes = network.architecture.head.get("num_classes") if network.architecture.head else None
    peer = on_meta(library, _model(name, library, model), num_classes=classes, aux=bool(network.architecture.aux))
    own, theirs = network.state_dict(), peer.state_dict()
    try:
        ours = {b: a for a, b in map_names(own, theirs, order_of(name, theirs)).items()}
    except ValueError as error:
        raise ValueError(f"{name} has no form like {like}: {error}") from None
    # A norm's counter is not mapped by position: it stands beside the mean that is.
    counter = "num_batches_tracked"
    for key in theirs:
        if key.endswith(counter):
            ours[key] = ours[key.removesuffix(counter) + "running_mean"].removesuffix("running_mean") + counter
    return {key: own[ours[key]].reshape(tensor.shape) for key, tensor in theirs.items()}


def is_pretrained(weights: object) -> bool:
    """Whether `weights` names a library's weights, not a file."""
    return isinstance(weights, str) and weights.partition("/")[0] in BUILDERS


def names_of_peer(name: str, state_dict: Mapping[str, Tensor]) -> list[str] | None:
    """The names of these weights in the order of the peer's state dict, which a safetensors file does not keep.

    None where the names are not those of the variant's network in torchvision, timm or pytorchcv, or that is missing.
    """
    variant = variants().get(name)
    if variant is None or variant.source not in BUILDERS or find_spec(variant.source) is None:
        return None
    try:
        peer = on_meta(variant.source, variant.peer or name, aux=True)
    except ValueError:  # a width or form that the library does not build by a name
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


def _model(name: str, library: str, model: str) -> str:
    if library not in BUILDERS:
        raise ValueError(f"the library must be one of {', '.join(BUILDERS)}, got {library!r}")
    if name not in variants():
        raise ValueError(f"only networks of the zoo have a peer in {library}, got {name!r}")
    variant = variants()[name]
    own = variant.peer if variant.peer and variant.source == library else name
    return own if not model or (library == TORCHVISION and model.isupper()) else model


def _pretrained(name: str, library: str, model: str) -> nn.Module:
    chosen = _model(name, library, model)
    weights = {"weights": model if model.isupper() else "DEFAULT"} if library == TORCHVISION else {"pretrained": True}
    peer = build_peer(library, chosen, **weights).eval()
    if hasattr(peer, "transform_input"):
        peer.transform_input = False  # type: ignore[assignment]
    return peer


def _difference(network: nn.Module, peer: nn.Module, size: int) -> float:
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), evaluating(network):
        ours, theirs = network(image), peer(image)
    return float((ours - theirs).abs().max() / theirs.abs().max())
