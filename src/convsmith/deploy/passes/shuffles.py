"""Channel shuffles taken out of a network: its convolutions write each channel where it will be read.

A permutation of channels is one of the rows of the weights in front of it and of the columns of the weights behind it.
In a stage of ShuffleNet v2 (Ma et al. 2018, arXiv:1807.11164, Fig. 3c) half of the channels only pass from unit to
unit. So the last convolution of a unit writes its channels in the order in which later units read them, and a unit
reads one slice of what each unit before it wrote, in place of split, concatenation and shuffle.

The shuffle of ShuffleNet v1 stands between two grouped convolutions and stays: each group is a block of rows, and a
shuffle takes the blocks apart. (It could move behind the depthwise convolution, which saves work only where that one
strides.) Where the convolution in front of it has no groups, it writes in the shuffled order.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import fx, nn
from torch.nn import functional as F

from convsmith.deploy.passes.draft import Draft, changed
from convsmith.deploy.passes.wiring import CONVOLUTIONS, NORMS, Wiring

MOST_PIECES = 8  # of a map that is not gathered in the order in which it is stored; one of more is permuted behind that

Orders: TypeAlias = dict[fx.Node, list[int]]  # by root: the channels in the order in which they are stored


def unshuffle(module: nn.Module) -> nn.Module:
    """A copy of the module, in eval mode, without the channel shuffles that permuted weights can replace.

    The copy computes what the module computes in eval mode. It is a torch.fx.GraphModule; where there is no shuffle to
    be removed, and where maps that several read are changed in place, it is of the module's own class and unchanged.
    Fold norms first (`fold_norm`): norms over several channels keep the order of their channels. The module itself is
    left untouched.

    Raises NotTraceableError when torch.fx cannot follow the module's own `forward`.
    """
    return changed(module, unshuffle_draft)


def unshuffle_draft(draft: Draft) -> None:
    """`unshuffle`, of a network that is changed already."""
    network, graph, wiring = draft.network, draft.graph, draft.wiring
    if not wiring.shuffles:
        return
    orders = _orders(wiring, _orders(wiring, {}))
    storage = _Storage(wiring, orders)
    plans = {node: storage.plan(node) for node in wiring.gathered}
    kept = sum(plan.permutation is not None for plan in plans.values())
    if kept >= wiring.shuffles or len(graph.find_nodes(op="placeholder")) > 1:
        return
    for node, layer in wiring.layers.items():
        _permute_weights(layer, node, wiring, orders)
    _rewire(graph, network, wiring, plans)
    draft.commit()


@dataclass(frozen=True)
class _Plan:
    """How a map is gathered: `(source, start, stop)` of each piece, and the order in which their channels are taken."""

    pieces: list[tuple[fx.Node, int, int]]
    permutation: list[int] | None


def _orders(wiring: Wiring, before: Orders) -> Orders:
    """What is gathered from is stored in the order in which it is first read, what is gathered as it comes.

    `before` are earlier orders, in which the gathered maps are taken to be stored.
    """
    first: dict[fx.Node, dict[int, int]] = defaultdict(dict)
    for node in wiring.gathered:
        wires = wiring.wires[node]
        for place in before.get(wiring.root(node), range(len(wires))):
            source, channel = wires[place]
            first[wiring.root(source)].setdefault(channel, len(first[wiring.root(source)]))
    orders: Orders = {}
    for root, places in first.items():
        if root not in wiring.fixed:
            orders[root] = [*places, *(channel for channel in range(wiring.widths[root]) if channel not in places)]
    storage = _Storage(wiring, orders)
    for node in wiring.gathered:
        root = wiring.root(node)
        if root not in first and root not in wiring.fixed:
            stored = [storage.place(*wire) for wire in wiring.wires[node]]
            orders.setdefault(root, sorted(range(len(stored)), key=stored.__getitem__))
    return orders


class _Storage:
    """Where channels are stored: the number of their map, and their place in it."""

    def __init__(self, wiring: Wiring, orders: Orders):
        self.wiring = wiring
        self.orders = orders
        self.maps = list(wiring.widths)
        self._numbers = {node: number for number, node in enumerate(self.maps)}
        self._places = {root: {channel: i for i, channel in enumerate(order)} for root, order in orders.items()}

    def place(self, source: fx.Node, channel: int) -> tuple[int, int]:
        """The number of the map and the place of one channel."""
        places = self._places.get(self.wiring.root(source))
        return self._numbers[source], places[channel] if places else channel

    def plan(self, node: fx.Node) -> _Plan:
        """How to gather a map whose own channels are stored as the orders say."""
        wires = self.wiring.wires[node]
        order = self.orders.get(self.wiring.root(node), range(len(wires)))
        stored = [self.place(*wires[channel]) for channel in order]
        tidy = sorted(range(len(stored)), key=stored.__getitem__)
        pieces, tidy_pieces, permutation = _runs(stored), _runs([stored[i] for i in tidy]), None
        if len(pieces) > max(MOST_PIECES, len(tidy_pieces)):
            pieces, permutation = tidy_pieces, sorted(range(len(tidy)), key=tidy.__getitem__)
        return _Plan([(self.maps[number], start, stop) for number, start, stop in pieces], permutation)


def _runs(stored: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """`(map, start, stop)` of the longest pieces that are stored side by side."""
    runs: list[tuple[int, int, int]] = []
    for number, place in stored:
        if runs and runs[-1][::2] == (number, place):
            number, start, _ = runs.pop()
            runs.append((number, start, place + 1))
        else:
            runs.append((number, place, place + 1))
    return runs


@torch.no_grad()
def _permute_weights(layer: Any, node: fx.Node, wiring: Wiring, orders: Orders) -> None:
    def permute(name: str, order: list[int] | None, dim: int = 0) -> None:
        tensor = getattr(layer, name)
        if order is None or tensor is None:
            return
        permuted = tensor.index_select(dim, torch.tensor(order, device=tensor.device))
        trainable = isinstance(tensor, nn.Parameter)
        setattr(layer, name, nn.Parameter(permuted, tensor.requires_grad) if trainable else permuted)

    written = orders.get(wiring.root(node))
    if isinstance(layer, CONVOLUTIONS):
        permute("weight", written)
        permute("bias", written)
    elif isinstance(layer, NORMS):
        for name in ("weight", "bias", "running_mean", "running_var"):
            permute(name, written)
    if isinstance(layer, nn.Linear) or (isinstance(layer, CONVOLUTIONS) and layer.groups == 1):
        permute("weight", orders.get(wiring.root(node.all_input_nodes[0])), 1)


def _rewire(graph: fx.Graph, network: nn.Module, wiring: Wiring, plans: dict[fx.Node, _Plan]) -> None:
    """Let whoever reads a gathered map read pieces of what the convolutions write."""
    cuts: dict[fx.Node, set[int]] = defaultdict(set)
    for plan in plans.values():
        for source, start, stop in plan.pieces:
            cuts[source] |= {0, start, stop, wiring.widths[source]}
    pieces = {source: _cut(graph, source, sorted(places)) for source, places in cuts.items()}
    for number, (node, plan) in enumerate(plans.items()):
        parts = [
            part
            for source, start, stop in plan.pieces
            for place, part in pieces[source].items()
            if start <= place < stop
        ]
        with graph.inserting_before(node):
            gathered = parts[0] if len(parts) == 1 else graph.call_function(torch.cat, (parts, 1))
            if plan.permutation is not None:
                gathered = _permuted(graph, network, gathered, plan.permutation, f"channels_{number}")
            elif len(parts) == 1 and any(wiring.in_place(user) for user in node.users):
                gathered = graph.call_method("clone", (gathered,))
        node.replace_all_uses_with(gathered)


def _cut(graph: fx.Graph, source: fx.Node, places: list[int]) -> dict[int, fx.Node]:
    """The pieces of a map between the places, by where they start."""
    if len(places) == 2:
        return {0: source}
    with graph.inserting_after(source):
        split = graph.call_function(torch.split, (source, [stop - start for start, stop in pairwise(places)], 1))
    pieces = {}
    for i, place in reversed(list(enumerate(places[:-1]))):
        with graph.inserting_after(split):
            pieces[place] = graph.call_function(operator.getitem, (split, i))
    return dict(sorted(pieces.items()))


def _permuted(graph: fx.Graph, network: nn.Module, x: fx.Node, permutation: list[int], name: str) -> fx.Node:
    groups = permutation.index(1)  # if it is a shuffle: the second channel of the first group follows all first ones
    size = len(permutation) // groups
    if permutation == [place for i in range(size) for place in range(i, groups * size, size)]:
        return graph.call_function(F.channel_shuffle, (x, groups))
    network.register_buffer(name, torch.tensor(permutation, device=next(network.parameters()).device))
    return graph.call_method("index_select", (x, 1, graph.get_attr(name)))
