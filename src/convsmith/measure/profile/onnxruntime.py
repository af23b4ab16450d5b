"""ONNX Runtime's own profile: what it made of the graph, node by node, mapped back to modules.

The network is the one that the back end would run: norms folded, shuffles removed where weights can be permuted. ONNX
Runtime then fuses nodes and changes layouts. Its clock counts whole microseconds.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from convsmith.deploy import onnx
from convsmith.deploy.passes.blocks import BLOCK
from convsmith.deploy.passes.lean import lean
from convsmith.measure.profile.categories import category_of
from convsmith.measure.profile.graph import Graph, onnx_graph
from convsmith.measure.profile.origins import Origins, Shapes, macs
from convsmith.measure.profile.result import Step
from convsmith.measure.profile.shuffles import merges_a_pair

SUFFIX = "_kernel_time"


class OnnxRuntime:
    """The passes of a network in ONNX Runtime: `plain` in one session, `timed` in one that writes a profile."""

    def __init__(self, network: nn.Module, example: Tensor, threads: int):
        if example.device.type != "cpu":
            raise ValueError(f"ONNX Runtime is profiled on the CPU, and the device is {example.device}; give cpu")
        self._model = onnx.convert(lean(network, example, block=BLOCK), example, {})
        self._input = {onnx.INPUT: example.detach().numpy()}
        self._folder = tempfile.TemporaryDirectory(prefix="convsmith-profile-")
        self._optimised = Path(self._folder.name) / "optimised.onnx"
        self._plain = onnx.session(self._model, threads)
        self._watched = onnx.session(self._model, threads, profile_as=self._optimised)
        self._runs = 0
        self.unknown: tuple[str, ...] = ()

    def plain(self) -> None:
        """One pass."""
        self._plain.run([onnx.OUTPUT], self._input)

    def timed(self) -> None:
        """One pass that ONNX Runtime watches."""
        self._watched.run([onnx.OUTPUT], self._input)
        self._runs += 1

    def result(self) -> tuple[tuple[Step, ...], Sequence[Sequence[float]]]:
        """The nodes that ran, and the milliseconds of each in each watched pass; ends the profile."""
        with self._folder:
            events = json.loads(Path(self._watched.end_profiling()).read_text())
            optimised = onnx_graph(self._optimised.read_bytes())
        ran = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(SUFFIX)]
        count = len(ran) // self._runs
        by_run = [ran[i : i + count] for i in range(0, len(ran), count)]
        if len(ran) % self._runs or any(_names(run) != _names(by_run[0]) for run in by_run):
            raise ValueError("a network to profile must run the same nodes in each pass, and this one has loops")
        steps = self._layers(by_run[0], _all_named(optimised, by_run[0]))
        return steps, [[event["dur"] / 1e3 for event in run] for run in by_run]

    def _layers(self, events: Sequence[dict[str, Any]], optimised: Graph) -> tuple[Step, ...]:
        origins = Origins(onnx_graph(self._model), optimised)
        shapes = {name: _shapes(event, "output") for name, event in zip(_names(events), events, strict=True)}
        shuffles = _shuffles(optimised, shapes)
        unknown, steps = set(), []
        for name, event in zip(_names(events), events, strict=True):
            node, operator = optimised.by_name[name], event["args"]["op_name"]
            category = category_of(operator, table="onnx")
            if category is None:
                unknown.add(operator)
            origin = origins.of(node)
            if origin is not None and category_of(origin.operator, table="onnx") == "elementwise":
                category = "elementwise"  # a norm that runs as a convolution
            weights = origins.weights(node)
            moved = int(event["args"]["activation_size"]) + int(event["args"]["output_size"])
            steps.append(
                Step(
                    module=origins.module(node),
                    operator=operator,
                    kernel=node.kernel,
                    category="shuffle" if name in shuffles else category or "other",
                    shape=next(iter(shapes[name]), ()),
                    macs=macs(operator, weights, _shapes(event, "input"), shapes[name])
                    if category == "convolution"
                    else 0,
                    memory_bytes=moved + sum(weight.bytes for weight in weights),
                )
            )
        self.unknown = tuple(sorted(unknown))
        return tuple(steps)


def _all_named(graph: Graph, events: Sequence[dict[str, Any]]) -> Graph:
    """The graph with the names that ONNX Runtime's profile makes up for nodes without one.

    Such nodes are those of a function that it expanded, HardSwish for one. Both lists are in the order of execution.
    """
    waiting: dict[str, list[str]] = {}
    for name, event in zip(_names(events), events, strict=True):
        if name not in graph.by_name:
            waiting.setdefault(event["args"]["op_name"], []).append(name)
    nodes = [
        node if node.name or not waiting.get(node.operator) else replace(node, name=waiting[node.operator].pop(0))
        for node in graph.nodes
    ]
    return Graph(nodes, graph.weights)


def _names(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["name"].removesuffix(SUFFIX) for event in events]


def _shapes(event: dict[str, Any], side: str) -> Shapes:
    return [tuple(shape) for typed in event["args"][f"{side}_type_shape"] for shape in typed.values()]


def _shuffles(graph: Graph, shapes: dict[str, Shapes]) -> set[str]:
    """Names of the nodes of channel shuffles: a transposition of neighbours, and the reshapes around it."""
    found: set[str] = set()
    for node in graph.nodes:
        shape = next(iter(shapes.get(node.name, ())), ())
        pairs = _exchanged(node.permutation) if node.operator == "Transpose" else ()
        merging = [
            own
            for own in graph.behind(node)
            if own.operator == "Reshape" and own.name in shapes and merges_a_pair(shape, shapes[own.name][0], pairs)
        ]
        if merging:
            splitting = [own for own in graph.before(node) if own.operator == "Reshape"]
            found |= {own.name for own in (node, *merging, *splitting)}
    return found


def _exchanged(permutation: tuple[int, ...]) -> tuple[int, ...]:
    """The place of the two neighbours that a permutation exchanges, where it does nothing else."""
    moved = [i for i, place in enumerate(permutation) if i != place]
    return (moved[0],) if len(moved) == 2 and moved[1] == moved[0] + 1 else ()
