"""Which layer writes each channel that is concatenated, split or shuffled, and who reads it.

Operators that only route channels are followed to the maps that the channels come from. All others are sorted by what
becomes of them when the channels of their input change places: a convolution without groups absorbs the change in its
weights, and can write its outputs in any order too; what works on single channels passes the change on; anything else
needs the channels in their own order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

from torch import fx, nn
from torch.nn import functional as F

from convsmith.deploy.passes.trace import is_changed
from convsmith.nn import BatchNorm
from convsmith.nn.channel_map import ELEMENTWISE, POOLING
from convsmith.nn.shuffle import shuffle_channels

Wires: TypeAlias = list[tuple[fx.Node, int]]  # channels, each by the map that it comes from and its number there

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNorm)
_PASSES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_SINGLE_CHANNELS = (
    *(*NORMS, *_PASSES, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ReLU, nn.ReLU6),
    *(nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh),
)
_OF_SHAPES = ("size", "dim", "getattr")


class TangledError(ValueError):
    """Channels cannot be followed: somebody changes a map in place that others read, or mixes its parts freely."""


class Wiring:
    """The channels of a traced network.

    `wires` are the channels of the nodes that only route, `gathered` those of these nodes that are read as a map,
    `widths` the numbers of channels of all maps that are read. Nodes of one `root` have their channels in one order,
    which is free unless the root is in `fixed`. `shuffles` counts the shuffles among the nodes that route; `layers` are
    the layers that may be given other weights, and those without weights.
    """

    def __init__(self, network: nn.Module, graph: fx.Graph, read: set[int]):
        self.network = network
        self.wires: dict[fx.Node, Wires] = {}
        self.gathered: list[fx.Node] = []
        self.widths: dict[fx.Node, int] = {}
        self.shuffles = 0
        self.layers = dict(_plain_layers(network, graph, read))
        self._parts: dict[fx.Node, list[Wires]] = {}  # of nodes that give several maps
        self._tables: dict[fx.Node, list[Wires]] = {}  # of nodes that give one map with its channels in two dimensions
        self._vectors: set[fx.Node] = set()  # maps without pixels, (N, C)
        self._parents: dict[fx.Node, fx.Node] = {}
        self._fixed: list[fx.Node] = []
        for node in graph.nodes:
            if not self._route(node) and name_of(node) not in _OF_SHAPES:
                self._read(node)
        self.fixed = {self.root(node) for node in self._fixed}

    def root(self, node: fx.Node) -> fx.Node:
        """The node that stands for all nodes whose channels have the same order."""
        while node in self._parents:
            node = self._parents[node]
        return node

    def in_place(self, node: fx.Node) -> bool:
        """Whether the node may change its input."""
        if node.op == "call_module":
            return bool(getattr(self.network.get_submodule(str(node.target)), "inplace", False))
        name, raw = name_of(node), str(getattr(node.target, "__name__", node.target))
        flagged = name not in POOLING | {"mean"} and any(
            value is True for value in (*node.args[1:], node.kwargs.get("inplace"))
        )
        return flagged or name in ("iadd", "isub", "imul", "itruediv") or (raw.endswith("_") and raw[0] != "_")

    def routes(self, node: fx.Node) -> bool:
        """Whether the node only routes channels."""
        return node in self.wires or node in self._parts or node in self._tables

    def asks_shape(self, node: fx.Node) -> bool:
        """Whether the node reads the shape of a map and none of its values."""
        return name_of(node) in _OF_SHAPES

    def is_vector(self, node: fx.Node) -> bool:
        """Whether the map has no pixels, (N, C)."""
        return node in self._vectors

    def is_flattening(self, node: fx.Node) -> bool:
        """Whether the node makes such a vector of a map of one pixel."""
        return node in self._vectors and name_of(node) == "flatten"

    def channels(self, value: Any) -> Wires | None:
        """The channels of a map in their own order, where their number is known."""
        if not isinstance(value, fx.Node):
            return None
        return self.wires.get(value, [(value, i) for i in range(self.widths.get(value, 0))] or None)

    def _route(self, node: fx.Node) -> bool:
        """Follow a node that only routes channels; False for any other one."""
        name = name_of(node)
        x: Any = node.args[0] if node.args else None
        if name in ("cat", "concat"):
            maps = argument(node, 0, "tensors", ())
            # What `chunk` gives, read as a whole, is one node.
            parts = [self.channels(part) for part in maps] if isinstance(maps, list | tuple) else [None]
            if argument(node, 1, "dim", 0) != 1 or None in parts:
                return False
            self.wires[node] = [wire for part in parts for wire in part or ()]
        elif x in self._parts and name == "getitem" and isinstance(node.args[1], int):
            self.wires[node] = self._parts[x][node.args[1]]
        elif x in self._tables and name == "transpose" and node.args[1:] == (1, 2):
            self._tables[node] = [list(row) for row in zip(*self._tables[x], strict=True)]
        elif x in self._tables and name == "contiguous":
            self._tables[node] = self._tables[x]
        elif x in self._tables and name in ("view", "reshape") and len(node.args) == 5:
            self.wires[node] = [wire for row in self._tables[x] for wire in row]
            self.shuffles += 1
        else:
            wires = self.channels(x)
            return wires is not None and self._route_map(node, name, wires)
        return True

    def _route_map(self, node: fx.Node, name: str, wires: Wires) -> bool:
        index: Any = argument(node, 1, "", None)
        groups = self._shuffled_groups(node)
        if groups:
            size = len(wires) // groups
            self.wires[node] = [wire for i in range(size) for wire in wires[i::size]]
            self.shuffles += 1
        elif name in ("chunk", "split") and argument(node, 2, "dim", 0) == 1:
            self._parts[node] = list(_split(wires, node, name))
        elif name == "getitem" and _slices_channels(index):
            self.wires[node] = wires[index[1]]
        elif name == "view" and len(node.args) == 6 and isinstance(node.args[2], int):
            size = len(wires) // node.args[2]
            self._tables[node] = [wires[i : i + size] for i in range(0, len(wires), size)]
        elif node.args[0] in self.wires and (name == "contiguous" or type(self.layers.get(node)) in _PASSES):
            self.wires[node] = wires
        else:
            return False
        return True

    def _shuffled_groups(self, node: fx.Node) -> int:
        """The groups of a channel shuffle, 0 for any other node."""
        layer = self.layers.get(node)
        if isinstance(layer, nn.ChannelShuffle):
            return int(layer.groups)
        is_shuffle = node.op == "call_function" and node.target in (F.channel_shuffle, shuffle_channels)
        return int(argument(node, 1, "groups", 0)) if is_shuffle else 0

    def _read(self, node: fx.Node) -> None:
        """Sort a node that computes by what it does to the order of channels."""
        inputs = node.all_input_nodes
        for x in inputs:
            if x in self._parts or x in self._tables:
                raise TangledError(f"{node} reads the parts of a map other than one by one")
            if x in self.wires and x not in self.widths:
                self.gathered.append(x)
                self.widths[x] = len(self.wires[x])
        if node.kwargs.get("out") is not None:
            raise TangledError(f"{node} writes into a map that may be read elsewhere")
        if self.in_place(node):
            self._check_alone(node, inputs[0])
        layer, name, widths = self.layers.get(node), name_of(node), {self.widths.get(x) for x in inputs}
        single = type(layer) in _SINGLE_CHANNELS or name in ELEMENTWISE | POOLING
        if isinstance(layer, CONVOLUTIONS):
            self.widths[node] = layer.out_channels
            single = layer.groups == layer.in_channels == layer.out_channels
            if layer.groups == 1:
                return
        elif isinstance(layer, nn.Linear) and inputs[0] in self._vectors:
            self._fixed.append(node)
            return
        elif name == "flatten" and node.args[1:] == (1,) and _has_one_pixel(self.layers.get(inputs[0])):
            self._vectors.add(node)
            single = True
        alike = len(widths) == 1 and None not in widths and len({x in self._vectors for x in inputs}) == 1
        if single and alike:
            self.widths[node] = self.widths[inputs[0]]
            for x in inputs:
                self._join(node, x)
            if inputs[0] in self._vectors:
                self._vectors.add(node)
        else:
            self._fixed += [node, *inputs]
            if isinstance(layer, NORMS):
                self.widths[node] = layer.num_features

    def _join(self, one: fx.Node, other: fx.Node) -> None:
        if self.root(one) is not self.root(other):
            self._parents[self.root(one)] = self.root(other)

    def _check_alone(self, node: fx.Node, x: fx.Node) -> None:
        """Raise TangledError if anybody but `node`, which changes the map `x`, reads it or what it is a view of."""
        if x.op == "get_attr":  # each access is a node of its own
            raise TangledError(f"{node} changes a parameter or buffer in place")
        copied = name_of(x) in ("cat", "concat") or self._shuffled_groups(x) > 0
        if {user for user in x.users if name_of(user) not in _OF_SHAPES} != {node} or (x in self.wires and not copied):
            raise TangledError(f"{node} changes in place what is read elsewhere")
        if x.op == "call_module":
            own = x in self.layers and type(self.layers[x]) not in _PASSES
        else:
            own = copied or name_of(x) in (ELEMENTWISE | POOLING) - {"dropout", "dropout2d"}
        if x.all_input_nodes and (self.in_place(x) or not own):
            self._check_alone(x, x.all_input_nodes[0])


def _plain_layers(network: nn.Module, graph: fx.Graph, read: set[int]) -> Iterator[tuple[fx.Node, nn.Module]]:
    """The layers of torch.nn that compute what their class says; with weights, only those called once and whole."""
    nodes = graph.find_nodes(op="call_module")
    called = [network.get_submodule(str(node.target)) for node in nodes]
    hidden = {inner for module in called for inner in module.modules() if inner is not module}
    calls = Counter(called)
    for node, layer in zip(nodes, called, strict=True):
        own = [*layer.parameters(), *layer.buffers()]
        changed = is_changed(layer)
        shared = own and (calls[layer] > 1 or layer in hidden or any(id(tensor) in read for tensor in own))
        known = type(layer) in (*CONVOLUTIONS, *_SINGLE_CHANNELS, nn.Linear, nn.ChannelShuffle)
        if known and not changed and not shared:
            yield node, layer


def name_of(node: fx.Node) -> str:
    """The name of the function or method that a node calls, without underscores; empty for any other node."""
    if node.op == "call_method":
        return str(node.target).strip("_")
    return getattr(node.target, "__name__", "").strip("_") if node.op == "call_function" else ""


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """The argument of a call at that position or of that name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _split(wires: Wires, node: fx.Node, name: str) -> Iterator[Wires]:
    size = argument(node, 1, "chunks" if name == "chunk" else "split_size_or_sections", None)
    if isinstance(size, int):
        size = -(-len(wires) // size) if name == "chunk" else size
        size = [size] * (len(wires) // size) + ([len(wires) % size] if len(wires) % size else [])
    for start, stop in pairwise(accumulate(size, initial=0)):
        yield wires[start:stop]


def _slices_channels(index: Any) -> bool:
    """Whether an index takes channels and leaves everything else."""
    if not isinstance(index, tuple) or len(index) < 2 or not all(isinstance(part, slice) for part in index):
        return False
    fixed = all(isinstance(value, int | None) for value in (index[1].start, index[1].stop, index[1].step))
    return fixed and all(part == slice(None) for i, part in enumerate(index) if i != 1)


def _has_one_pixel(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1))
