"""The graph of a block, followed through its forward pass with maps that have a shape and no values.

An export of a block takes 20 ms: values are computed, and the passes of `deploy` look at each operator. Most blocks are
convolutions with a norm behind them, activations, sums and gates, of which those passes fold the norms and leave all
else as it is. This writes the graph of such a block at once, and refuses every other one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from convsmith.deploy.onnx.graph import OPSET
from convsmith.deploy.passes.trace import is_changed
from convsmith.measure.predictor.graph import Graph, Op, Shape
from convsmith.measure.predictor.sizes import behind
from convsmith.nn import BatchNorm
from convsmith.nn.channels import pair

INPUT = "input"


class NotFollowedError(Exception):
    """The block does what only an export tells."""


class NoValues(TorchFunctionMode):
    """Inside of this block, layers are made without drawing their weights, which takes long for large ones."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, unless it fills a tensor at random."""
        if func in DRAWN:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def follow(module: nn.Module, shape: Shape) -> tuple[Graph, bool]:
    """The graph that `deploy` writes for a block in eval mode and an input of (N, C, H, W).

    True beside it says that the block never asked for a shape: at other sizes its graph has the same operators.

    Raises NotFollowedError where it would not be certain: for operators that are not known here, what passes may
    change, and inputs that do not fit.
    """
    tape = _Tape(module, shape)
    try:
        result = module(_Map(tape, INPUT))
    except Exception as error:  # whatever a forward does with maps of another kind than it was written for
        raise NotFollowedError(str(error)) from error
    if type(result) is not _Map:
        raise NotFollowedError("an output that is no map")
    tape.check(result)
    return Graph(tape.ops, [INPUT], [result.name], tape.shapes, tape.constants, OPSET), not tape.asked


class _Map:
    """A map or vector of a forward pass: its name in the graph."""

    __slots__ = ("name", "tape")

    def __init__(self, tape: _Tape, name: str):
        self.tape, self.name = tape, name

    @property
    def known_shape(self) -> Shape:
        return self.tape.shapes[self.name]

    @property
    def shape(self) -> Shape:
        self.tape.asked = True
        return self.known_shape

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return len(self.known_shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> _Map:
        return _flatten(self, start_dim, end_dim)

    def sigmoid(self) -> _Map:
        return self.tape.add("Sigmoid", [self])

    def tanh(self) -> _Map:
        return self.tape.add("Tanh", [self])

    def add_(self, other: Any) -> _Map:
        return self.becomes(_binary("Add")(self, other))

    def __add__(self, other: Any) -> _Map:
        return _binary("Add")(self, other)

    def __mul__(self, other: Any) -> _Map:
        return _binary("Mul")(self, other)

    def becomes(self, other: _Map) -> _Map:
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


class _Tape:
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

    def add(self, kind: str, maps: list[_Map], *constants: str, **attributes: Any) -> _Map:
        """A map that an operator writes."""
        op = Op(kind, [*(x.name for x in maps), *constants], [f"map {len(self.ops)}"], attributes)
        self.ops.append(op)
        self.shapes[op.outputs[0]] = behind(op, [self.shapes[name] for name in op.inputs])
        return _Map(self, op.outputs[0])

    def constant(self, shape: Shape, values: tuple[float, ...] | None = None) -> str:
        """A weight, or numbers."""
        name = f"constant {len(self.constants)}"
        self.constants[name], self.shapes[name] = values, shape
        return name

    def check(self, result: _Map) -> None:
        """Raise NotFollowedError where a pass may change what was written."""
        if any(name in self.normed for op in self.ops for name in op.inputs) or result.name in self.normed:
            raise NotFollowedError("a norm that cannot go into the convolution in front")
        for op in self.convolved.values():
            before = self.convolved.get(op.inputs[0])
            if op.attributes["group"] == 1 and before is not None and before.attributes["group"] == 1:
                raise NotFollowedError("two convolutions that may be one")


def _conv(x: _Map, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> _Map:
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
    x: _Map, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False, *_: Any, **__: Any
) -> _Map:
    """A norm behind a convolution, which takes it up: its map is what the convolution writes."""
    tape = x.tape
    layer, conv = tape.layer(weight, BatchNorm, nn.BatchNorm2d), tape.convolved.pop(x.name, None)
    own = mean is layer.running_mean and var is layer.running_var and bias is layer.bias
    if conv is None or training or mean is None or not own or layer.num_features != x.known_shape[1]:
        raise NotFollowedError("a norm that cannot go into the convolution in front")
    if len(conv.inputs) < 3:
        conv.inputs = [*conv.inputs, tape.constant((layer.num_features,))]
    tape.normed.add(x.name)
    made = _Map(tape, f"{x.name} normed")
    conv.outputs, tape.convolved[made.name] = [made.name], conv
    tape.shapes[made.name] = tape.shapes.pop(x.name)
    return made


def _linear(x: _Map, weight: Any, bias: Any = None) -> _Map:
    tape = x.tape
    layer = tape.layer(weight, nn.Linear)
    if layer.bias is not bias or x.dim() != 2 or x.known_shape[1] != layer.in_features:
        raise NotFollowedError("a linear layer of something else than vectors")
    product = tape.constant((layer.in_features, layer.out_features))
    if bias is None:
        return tape.add("MatMul", [x], product)
    return tape.add("Gemm", [x], product, tape.constant((layer.out_features,)), alpha=1.0, beta=1.0)


def _max_pool(
    x: _Map,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> _Map:
    if return_indices:
        raise NotFollowedError("a pooling that tells places")
    return _pool(x, "MaxPool", kernel_size, stride, padding, ceil_mode, dilations=pair(dilation))


def _avg_pool(
    x: _Map,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> _Map:
    if divisor_override is not None:
        raise NotFollowedError("an average by another divisor")
    counted = int(count_include_pad and any(pair(padding)))
    return _pool(x, "AveragePool", kernel_size, stride, padding, ceil_mode, count_include_pad=counted)


def _pool(x: _Map, kind: str, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, **more: Any) -> _Map:
    kernel, pads = pair(kernel_size), pair(padding)
    strides = kernel if stride is None else pair(stride)
    if ceil_mode or kernel == strides == (1, 1) or any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
        raise NotFollowedError("a pooling that rounds up, or that a pass takes out")
    return x.tape.add(kind, [x], kernel_shape=kernel, strides=strides, pads=2 * pads, **more)


def _global_pool(x: _Map, output_size: Any) -> _Map:
    if output_size not in (1, (1, 1), [1, 1]) or x.dim() != 4:
        raise NotFollowedError("adaptive pooling to several pixels")
    return x.tape.add("GlobalAveragePool", [x])


def _flatten(x: _Map, start_dim: int = 0, end_dim: int = -1) -> _Map:
    if (start_dim, end_dim) != (1, -1) or x.dim() != 4:
        raise NotFollowedError("another view than that of pooled maps as vectors")
    made = x.tape.add("Flatten", [x], axis=1)
    x.tape.viewed |= {x.name, made.name}
    return made


def _unary(kind: str) -> Callable[..., _Map]:
    def write(x: _Map, inplace: bool = False) -> _Map:
        made = x.tape.add(kind, [x])
        return x.becomes(made) if inplace else made

    return write


def _relu6(x: _Map, inplace: bool = False) -> _Map:
    made = x.tape.add("Clip", [x], x.tape.constant((), (0.0,)), x.tape.constant((), (6.0,)))
    return x.becomes(made) if inplace else made


def _silu(x: _Map, inplace: bool = False) -> _Map:
    made = _binary("Mul")(x, x.sigmoid())
    return x.becomes(made) if inplace else made


def _binary(kind: str) -> Callable[[Any, Any], _Map]:
    def write(a: Any, b: Any) -> _Map:
        if type(a) is not _Map or type(b) is not _Map:
            raise NotFollowedError("arithmetic with something else than a map")
        return a.tape.add(kind, [a, b])

    return write


def _dropout(x: _Map, p: float = 0.5, training: bool = True, inplace: bool = False) -> _Map:
    if training:
        raise NotFollowedError("dropout in evaluation")
    return x


LAYERS = (nn.Conv2d, nn.Linear, BatchNorm, nn.BatchNorm2d)  # exactly these: a subclass may compute its weights
DRAWN = frozenset((nn.init.kaiming_uniform_, nn.init.kaiming_normal_, nn.init.uniform_, nn.init.normal_))
FUNCTIONS: dict[Any, Callable[..., _Map]] = {
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
