"""What works on single values: arithmetic and activations."""

from __future__ import annotations

import math
from typing import Any

import torch

from convsmith.deploy.onnx.forms.table import FORMS, Form, node, operator
from convsmith.deploy.onnx.graph import Graph
from convsmith.deploy.onnx.record import Call, Value
from convsmith.deploy.onnx.refusals import NotQuickError

SAME = {  # the same operator under another name, without arguments
    **{"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "sqrt": "Sqrt", "neg": "Neg", "abs": "Abs"},
    **{"erf": "Erf", "log": "Log", "reciprocal": "Reciprocal", "floor": "Floor", "ceil": "Ceil", "round": "Round"},
    **{"sin": "Sin", "cos": "Cos", "hardswish": "HardSwish", "mm": "MatMul", "bmm": "MatMul"},
}
BINARY = {
    **{"add.Tensor": "Add", "sub.Tensor": "Sub", "rsub.Scalar": "Sub"},
    **{"mul.Tensor": "Mul", "mul.Scalar": "Mul", "div.Tensor": "Div"},
    **{"pow.Tensor_Scalar": "Pow", "pow.Tensor_Tensor": "Pow", "maximum.default": "Max", "minimum.default": "Min"},
}
COMPARISONS = {"gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual", "eq": "Equal", "ne": "Equal"}
UNCHANGED = ("clone", "alias", "detach")


def _binary(kind: str) -> Form:
    def form(g: Graph, call: Call, self: Any, other: Any, alpha: float = 1) -> str:
        dtype = call.outputs[0].dtype
        left, right = g.typed(self, dtype), g.typed(other, dtype)
        if call.name == "rsub":
            left, right = right, left
        if alpha != 1:
            right = g.node("Mul", [right, g.constant(alpha, dtype)])
        return str(g.node(kind, [left, right]))

    return form


for _name, _kind in SAME.items():
    FORMS[f"{_name}.default"] = node(_kind)
for _name, _kind in BINARY.items():
    FORMS[_name] = _binary(_kind)


@operator(*(f"{name}.{overload}" for name in COMPARISONS for overload in ("Scalar", "Tensor")))
def comparison(g: Graph, call: Call, self: Value, other: Any) -> str:
    dtype, answered = self.dtype, call.outputs[0].dtype
    if isinstance(other, Value):
        dtype = torch.promote_types(dtype, other.dtype)
    elif isinstance(other, float) and not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    elif dtype == torch.bool and not isinstance(other, bool):
        dtype = torch.int64
    if dtype == torch.bool and COMPARISONS[call.name] != "Equal":
        raise NotQuickError(f"{call.name} of truth values")
    answer = g.node(COMPARISONS[call.name], [g.typed(self, dtype), g.typed(other, dtype)])
    answer = g.node("Not", [answer]) if call.name == "ne" else answer
    return str(answer if answered == torch.bool else g.cast(answer, answered))  # in place it keeps the map's type


@operator("where.self")
def where(g: Graph, call: Call, condition: Value, self: Value, other: Value) -> str:
    dtype = call.outputs[0].dtype
    return str(g.node("Where", [condition, g.typed(self, dtype), g.typed(other, dtype)]))


@operator("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(g: Graph, call: Call, self: Value, mask: Value, value: Any) -> str:
    return str(g.node("Where", [mask, g.typed(value, self.dtype), self]))


@operator(*UNCHANGED)
def unchanged(g: Graph, call: Call, self: Value, *_: Any) -> str:
    return g.name(self)


@operator("_to_copy")
def to_copy(g: Graph, call: Call, self: Value, *_: Any) -> str:
    return g.typed(self, call.outputs[0].dtype)


@operator("copy")
def copy(g: Graph, call: Call, self: Value, src: Value, *_: Any) -> str:
    if src.shape != self.shape:
        raise NotQuickError("copy_ of another shape")
    return g.typed(src, self.dtype)


@operator("bitwise_not")
def bitwise_not(g: Graph, call: Call, self: Value) -> str:
    return str(g.node("Not" if self.dtype == torch.bool else "BitwiseNot", [self]))


@operator("addcmul")
def addcmul(g: Graph, call: Call, self: Value, tensor1: Value, tensor2: Value, value: float) -> str:
    product = g.node("Mul", [tensor1, tensor2])
    if value != 1:
        product = g.node("Mul", [product, g.constant(value, self.dtype)])
    return str(g.node("Add", [self, product]))


@operator("hardtanh", "clamp")
def clip(g: Graph, call: Call, self: Value, *bounds: float | None) -> str:
    return str(g.node("Clip", [self, *(None if b is None else g.constant(b, self.dtype) for b in bounds)]))


@operator("clamp_min")
def clamp_min(g: Graph, call: Call, self: Value, min: float) -> str:
    return str(g.node("Max", [self, g.typed(min, self.dtype)]))


@operator("hardsigmoid")
def hardsigmoid(g: Graph, call: Call, self: Value) -> str:
    return str(g.node("HardSigmoid", [self], alpha=1 / 6, beta=0.5))


@operator("silu")
def silu(g: Graph, call: Call, self: Value) -> str:
    return str(g.node("Mul", [self, g.node("Sigmoid", [self])]))


@operator("mish")
def mish(g: Graph, call: Call, self: Value) -> str:
    return str(g.node("Mul", [self, g.node("Tanh", [g.node("Softplus", [self])])]))


@operator("gelu")
def gelu(g: Graph, call: Call, self: Value, approximate: str) -> str:
    def number(value: float) -> str:
        return g.constant(value, self.dtype)

    if approximate == "none":  # in the order in which runtimes recognise it
        inner = g.node("Erf", [g.node("Div", [self, number(math.sqrt(2))])])
        return str(g.node("Mul", [g.node("Mul", [self, g.node("Add", [inner, number(1.0)])]), number(0.5)]))
    cube = g.node("Mul", [g.node("Pow", [self, number(3.0)]), number(0.044715)])
    inner = g.node("Tanh", [g.node("Mul", [g.node("Add", [self, cube]), number(math.sqrt(2 / math.pi))])])
    return str(g.node("Mul", [g.node("Mul", [self, g.node("Add", [inner, number(1.0)])]), number(0.5)]))


@operator("leaky_relu")
def leaky_relu(g: Graph, call: Call, self: Value, negative_slope: float) -> str:
    return str(g.node("LeakyRelu", [self], alpha=float(negative_slope)))


@operator("elu")
def elu(g: Graph, call: Call, self: Value, alpha: float, scale: float, input_scale: float) -> str:
    if input_scale != 1:
        raise NotQuickError("elu with a factor of its input")
    x = g.node("Elu", [self], alpha=float(alpha))
    return str(x if scale == 1 else g.node("Mul", [x, g.constant(scale, self.dtype)]))


@operator("_prelu_kernel")
def prelu(g: Graph, call: Call, self: Value, weight: Value) -> str:
    return str(g.node("PRelu", [self, weight]))


@operator("softplus")
def softplus(g: Graph, call: Call, self: Value, beta: float, threshold: float) -> str:
    if beta != 1:
        raise NotQuickError("softplus with a factor")
    return str(g.node("Softplus", [self]))


@operator("rsqrt")
def rsqrt(g: Graph, call: Call, self: Value) -> str:
    return str(g.node("Reciprocal", [g.node("Sqrt", [self])]))


@operator("_softmax", "_log_softmax", "_safe_softmax")
def softmax(g: Graph, call: Call, self: Value, dim: int, *_: Any) -> str:
    return str(g.node("LogSoftmax" if "log" in call.name else "Softmax", [self], axis=dim))
