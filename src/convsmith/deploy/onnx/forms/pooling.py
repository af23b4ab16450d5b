"""Pooling and reductions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convsmith.deploy.onnx.forms.table import FORMS, Form, operator
from convsmith.deploy.onnx.graph import Graph, each
from convsmith.deploy.onnx.record import Call, Value
from convsmith.deploy.onnx.refusals import NotQuickError

REDUCTIONS = {
    "mean.dim": "ReduceMean",
    "mean.default": "ReduceMean",
    "sum.dim_IntList": "ReduceSum",
    "sum.default": "ReduceSum",
    "amax.default": "ReduceMax",
    "amin.default": "ReduceMin",
}


@operator("max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool(
    g: Graph,
    call: Call,
    self: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> list[str]:
    dims = len(self.shape) - 2
    kernel, dilations = each(kernel_size, dims), each(dilation, dims)
    strides, before = each(stride, dims) or kernel, each(padding, dims)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    after = _ending(self, call.outputs[0], reach, strides, before)
    return [g.node("MaxPool", [self], kernel_shape=kernel, strides=strides, pads=before + after, dilations=dilations)]


@operator("avg_pool2d", "avg_pool3d")
def avg_pool(
    g: Graph,
    call: Call,
    self: Value,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> str:
    dims = len(self.shape) - 2
    kernel = each(kernel_size, dims)
    strides, before = each(stride, dims) or kernel, each(padding, dims)
    after = _ending(self, call.outputs[0], kernel, strides, before)
    counted = count_include_pad and any(before)
    if divisor_override is not None or (counted and after != before):
        raise NotQuickError("average pooling with such a divisor")
    return str(
        g.node(
            "AveragePool",
            [self],
            kernel_shape=kernel,
            strides=strides,
            pads=before + after,
            count_include_pad=int(counted),
        )
    )


@operator("_adaptive_avg_pool2d")
def adaptive_avg_pool(g: Graph, call: Call, self: Value, output_size: Sequence[int]) -> str:
    if tuple(output_size) == (1, 1):
        return str(g.node("GlobalAveragePool", [self]))
    if any(side % wanted for side, wanted in zip(self.shape[2:], output_size, strict=True)):
        raise NotQuickError("adaptive pooling into parts of different sizes")
    kernel = [side // wanted for side, wanted in zip(self.shape[2:], output_size, strict=True)]
    return g.name(self) if kernel == [1, 1] else str(g.node("AveragePool", [self], kernel_shape=kernel, strides=kernel))


def _reduction(kind: str) -> Form:
    def form(g: Graph, call: Call, self: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> str:
        if call.overload == "default" and call.name in ("mean", "sum"):
            dim = None  # it is the type
        if call.outputs[0].dtype != self.dtype:
            raise NotQuickError("a reduction into another type")
        rank = len(self.shape)
        axes = sorted(axis % rank for axis in ([dim] if isinstance(dim, int) else dim or range(rank)))
        if kind == "ReduceMean" and rank > 2 and axes == list(range(2, rank)):
            pooled = g.node("GlobalAveragePool", [self])
            return str(pooled if keepdim else g.node("Flatten", [pooled], axis=1))
        return str(g.node(kind, [self, g.constant(axes)], keepdims=int(keepdim)))

    return form


for _name, _kind in REDUCTIONS.items():
    FORMS[_name] = _reduction(_kind)


@operator("linalg_vector_norm")
def vector_norm(g: Graph, call: Call, self: Value, ord: float, dim: Any, keepdim: bool, dtype: Any) -> str:
    if ord not in (1, 2) or dtype is not None:
        raise NotQuickError("a norm of that order")
    return _reduction("ReduceL2" if ord == 2 else "ReduceL1")(g, call, self, dim, keepdim)  # type: ignore[no-any-return]


@operator("cumsum")
def cumsum(g: Graph, call: Call, self: Value, dim: int, dtype: Any) -> str:
    return str(g.node("CumSum", [g.typed(self, call.outputs[0].dtype), g.constant(dim)]))


def _ending(x: Value, y: Value, reach: list[int], strides: list[int], before: list[int]) -> list[int]:
    """The padding at the end that gives the output its size: ONNX Runtime is slow where it rounds sizes up itself."""
    sides = zip(x.shape[2:], y.shape[2:], reach, strides, before, strict=True)
    needed = [(new - 1) * step + size - old - first for old, new, size, step, first in sides]
    after = [max(first, extra) for first, extra in zip(before, needed, strict=True)]
    if any(amount >= size for amount, size in zip(after, reach, strict=True)):
        raise NotQuickError("pooling that reaches beyond its padding")
    return after
