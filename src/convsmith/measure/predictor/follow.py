"""The graph of a block, followed through its forward pass with maps that have a shape and no values.

An export of a block takes 20 ms: values are computed, and the passes of `deploy` look at each operator. Most blocks are
convolutions with a norm behind them, activations, sums and gates, of which those passes fold the norms and leave all
else as it is. This writes the graph of such a block at once, and refuses every other one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from convsmith.deploy.onnx.graph import OPSET
from convsmith.measure.predictor.graph import Graph, Shape
from convsmith.measure.predictor.rewriting import drop_unread
from convsmith.measure.predictor.tape import FUNCTIONS, INPUT, Map, NotFollowedError, Tape
from convsmith.nn import BatchNorm
from convsmith.nn.channels import pair

FILLED: tuple[Any, ...] = (_ConvNd, _NormBase, nn.Linear)
_CHANGING = RLock()


@contextmanager
def no_values() -> Iterator[None]:
    """Inside of this block, this thread makes convolutions, norms and linear layers without filling their weights.

    To draw large weights takes long, and a mode of torch that tells it not to takes a third of what a block takes; the
    meta device takes more than that. So the layers' own method steps aside, for this thread alone.
    """
    own = get_ident()

    def stepping_aside(reset: Callable[[Any], None]) -> Callable[[Any], None]:
        return lambda layer: None if get_ident() == own else reset(layer)

    with _CHANGING:
        methods = {kind: kind.reset_parameters for kind in FILLED}
        try:
            for kind, reset in methods.items():
                kind.reset_parameters = stepping_aside(reset)
            yield
        finally:
            for kind, reset in methods.items():
                kind.reset_parameters = reset


def follow(module: nn.Module, shape: Shape) -> tuple[Graph, bool]:
    """The graph that `deploy` writes for a block in eval mode and an input of (N, C, H, W).

    True beside it says that the block never asked for a shape: at other sizes its graph has the same operators.

    Raises NotFollowedError where it would not be certain: for operators that are not known here, what passes may
    change, and inputs that do not fit.
    """
    tape = Tape(module, shape)
    try:
        with torch.no_grad():
            result = module(Map(tape, INPUT))
    except Exception as error:  # whatever a forward does with maps of another kind than it was written for
        raise NotFollowedError(str(error)) from error
    if type(result) is not Map:
        raise NotFollowedError("an output that is no map")
    tape.check(result)
    graph = Graph(tape.ops, [INPUT], [result.name], tape.shapes, tape.constants, OPSET)
    drop_unread(graph)
    return graph, not tape.asked


def _conv(x: Map, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Map:
    tape = x.tape
    layer = tape.layer(weight, nn.Conv2d)
    width, per_group, *taps = weight.shape
    if layer.bias is not bias or isinstance(padding, str) or tape.shapes[x.name][1] != per_group * groups:
        raise NotFollowedError("another convolution than the layer's own of its channels")
    made = tape.add(
        "Conv",
        [x],
        tape.constant(tuple(weight.shape)),
        *([] if bias is None else [tape.constant((width,))]),
        kernel_shape=tuple(taps),
        strides=pair(stride),
        pads=2 * pair(padding),
        dilations=pair(dilation),
        group=groups,
    )
    tape.convolved[made.name] = tape.ops[-1]
    return made


def _batch_norm(
    x: Map, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False, *_: Any, **__: Any
) -> Map:
    """A norm behind a convolution, which takes it up: its map is what the convolution writes."""
    tape = x.tape
    layer, conv = tape.layer(weight, BatchNorm, nn.BatchNorm2d), tape.convolved.pop(x.name, None)
    own = mean is layer.running_mean and var is layer.running_var and bias is layer.bias
    if conv is None or training or mean is None or not own or layer.num_features != x.known_shape[1]:
        raise NotFollowedError("a norm that cannot go into the convolution in front")
    if len(conv.inputs) < 3:
        conv.inputs = [*conv.inputs, tape.constant((layer.num_features,))]
    tape.normed.add(x.name)
    made = Map(tape, f"{x.name} normed")
    conv.outputs, tape.convolved[made.name] = [made.name], conv
    tape.shapes[made.name] = tape.shapes.pop(x.name)
    return made


def _linear(x: Map, weight: Any, bias: Any = None) -> Map:
    tape = x.tape
    layer = tape.layer(weight, nn.Linear)
    if layer.bias is not bias or x.dim() != 2 or x.known_shape[1] != layer.in_features:
        raise NotFollowedError("a linear layer of something else than vectors")
    product = tape.constant((layer.in_features, layer.out_features))
    if bias is None:
        return tape.add("MatMul", [x], product)
    return tape.add("Gemm", [x], product, tape.constant((layer.out_features,)), alpha=1.0, beta=1.0)


def _max_pool(
    x: Map,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Map:
    if return_indices:
        raise NotFollowedError("a pooling that tells places")
    return _pool(x, "MaxPool", kernel_size, stride, padding, ceil_mode, dilations=pair(dilation))


def _avg_pool(
    x: Map,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Map:
    if divisor_override is not None:
        raise NotFollowedError("an average by another divisor")
    counted = int(count_include_pad and any(pair(padding)))
    return _pool(x, "AveragePool", kernel_size, stride, padding, ceil_mode, count_include_pad=counted)


def _pool(x: Map, kind: str, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, **more: Any) -> Map:
    kernel, pads = pair(kernel_size), pair(padding)
    strides = kernel if stride is None else pair(stride)
    if ceil_mode or kernel == strides == (1, 1) or any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
        raise NotFollowedError("a pooling that rounds up, or that a pass takes out")
    return x.tape.add(kind, [x], kernel_shape=kernel, strides=strides, pads=2 * pads, **more)


def _global_pool(x: Map, output_size: Any) -> Map:
    if output_size not in (1, (1, 1), [1, 1]) or x.dim() != 4:
        raise NotFollowedError("adaptive pooling to several pixels")
    return x.tape.add("GlobalAveragePool", [x])


def _flatten(x: Map, start_dim: int = 0, end_dim: int = -1) -> Map:
    if (start_dim, end_dim) != (1, -1) or x.dim() != 4:
        raise NotFollowedError("another view than that of pooled maps as vectors")
    made = x.tape.add("Flatten", [x], axis=1)
    x.tape.viewed |= {x.name, made.name}
    return made


def _unary(kind: str) -> Callable[..., Map]:
    def write(x: Map, inplace: bool = False) -> Map:
        made = x.tape.add(kind, [x])
        return x.becomes(made) if inplace else made

    return write


def _relu6(x: Map, inplace: bool = False) -> Map:
    made = x.tape.add("Clip", [x], x.tape.constant((), (0.0,)), x.tape.constant((), (6.0,)))
    return x.becomes(made) if inplace else made


def _silu(x: Map, inplace: bool = False) -> Map:
    made = _binary("Mul")(x, x.sigmoid())
    return x.becomes(made) if inplace else made


def _binary(kind: str) -> Callable[[Any, Any], Map]:
    def write(a: Any, b: Any) -> Map:
        if type(a) is not Map or type(b) is not Map:
            raise NotFollowedError("arithmetic with something else than a map")
        return a.tape.add(kind, [a, b])

    return write


def _dropout(x: Map, p: float = 0.5, training: bool = True, inplace: bool = False) -> Map:
    if training:
        raise NotFollowedError("dropout in evaluation")
    return x


FUNCTIONS |= {
    torch.conv2d: _conv,
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.relu: _unary("Relu"),
    F.relu6: _relu6,
    F.silu: _silu,
    F.hardswish: _unary("HardSwish"),
    torch.sigmoid: _unary("Sigmoid"),
    torch.tanh: _unary("Tanh"),
    F.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
    F.avg_pool2d: _avg_pool,
    F.adaptive_avg_pool2d: _global_pool,
    F.dropout: _dropout,
    torch.flatten: _flatten,
    torch.add: _binary("Add"),
    torch.mul: _binary("Mul"),
}
