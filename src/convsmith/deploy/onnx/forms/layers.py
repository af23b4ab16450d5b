"""Convolutions, matrix products, attention and norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from convsmith.deploy.onnx.forms.table import operator
from convsmith.deploy.onnx.graph import Graph, each
from convsmith.deploy.onnx.record import Call, Value
from convsmith.deploy.onnx.refusals import NotQuickError


@operator("convolution")
def convolution(
    g: Graph,
    call: Call,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> str:
    dims = len(weight.shape) - 2
    return str(
        g.node(
            "ConvTranspose" if transposed else "Conv",
            [input, weight, bias] if bias is not None else [input, weight],
            kernel_shape=list(weight.shape[2:]),
            strides=each(stride, dims),
            pads=2 * each(padding, dims),
            dilations=each(dilation, dims),
            group=groups,
            output_padding=each(output_padding, dims) if transposed else None,
        )
    )


@operator("addmm")
def addmm(g: Graph, call: Call, self: Value, mat1: Value, mat2: Value, beta: float, alpha: float) -> str:
    return str(g.node("Gemm", [mat1, mat2, self], alpha=float(alpha), beta=float(beta)))


@operator("baddbmm")
def baddbmm(g: Graph, call: Call, self: Value, batch1: Value, batch2: Value, beta: float, alpha: float) -> str:
    if (alpha, beta) != (1, 1):
        raise NotQuickError("baddbmm with factors")
    return str(g.node("Add", [self, g.node("MatMul", [batch1, batch2])]))


@operator("_scaled_dot_product_flash_attention_for_cpu")
def attention(
    g: Graph,
    call: Call,
    query: Value,
    key: Value,
    value: Value,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Value | None,
    scale: float | None,
) -> list[str]:
    if is_causal:
        raise NotQuickError("causal attention")
    factor = g.constant(1 / math.sqrt(query.shape[-1]) if scale is None else scale, query.dtype)
    products = g.node("MatMul", [g.node("Mul", [query, factor]), g.node("Transpose", [key], perm=[0, 1, 3, 2])])
    if attn_mask is not None:
        products = g.node("Add", [products, g.typed(attn_mask, query.dtype)])
    return [g.node("MatMul", [g.node("Softmax", [products], axis=-1), value])]


@operator("native_batch_norm", "_native_batch_norm_legit_no_training")
def batch_norm(
    g: Graph, call: Call, input: Value, weight: Value | None, bias: Value | None, mean: Value, var: Value, *rest: Any
) -> list[str]:
    if rest[:-2] == (True,) or mean is None:
        raise NotQuickError("a batch norm by the batch's own statistics")
    ones, zeros = torch.ones(input.shape[1], dtype=input.dtype), torch.zeros(input.shape[1], dtype=input.dtype)
    scale, shift = weight or g.constant(ones), bias or g.constant(zeros)
    return [g.node("BatchNormalization", [input, scale, shift, mean, var], epsilon=float(rest[-1]))]


@operator("native_layer_norm")
def layer_norm(
    g: Graph, call: Call, input: Value, shape: Sequence[int], weight: Value | None, bias: Value | None, eps: float
) -> list[str]:
    scale = weight or g.constant(torch.ones(tuple(shape), dtype=input.dtype))
    inputs = [input, scale] if bias is None else [input, scale, bias]
    return [g.node("LayerNormalization", inputs, axis=-len(shape), epsilon=eps)]


@operator("native_group_norm")
def group_norm(
    g: Graph,
    call: Call,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    batch: int,
    channels: int,
    positions: int,
    group: int,
    eps: float,
) -> list[str]:
    # InstanceNormalization of one channel per group: GroupNormalization came late and its definition changed.
    grouped = (input.shape[0], group, channels // group * positions)
    ones, zeros = torch.ones(group, dtype=input.dtype), torch.zeros(group, dtype=input.dtype)
    x = g.node(
        "InstanceNormalization",
        [g.reshape(input, input.shape, grouped), g.constant(ones), g.constant(zeros)],
        epsilon=eps,
    )
    x = g.reshape(x, grouped, input.shape)
    for kind, factor in (("Mul", weight), ("Add", bias)):
        if factor is not None:
            assert factor.constant is not None
            x = g.node(kind, [x, g.constant(factor.constant.view(-1, *[1] * (len(input.shape) - 2)))])
    return [x]
