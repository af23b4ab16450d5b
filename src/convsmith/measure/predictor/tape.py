"""Maps that have a shape and no values, and the tape on which they write what a forward pass does with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from convsmith.deploy.passes.trace import is_changed
from convsmith.measure.predictor.graph import Op, Shape
from convsmith.measure.predictor.sizes import behind
from convsmith.nn import BatchNorm

INPUT = "input"
LAYERS = (nn.Conv2d, nn.Linear, BatchNorm, nn.BatchNorm2d)  # exactly these: a subclass may compute its weights
FUNCTIONS: dict[Any, Callable[..., Map]] = {}  # what functions of torch write; filled by `follow`


class NotFollowedError(Exception):
    """The block does what only an export tells."""


class Map:
    """A map or vector of a forward pass: its name in the graph."""

    __slots__ = ("name", "tape")

    def __init__(self, tape: Tape, name: str):
        self.tape, self.name = tape, name

    @property
    def known_shape(self) -> Shape:
        """Its shape, for what writes operators."""
        return self.tape.shapes[self.name]

    @property
    def shape(self) -> Shape:
        """Its shape, which a forward pass may decide by: the tape notes that."""
        self.tape.asked = True
        return self.known_shape

    def size(self, dim: int | None = None) -> Any:
        """As of a tensor."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """As of a tensor."""
        return len(self.known_shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Map:
        """As of a tensor."""
        return FUNCTIONS[torch.flatten](self, start_dim, end_dim)

    def sigmoid(self) -> Map:
        """As of a tensor."""
        return self.tape.add("Sigmoid", [self])

    def tanh(self) -> Map:
        """As of a tensor."""
        return self.tape.add("Tanh", [self])

    def add_(self, other: Any) -> Map:
        """As of a tensor."""
        return self.becomes(self + other)

    def __add__(self, other: Any) -> Map:
        return FUNCTIONS[torch.add](self, other)

    def __mul__(self, other: Any) -> Map:
        return FUNCTIONS[torch.mul](self, other)

    def becomes(self, other: Map) -> Map:
        """A change in place: whoever holds this map has the other one's values."""
        if self.name == INPUT or self.name in self.tape.viewed or other.known_shape != self.known_shape:
            raise NotFollowedError("a map of others that is changed in place")
        self.name = other.name
        return self

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What a function of torch writes, of those that are known."""
        known = FUNCTIONS.get(func)
        if known is None:
            raise NotFollowedError(f"the function {func}")
        return known(*args, **(kwargs or {}))


class Tape:
    """The operators of one pass, and the layers whose weights they may use, each of them once."""

    def __init__(self, module: nn.Module, shape: Shape):
        self.ops: list[Op] = []
        self.shapes: dict[str, Shape] = {INPUT: shape}
        self.constants: dict[str, tuple[float, ...] | None] = {}
        self.asked = False  # for a shape
        self.viewed: set[str] = set()  # maps that share their memory
        self.normed: set[str] = set()  # what convolutions would write without their norms
        self.convolved: dict[str, Op] = {}  # what writes a map, where it is a convolution
        self.layers: dict[int, nn.Module] = {}
        for layer in module.modules():
            if is_changed(layer):
                raise NotFollowedError("a module with hooks")
            if type(layer) in LAYERS:
                self.layers[id(layer.weight)] = layer

    def layer(self, weight: Any, *kinds: type[nn.Module]) -> Any:
        """The layer whose weight this is, which can be asked for once."""
        layer = self.layers.pop(id(weight), None)
        if type(layer) not in kinds:
            raise NotFollowedError("a weight that is not a layer's own, or used twice")
        return layer

    def add(self, kind: str, maps: list[Map], *constants: str, **attributes: Any) -> Map:
        """A map that an operator writes."""
        op = Op(kind, [*(x.name for x in maps), *constants], [f"map {len(self.ops)}"], attributes)
        self.ops.append(op)
        self.shapes[op.outputs[0]] = behind(op, [self.shapes[name] for name in op.inputs])
        return Map(self, op.outputs[0])

    def constant(self, shape: Shape, values: tuple[float, ...] | None = None) -> str:
        """A weight, or numbers."""
        name = f"constant {len(self.constants)}"
        self.constants[name], self.shapes[name] = values, shape
        return name

    def check(self, result: Map) -> None:
        """Raise NotFollowedError where a pass may change what was written."""
        if any(name in self.normed for op in self.ops for name in op.inputs) or result.name in self.normed:
            raise NotFollowedError("a norm that cannot go into the convolution in front")
        for op in self.convolved.values():
            before = self.convolved.get(op.inputs[0])
            if op.attributes["group"] == 1 and before is not None and before.attributes["group"] == 1:
                raise NotFollowedError("two convolutions that may be one")
