"""Widths filled up with zero channels, for back ends that keep their maps in blocks of channels.

ONNX Runtime stores a map in blocks of 16 channels (8 without AVX-512) and leaves this layout for a convolution whose
outputs are no multiple of 4: its depthwise convolution over the 58 channels of ShuffleNet v2 then takes ten times as
long. In this form every map has a multiple of the block, and channels that are read together are stored together: what
a unit takes from another map are whole blocks of it. The filling has no weights and is read with zero weights.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, fx, nn

from convsmith.deploy.passes.draft import Draft, changed
from convsmith.deploy.passes.wiring import CONVOLUTIONS, NORMS, Wiring, name_of

BLOCK = 16
NONE = -1  # the number of a channel that is filling
MOST_FILLED = 2  # times the channels that a gathered map may be stored in
# Functions that are finite at any value: filling is multiplied by zero in the end.
_FINITE = (
    *("add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "abs", "neg", "square", "clamp", "maximum"),
    *("minimum", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign"),
    *("hardtanh", "hardswish", "hardsigmoid", "sigmoid", "logsigmoid", "tanh", "dropout", "dropout2d", "flatten"),
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
)

Segment = tuple[int, int]  # of a stored map: from, to
Order = list[int]  # the channels in the order in which they are stored, NONE for filling


def block_channels(module: nn.Module, block: int = BLOCK) -> nn.Module:
    """A copy of the module, in eval mode, whose maps have multiples of `block` channels, in place of `unshuffle`.

    The copy computes what the module computes in eval mode. It is a torch.fx.GraphModule; where maps are read in ways
    that need their channels in their own order, where no depthwise convolution has a width that is no multiple of 4
    (only these are slow enough to pay for the filling), and where a map would be filled up to more than twice its
    channels, it is of the module's own class and unchanged. Fold norms first (`fold_norm`). The module itself is left
    untouched.

    Raises NotTraceableError when torch.fx cannot follow the module's own `forward`.
    """
    return changed(module, lambda draft: block_draft(draft, block))


def block_draft(draft: Draft, block: int = BLOCK) -> None:
    """`block_channels`, of a network that is changed already."""
    wiring = draft.wiring
    layers: list[Any] = list(wiring.layers.values())
    odd = any(_is_depthwise(layer) and layer.groups % 4 for layer in layers)
    roots = [wiring.root(node) for node in wiring.gathered]
    if (
        not odd
        or len(set(roots)) < len(roots)
        or wiring.fixed & set(roots)
        or len(draft.graph.find_nodes(op="placeholder")) > 1
    ):
        return
    layout = _Layout(draft, block)
    if not layout.valid:
        return
    for node, layer in wiring.layers.items():
        _fill(layer, node, wiring, layout.orders)
    _rewire(draft.graph, wiring, layout)
    draft.commit()


def _is_depthwise(layer: Any) -> bool:
    return isinstance(layer, CONVOLUTIONS) and 1 < layer.groups == layer.in_channels == layer.out_channels


class _Layout:
    """The order of the channels of each root, the segments that are read as a whole, and who reads which of them."""

    def __init__(self, draft: Draft, block: int):
        self.wiring = wiring = draft.wiring
        self.block = block
        self.orders: dict[fx.Node, Order] = {}
        self.segments: dict[fx.Node, list[Segment]] = {}
        self.pieces: dict[fx.Node, list[tuple[fx.Node, Segment]]] = {}
        self.valid = True
        gathered = {wiring.root(node) for node in wiring.gathered}
        whole = {wiring.root(x) for x in _read_whole(draft.graph, wiring)}
        fixed = wiring.fixed | {wiring.root(x) for x in _not_finite(draft.graph, wiring)}
        readers: dict[fx.Node, dict[int, set[fx.Node]]] = defaultdict(lambda: defaultdict(set))
        for node in wiring.gathered:
            for source, channel in wiring.wires[node]:
                readers[wiring.root(source)][channel].add(node)
        for node, width in wiring.widths.items():
            root = wiring.root(node)
            if root in fixed:
                self.segments[root] = [(0, width)]
                self.valid &= root not in gathered
            elif root not in gathered and root not in self.orders:
                self._store(root, width, {} if root in whole else readers[root])
        for node in wiring.gathered:  # in the order of the graph, so that what is gathered from is stored already
            self._gather(node)

    def _store(self, root: fx.Node, width: int, readers: dict[int, set[fx.Node]]) -> None:
        """Side by side what the same readers read; what fills less than half a block shares the last ones."""
        alike: dict[frozenset[fx.Node], Order] = defaultdict(list)
        for channel in range(width):
            alike[frozenset(readers.get(channel, ()))].append(channel)
        groups = sorted(alike.values(), key=len, reverse=True)
        rest = [channel for group in groups if 2 * len(group) <= self.block for channel in group]
        groups = [group for group in groups if 2 * len(group) > self.block]
        order: Order = []
        for group in (*groups, rest) if rest else groups:
            start = len(order)
            order += group + [NONE] * (-len(group) % self.block)
            self.segments.setdefault(root, []).append((start, len(order)))
        self.orders[root] = order

    def _gather(self, node: fx.Node) -> None:
        """The map is stored as the segments that hold its channels; others in them become filling."""
        wires, root = self.wiring.wires[node], self.wiring.root(node)
        places = {wire: place for place, wire in enumerate(wires)}
        order: Order = []
        pieces = self.pieces.setdefault(node, [])
        for source in dict.fromkeys(source for source, _ in wires):
            if self.wiring.root(source) not in self.segments:  # of a map that is gathered later
                self.valid = False
                return
            stored = self.order(source)
            for start, stop in self.segments[self.wiring.root(source)]:
                found = [places.get((source, channel), NONE) for channel in stored[start:stop]]
                if any(place != NONE for place in found):
                    pieces.append((source, (start, stop)))
                    order += found
        # Where maps are gathered from gathered ones again and again, filling would pile up.
        if len(order) > MOST_FILLED * max(len(wires), self.block):
            self.valid = False
            return
        self.valid &= sorted(place for place in order if place != NONE) == list(range(len(wires)))
        self.orders[root], self.segments[root] = order, [(0, len(order))]

    def order(self, node: fx.Node) -> Order:
        """The channels of a map as they are stored."""
        return self.orders.get(self.wiring.root(node)) or list(range(self.wiring.widths[node]))


def _read_whole(graph: fx.Graph, wiring: Wiring) -> list[fx.Node]:
    """The maps that are read other than by gathering, by something that is not of their own root."""
    return [
        x
        for node in graph.nodes
        if not wiring.routes(node) and not wiring.asks_shape(node)
        for x in node.all_input_nodes
        if x not in wiring.wires and x in wiring.widths
        if node not in wiring.widths or wiring.root(node) is not wiring.root(x)
    ]


def _not_finite(graph: fx.Graph, wiring: Wiring) -> list[fx.Node]:
    """Functions that may not be finite where a channel is filling, such as a quotient."""
    return [
        node
        for node in graph.nodes
        if node in wiring.widths and not wiring.routes(node) and node.op != "call_module"
        if name_of(node) not in _FINITE
    ]


def _rewire(graph: fx.Graph, wiring: Wiring, layout: _Layout) -> None:
    """Let whoever reads a gathered map read whole segments."""
    parts: dict[tuple[fx.Node, Segment], fx.Node] = {}
    for source in {source for pieces in layout.pieces.values() for source, _ in pieces}:
        segments = layout.segments[wiring.root(source)]
        if len(segments) == 1:
            parts[source, segments[0]] = source
            continue
        with graph.inserting_after(source):
            split = graph.call_function(torch.split, (source, [stop - start for start, stop in segments], 1))
        for i, segment in reversed(list(enumerate(segments))):
            with graph.inserting_after(split):
                parts[source, segment] = graph.call_function(operator.getitem, (split, i))
    for node, pieces in layout.pieces.items():
        maps = [parts[piece] for piece in pieces]
        with graph.inserting_before(node):
            gathered = maps[0] if len(maps) == 1 else graph.call_function(torch.cat, (maps, 1))
            if len(maps) == 1 and any(wiring.in_place(user) for user in node.users):
                gathered = graph.call_method("clone", (gathered,))
        node.replace_all_uses_with(gathered)


@torch.no_grad()
def _fill(layer: Any, node: fx.Node, wiring: Wiring, orders: dict[fx.Node, Order]) -> None:
    """Give a layer the weights for the channels as they are stored now."""
    written = orders.get(wiring.root(node))
    read = orders.get(wiring.root(node.all_input_nodes[0])) if node.all_input_nodes else None
    depthwise = _is_depthwise(layer)
    if isinstance(layer, CONVOLUTIONS):
        if written is not None:
            _take(layer, "weight", written, 0)
            _take(layer, "bias", written, 0)
            layer.out_channels = len(written)
        if depthwise and written is not None:
            layer.groups = layer.in_channels = len(written)
        elif layer.groups == 1 and read is not None:
            _take(layer, "weight", read, 1)
            layer.in_channels = len(read)
    elif isinstance(layer, NORMS) and written is not None:
        for name in ("weight", "bias", "running_mean", "running_var"):
            _take(layer, name, written, 0, filling=float(name == "running_var"))
        layer.num_features = len(written)
    elif isinstance(layer, nn.Linear) and read is not None:
        _take(layer, "weight", read, 1)
        layer.in_features = len(read)


def _take(layer: nn.Module, name: str, order: Order, dim: int, filling: float = 0.0) -> None:
    tensor = getattr(layer, name)
    if tensor is None:
        return
    index = torch.tensor(order, device=tensor.device)
    taken: Tensor = tensor.index_select(dim, index.clamp(min=0))
    taken = taken.index_fill(dim, (index == NONE).nonzero().flatten(), filling)
    trainable = isinstance(tensor, nn.Parameter)
    setattr(layer, name, nn.Parameter(taken, tensor.requires_grad) if trainable else taken)
