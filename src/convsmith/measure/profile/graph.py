"""A graph of operators as an exporter wrote it or as a runtime changed it: nodes, weights, who writes and who reads."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

BLOCKED_DOMAIN = "com.microsoft.nchwc"


@dataclass(frozen=True)
class Node:
    """One node.

    `module` is the path that its name begins with, `origin` the name of the exported node that a runtime says that it
    computes, `kernel` what the runtime made of it, `permutation` that of a transposition.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    origin: str = ""
    kernel: str = ""
    permutation: tuple[int, ...] = ()

    @property
    def module(self) -> str:
        """As `deploy.onnx.convert` names nodes."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True)
class Weight:
    """A constant of the graph."""

    shape: tuple[int, ...]
    bytes: int


class Graph:
    """Nodes in order, and constants by name."""

    def __init__(self, nodes: Iterable[Node], weights: Mapping[str, Weight]):
        self.nodes = list(nodes)
        self.weights = weights
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

    def find(self, name: str) -> Node | None:
        """The node of that name, or the one that writes the value of that name."""
        return self.by_name.get(name) or self.writers.get(name)

    def before(self, node: Node) -> Iterator[Node]:
        """The nodes that write what it reads."""
        return (self.writers[value] for value in node.inputs if value in self.writers)

    def behind(self, node: Node) -> Iterator[Node]:
        """The nodes that read what it writes."""
        return (reader for value in node.outputs for reader in self.readers.get(value, ()))


def onnx_graph(model: bytes) -> Graph:
    """The graph of a serialised ONNX model, also of one that ONNX Runtime has optimised."""
    onnx = importlib.import_module("onnx")
    graph = onnx.load_model_from_string(model).graph
    nodes = []
    for node in graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        changes = ["nchwc"] if node.domain == BLOCKED_DOMAIN else []
        if "activation" in attributes:
            changes.append(f"+ {attributes['activation'].s.decode()}")
        permutation = tuple(attributes["perm"].ints) if "perm" in attributes else ()
        nodes.append(
            Node(
                name=node.name,
                operator=node.op_type,
                inputs=tuple(node.input),
                outputs=tuple(node.output),
                kernel=" ".join(changes),
                permutation=permutation,
            )
        )
    weights = {
        tensor.name: Weight(
            tuple(tensor.dims),
            math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize,
        )
        for tensor in graph.initializer
    }
    return Graph(nodes, weights)
