"""An ONNX graph as a runtime optimised it, beside the graph that was exported: which node came from which module."""

from __future__ import annotations

import importlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

BLOCKED = "_nchwc"  # what ONNX Runtime appends to the name of a value when it writes it in blocks of channels
BLOCKED_DOMAIN = "com.microsoft.nchwc"


@dataclass(frozen=True)
class Node:
    """One node: what it reads and writes, and what its attributes say that a profile does not."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    module: str
    activation: str
    blocked: bool
    permutation: tuple[int, ...]

    @property
    def kernel(self) -> str:
        """How a runtime changed it: channels in blocks, an activation computed with it."""
        return " ".join(filter(None, ("nchwc" if self.blocked else "", f"+ {self.activation}" * bool(self.activation))))


@dataclass(frozen=True)
class Weight:
    """A constant of the graph."""

    shape: tuple[int, ...]
    bytes: int


class Graph:
    """The nodes of a serialised model in order, and who writes and who reads each value."""

    def __init__(self, model: bytes):
        onnx = importlib.import_module("onnx")
        graph = onnx.load_model_from_string(model).graph
        self.nodes = [
            Node(
                name=node.name,
                operator=node.op_type,
                inputs=tuple(node.input),
                outputs=tuple(node.output),
                module=node.name.rpartition("/")[0],  # as `deploy.onnx.convert` names it
                activation=next((a.s.decode() for a in node.attribute if a.name == "activation"), ""),
                blocked=node.domain == BLOCKED_DOMAIN,
                permutation=next((tuple(a.ints) for a in node.attribute if a.name == "perm"), ()),
            )
            for node in graph.node
        ]
        self.weights = {
            tensor.name: Weight(
                tuple(tensor.dims),
                math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize,
            )
            for tensor in graph.initializer
        }
        self.by_name = {node.name: node for node in self.nodes}

    @cached_property
    def writers(self) -> Mapping[str, Node]:
        """The node that writes each value."""
        return {value: node for node in self.nodes for value in node.outputs}

    @cached_property
    def readers(self) -> Mapping[str, list[Node]]:
        """The nodes that read each value."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                found.setdefault(value, []).append(node)
        return found

    def before(self, node: Node) -> Iterator[Node]:
        """The nodes that write what it reads."""
        return (self.writers[value] for value in node.inputs if value in self.writers)

    def behind(self, node: Node) -> Iterator[Node]:
        """The nodes that read what it writes."""
        return (reader for value in node.outputs for reader in self.readers.get(value, ()))


class Origins:
    """Where the nodes of an optimised graph come from in the exported one."""

    def __init__(self, exported: Graph, optimised: Graph):
        self.exported, self.optimised = exported, optimised

    def of(self, node: Node) -> Node | None:
        """The exported node that an optimised one computes; None for one that the runtime added.

        A node that is not changed, or fused, keeps its name. One that writes blocks of channels is named after the
        value that it writes, which an activation or an addition behind the convolution may have written before.
        """
        if node.name in self.exported.by_name:
            return self.exported.by_name[node.name]
        origin = self.exported.writers.get(node.name.removesuffix(BLOCKED)) if node.name.endswith(BLOCKED) else None
        return origin and next(
            (own for own in _reached(origin, self.exported.before) if own.operator == node.operator), origin
        )

    def module(self, node: Node) -> str:
        """The path of its module; of a node that the runtime added, that of the node that it serves."""
        origin = self.of(node)
        if origin is not None:
            return self._module_of(origin)
        neighbours = [self.optimised.behind(node), self.optimised.before(node)]
        for neighbour in (n for side in (neighbours if "Input" in node.operator else neighbours[::-1]) for n in side):
            served = self.of(neighbour)
            if served is not None:
                return self._module_of(served)
        return ""

    def weights(self, node: Node) -> list[Weight]:
        """The constants that it reads, as they were exported: the runtime's are padded, or packed and gone."""
        origin = self.of(node)
        graph, read = (self.exported, origin.inputs) if origin else (self.optimised, node.inputs)
        return [graph.weights[value] for value in read if value in graph.weights]

    def _module_of(self, node: Node) -> str:
        """Where the exporter lost the name, the module around the nearest named nodes before and behind it."""
        if node.module:
            return node.module
        nearest = (self._named(node, self.exported.before), self._named(node, self.exported.behind))
        return _around(own.module for own in nearest if own is not None)

    def _named(self, node: Node, step: Callable[[Node], Iterator[Node]]) -> Node | None:
        return next((own for own in _reached(node, step) if own.module), None)


def _reached(node: Node, step: Callable[[Node], Iterator[Node]]) -> Iterator[Node]:
    """The node and all that steps lead to from it, nearest first."""
    seen, waiting = {node.name}, deque([node])
    while waiting:
        node = waiting.popleft()
        yield node
        new = [own for own in step(node) if own.name not in seen]
        seen.update(own.name for own in new)
        waiting += new


def _around(paths: Iterable[str]) -> str:
    levels = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels))
