"""Norms and constant factors folded through concatenations, splits, shuffles and pooling into convolutions.

In eval mode a batch norm maps each channel c to `scale[c] * x + shift[c]`, as does a product or a sum with a number. A
convolution takes this over in its outputs (rows of its weight, bias) or in its inputs (columns), wherever its channels
come from or go to: a norm behind a concatenation splits into the convolutions in front. Into a convolution behind it a
shift goes only where no zeros are padded, as the zeros were not shifted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from convsmith.deploy.passes.draft import Draft, changed
from convsmith.deploy.passes.wiring import CONVOLUTIONS, NORMS, Wiring, argument, name_of

Channel: TypeAlias = tuple[fx.Node, int]  # the map, and the channel's number in it


def fold_affine(module: nn.Module) -> nn.Module:
    """A copy of the module, in eval mode, with norms and constant factors folded into convolutions where it can be.

    The copy computes what the module computes in eval mode. It is a torch.fx.GraphModule, with the names of its folded
    norms in `folded_norms` (after those of `fold_norm`, which goes first: it keeps the module's class, and follows
    more kinds of layers); where nothing can be folded, it is of the module's own class and unchanged. What is folded
    must be all that reads the channels in front of it, or be read by convolutions alone. The module is left untouched.

    Raises NotTraceableError when torch.fx cannot follow the module's own `forward`.
    """
    return changed(module, fold_affine_draft)


def fold_affine_draft(draft: Draft) -> None:
    """`fold_affine`, of a network that is changed already."""
    norms: tuple[str, ...] = getattr(draft.network, "folded_norms", ())
    while found := _round(draft.graph, draft.wiring):
        norms += tuple(str(affine.node.target) for affine in found if affine.node.op == "call_module")
        draft.commit()
        draft.network.folded_norms = norms  # type: ignore[assignment]


@dataclass(frozen=True)
class _Affine:
    """`scale * x + shift` of each channel, as the node computes it, of one of its inputs."""

    node: fx.Node
    x: fx.Node
    scale: Tensor
    shift: Tensor

    def remove(self, graph: fx.Graph, wiring: Wiring) -> None:
        """Let the node's readers read its input, or let it add its input as it is."""
        if "alpha" in self.node.kwargs:
            self.node.kwargs = {key: value for key, value in self.node.kwargs.items() if key != "alpha"}
            return
        x = self.x
        if any(wiring.in_place(user) for user in self.node.users):
            with graph.inserting_before(self.node):
                x = graph.call_method("clone", (x,))
        self.node.replace_all_uses_with(x)
        graph.erase_node(self.node)


def _round(graph: fx.Graph, wiring: Wiring) -> list[_Affine]:
    """Fold what can be folded at once, given the wiring; what follows something folded waits for the next round."""
    affines, folded = list(_affines(graph, wiring)), []
    ends = _Ends(wiring, _Readers(graph, wiring)) if affines else None
    for affine in affines:
        assert ends is not None
        if (behind := ends.behind(affine)) is not None:
            for layer, places in behind.items():
                _fold_behind(layer, affine, places)
        elif (ahead := ends.ahead(affine)) is not None:
            for layer, places in ahead.items():
                _fold_ahead(layer, affine, places)
        else:
            continue
        affine.remove(graph, wiring)
        folded.append(affine)
    return folded


class _Readers:
    """Of each channel: who reads it, and as which of its inputs."""

    def __init__(self, graph: fx.Graph, wiring: Wiring):
        self.wiring = wiring
        self.nodes: dict[fx.Node, list[tuple[fx.Node, fx.Node]]] = defaultdict(list)  # by map: (reader, what it reads)
        self.places: dict[fx.Node, dict[Channel, list[int]]] = {}
        for node in graph.nodes:
            if not wiring.routes(node) and not wiring.asks_shape(node):
                for x in node.all_input_nodes:
                    for source in dict.fromkeys(map(itemgetter(0), wiring.wires.get(x, ()))) or (x,):
                        self.nodes[source].append((node, x))

    def __getitem__(self, channel: Channel) -> list[Channel]:
        found = []
        for node, x in self.nodes[channel[0]]:
            if x not in self.places:
                self.places[x] = defaultdict(list)
                for place, wire in enumerate(self.wiring.channels(x) or ()):
                    self.places[x][wire].append(place)
            found += [(node, place) for place in self.places[x].get(channel, ())]
        return found


def _affines(graph: fx.Graph, wiring: Wiring) -> Iterator[_Affine]:
    for node in graph.nodes:
        layer = wiring.layers.get(node)
        if isinstance(layer, NORMS):
            if not layer.training and layer.running_mean is not None and len(node.args) == 1:
                yield _of_norm(node, layer)
        elif name_of(node) in ("mul", "truediv", "div", "add", "sub") and not wiring.in_place(node):
            found = _of_numbers(node)
            channels = wiring.channels(found[0]) if found else None
            if found and channels:
                x, scale, shift = found
                yield _Affine(node, x, *(torch.full((len(channels),), v, dtype=torch.float64) for v in (scale, shift)))


def _of_norm(node: fx.Node, norm: Any) -> _Affine:
    gamma = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros_like(norm.running_var) if norm.bias is None else norm.bias.detach()
    scale = gamma.double() * (norm.running_var.double() + norm.eps).rsqrt()
    return _Affine(node, node.all_input_nodes[0], scale, beta.double() - norm.running_mean.double() * scale)


def _of_numbers(node: fx.Node) -> tuple[fx.Node, float, float] | None:
    """The input, factor and summand of a node that computes with one map and a number, or adds a multiple of a map."""
    name, args, alpha = name_of(node), node.args, node.kwargs.get("alpha", 1)
    if len(args) != 2 or set(node.kwargs) - {"alpha"} or not isinstance(alpha, int | float):
        return None
    a, b = args
    if isinstance(a, fx.Node) and isinstance(b, fx.Node):
        return (b, float(alpha), 0.0) if name == "add" and "alpha" in node.kwargs and a is not b else None
    x, number = (a, b) if isinstance(a, fx.Node) else (b, a)
    if not isinstance(x, fx.Node) or not isinstance(number, int | float) or "alpha" in node.kwargs:
        return None
    if name in ("mul", "add"):
        return (x, float(number), 0.0) if name == "mul" else (x, 1.0, float(number))
    if name == "sub":
        return (x, 1.0, -float(number)) if x is a else (x, -1.0, float(number))
    return (x, 1 / number, 0.0) if x is a and number else None


@dataclass(frozen=True)
class _Ends:
    """The convolutions where the channels that an affine map reads begin, and where those that it writes end."""

    wiring: Wiring
    readers: _Readers

    def behind(self, affine: _Affine) -> dict[nn.Module, dict[int, int]] | None:
        """The layers in front, with each of their outputs and its number in the affine map."""
        ends: dict[nn.Module, dict[int, int]] = defaultdict(dict)
        reader, channels = affine.node, self.wiring.channels(affine.x)
        if channels is None or len(channels) != len(affine.scale):
            return None
        increases = bool((affine.scale >= 0).all())
        for number, channel in enumerate(channels):
            end, place = reader, number
            while True:
                if self.readers[channel] != [(end, place)]:
                    return None
                end, place = channel
                layer = self.wiring.layers.get(end)
                if isinstance(layer, CONVOLUTIONS):
                    ends[layer][place] = number
                    break
                inputs = self.wiring.channels(end.all_input_nodes[0]) if self._commutes(end, increases) else None
                if inputs is None:
                    return None
                channel = inputs[place]
        return ends

    def ahead(self, affine: _Affine) -> dict[nn.Module, dict[int, int]] | None:
        """The layers behind, with each of their inputs and its number in the affine map."""
        if affine.node.kwargs or self.wiring.channels(affine.node) is None:
            return None
        ends: dict[nn.Module, dict[int, int]] = defaultdict(dict)
        shifts, increases = bool((affine.shift != 0).any()), bool((affine.scale >= 0).all())
        for number in range(len(affine.scale)):
            pending = [(affine.node, number)]
            while pending:
                found = self.readers[pending.pop()]
                if not found:
                    return None
                for node, place in found:
                    layer = self.wiring.layers.get(node)
                    if isinstance(layer, (*CONVOLUTIONS, nn.Linear)):
                        if isinstance(layer, nn.Linear) and not self.wiring.is_vector(node.all_input_nodes[0]):
                            return None
                        if shifts and not isinstance(layer, nn.Linear) and _pads_zeros(layer):
                            return None
                        ends[layer][place] = number
                    elif self._commutes(node, increases):
                        pending.append((node, place))
                    else:
                        return None
        return ends

    def _commutes(self, node: fx.Node, increases: bool) -> bool:
        """Whether `f(scale * x + shift)` is `scale * f(x) + shift`; maxima are, where no scale is negative."""
        layer, name = self.wiring.layers.get(node), name_of(node)
        if self.wiring.channels(node) is None or len(node.all_input_nodes) != 1:
            return False
        if isinstance(layer, nn.AdaptiveAvgPool2d) or name == "adaptive_avg_pool2d" or self.wiring.is_flattening(node):
            return True
        if isinstance(layer, nn.AvgPool2d):
            padding, counts, divisor = layer.padding, layer.count_include_pad, layer.divisor_override
        elif name == "avg_pool2d":
            padding = argument(node, 3, "padding", 0)
            counts, divisor = argument(node, 5, "count_include_pad", True), argument(node, 6, "divisor_override", None)
        else:
            is_maximum = isinstance(layer, nn.MaxPool2d | nn.AdaptiveMaxPool2d) or "max_pool2d" in name
            return increases and is_maximum
        return divisor is None and (padding in (0, (0, 0), [0, 0]) or not counts)


def _pads_zeros(layer: Any) -> bool:
    if layer.padding_mode != "zeros" or layer.padding == "valid":
        return False
    return any(layer.padding) if layer.padding != "same" else any(size > 1 for size in layer.kernel_size)


@torch.no_grad()
def _fold_behind(layer: Any, affine: _Affine, places: dict[int, int]) -> None:
    scale, shift = (
        torch.ones(layer.out_channels, dtype=torch.float64),
        torch.zeros(layer.out_channels, dtype=torch.float64),
    )
    rows, numbers = torch.tensor(list(places)), torch.tensor(list(places.values()))
    scale[rows], shift[rows] = affine.scale.cpu()[numbers], affine.shift.cpu()[numbers]
    scale, shift = scale.to(layer.weight.device), shift.to(layer.weight.device)
    weight = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.dim() - 1))
    _set(layer, weight, _bias(layer, layer.out_channels) * scale + shift)


@torch.no_grad()
def _fold_ahead(layer: Any, affine: _Affine, places: dict[int, int]) -> None:
    linear = isinstance(layer, nn.Linear)
    inputs, groups = (layer.in_features, 1) if linear else (layer.in_channels, layer.groups)
    scale, shift = torch.ones(inputs, dtype=torch.float64), torch.zeros(inputs, dtype=torch.float64)
    columns, numbers = torch.tensor(list(places)), torch.tensor(list(places.values()))
    scale[columns], shift[columns] = affine.scale.cpu()[numbers], affine.shift.cpu()[numbers]
    # (groups, outputs of each, inputs of each, pixels)
    weight = layer.weight.double()
    grouped = weight.reshape(groups, len(weight) // groups, inputs // groups, -1)
    scale, shift = (value.to(weight.device).view(groups, 1, -1, 1) for value in (scale, shift))
    bias = _bias(layer, len(weight)) + (grouped * shift).sum((2, 3)).flatten()
    _set(layer, (grouped * scale).reshape(weight.shape), bias)


def _bias(layer: Any, size: int) -> Tensor:
    return (
        torch.zeros(size, dtype=torch.float64, device=layer.weight.device)
        if layer.bias is None
        else layer.bias.double()
    )


def _set(layer: Any, weight: Tensor, bias: Tensor) -> None:
    dtype, trainable = layer.weight.dtype, layer.weight.requires_grad
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=trainable)
    layer.bias = nn.Parameter(bias.to(dtype), requires_grad=trainable)
