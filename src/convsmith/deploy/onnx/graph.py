"""An ONNX graph in the making: nodes, and the weights and constants that they read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convsmith.deploy.onnx.batch import is_from_batch
from convsmith.deploy.onnx.packages import INPUT
from convsmith.deploy.onnx.record import Value
from convsmith.deploy.onnx.refusals import NotQuickError

OPSET = 18  # the first with reductions by axes as inputs and LayerNormalization; every runtime of today has it
IR_VERSION = 8  # that of the operator set
NUMPY = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.bool: np.bool_,
}


class Graph:
    """Collects nodes; `names` gives weights their names, by the address of the tensor object."""

    def __init__(self, batch: int, names: dict[int, str]):
        self.onnx: Any = import_module("onnx")
        self.batch = batch
        self.names = names
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.values: dict[int, str] = {}
        self.module = ""

    def name(self, value: Value | Tensor) -> str:
        """The name under which a node reads a value; a constant is entered when it is first read."""
        if isinstance(value, Tensor):
            return self.constant(value)
        if value.number not in self.values:
            if value.constant is None:
                raise NotQuickError("an operator's second output")
            self.values[value.number] = self.constant(value.constant)
        return self.values[value.number]

    def constant(self, values: Tensor | Sequence[int] | float, dtype: torch.dtype = torch.int64) -> str:
        """The name of a weight, of a list of integers, or of a number of the given type."""
        if isinstance(values, Tensor):
            name, dtype = self.names.get(id(values), ""), values.dtype
            array = values.detach().to("cpu").contiguous()
        else:
            name, array = "", torch.tensor(values, dtype=dtype)
        if dtype not in NUMPY:
            raise NotQuickError(f"a constant of type {dtype}")
        name = name or f"constant_{len(self.initializers)}"
        if name not in self.initializers:
            self.initializers[name] = array.numpy()
        return name

    def node(self, kind: str, inputs: Iterable[Value | str | None], *, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node and name its outputs, one as a text and several as a list; an input that is left out is None."""
        names = ["" if x is None else x if isinstance(x, str) else self.name(x) for x in inputs]
        label = f"{self.module}/{kind}_{len(self.nodes)}" if self.module else f"{kind}_{len(self.nodes)}"
        made = [f"{label}:{i}" for i in range(outputs)]
        attributes = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(self.onnx.helper.make_node(kind, names, made, name=label, **attributes))
        return made[0] if outputs == 1 else made

    def typed(self, value: Value | float | bool, dtype: torch.dtype) -> str:
        """A tensor or a number as an input of that type."""
        if not isinstance(value, Value):
            if math.isfinite(value) and value == int(value) and self.is_batch(int(value)):
                raise NotQuickError("arithmetic on the batch size")
            return self.constant(value, dtype)
        if value.dtype == dtype:
            return self.name(value)
        if value.constant is not None:
            return self.constant(value.constant.to(dtype))
        return self.cast(value, dtype)

    def cast(self, value: Value | str, dtype: torch.dtype) -> str:
        """The values in another type."""
        return str(self.node("Cast", [value], to=self.typed_as(dtype)))

    def typed_as(self, dtype: torch.dtype) -> int:
        """ONNX's number for a type."""
        if dtype not in NUMPY:
            raise NotQuickError(f"a tensor of type {dtype}")
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(NUMPY[dtype])))

    def reshape(self, value: Value | str, before: Sequence[int], after: Sequence[int]) -> str:
        """The values in another shape, one size of which may come from the batch."""
        if tuple(before) == tuple(after):
            return value if isinstance(value, str) else self.name(value)
        sizes = [
            0 if self.is_batch(new) and i < len(before) and before[i] == new else new for i, new in enumerate(after)
        ]
        unknown = [i for i, size in enumerate(sizes) if self.is_batch(size)]
        if len(unknown) > 1:
            raise NotQuickError("a shape with two sizes from the batch")
        if unknown and 0 in sizes:
            raise NotQuickError("a shape with two sizes from the batch")
        for i in unknown:
            sizes[i] = -1
        if len(after) == 2 and sizes[0] == 0 and len(before) > 1 and math.prod(before[1:]) == after[1]:
            return str(self.node("Flatten", [value], axis=1))
        return str(self.node("Reshape", [value, self.constant(sizes)]))

    def expanded(self, value: Value | str, sizes: Sequence[int]) -> str:
        """The values repeated to those sizes, any of which may come from the batch."""
        return str(self.node("Expand", [value, self.sizes(sizes)]))

    def sizes(self, sizes: Sequence[int]) -> str:
        """The name of a list of integers, any of which may come from the batch."""
        if not any(map(self.is_batch, sizes)):
            return self.constant(sizes)
        parts = []
        for size in sizes:
            if self.is_batch(size):
                images = self.node("Shape", [INPUT], start=0, end=1)
                multiple = size // self.batch
                parts.append(images if multiple == 1 else self.node("Mul", [images, self.constant([multiple])]))
            else:
                parts.append(self.constant([size]))
        return str(self.node("Concat", parts, axis=0))

    def is_batch(self, size: int) -> bool:
        """Whether a size comes from the batch."""
        return is_from_batch(size, self.batch)

    def fixed(self, sizes: Sequence[int]) -> list[int]:
        """The sizes, none of which may come from the batch."""
        if any(map(self.is_batch, sizes)):
            raise NotQuickError("a size from the batch")
        return list(sizes)


def each(values: Sequence[int], dims: int) -> list[int]:
    """A number for each dimension, where torch allows one for all."""
    return list(values) * dims if len(values) == 1 else list(values)
