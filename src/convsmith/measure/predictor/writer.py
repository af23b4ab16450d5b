"""Networks written operator by operator, as graphs: what a calibration measures, made without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convsmith.measure.predictor.graph import Graph, Op, Shape

ACTS = {"relu": "Relu", "sigmoid": "Sigmoid", "hard_swish": "HardSwish", "tanh": "Tanh"}  # those of one operator


class Writer:
    """A network under construction: each method adds an operator and returns the name of its map.

    `shapes` are the maps' (C, H, W), or (C,) behind the flattening. Operators are written as torch's exporter does.
    """

    def __init__(self, input_shape: tuple[int, int, int, int]):
        self.batch, channels, height, width = input_shape
        self.shapes: dict[str, tuple[int, ...]] = {"input": (channels, height, width)}
        self.macs = 0
        self.ops: list[Op] = []
        self._constants: dict[str, tuple[float, ...] | None] = {}
        self._constant_shapes: dict[str, Shape] = {}
        self._scalars: dict[float, str] = {}
        self._named = 0

    def conv(
        self,
        x: str,
        width: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> str:
        """A convolution, padded to keep the map's size but for the stride."""
        channels, height, side = self.shapes[x]
        fan_in = channels // groups * kernel[0] * kernel[1]
        weights = [self._weight(width, channels // groups, *kernel), *([self._weight(width)] if bias else [])]
        pads = [kernel[0] // 2 * dilation, kernel[1] // 2 * dilation]
        size = tuple(
            (s + 2 * p - dilation * (k - 1) - 1) // stride + 1
            for s, p, k in zip((height, side), pads, kernel, strict=True)
        )
        self.macs += self.batch * width * fan_in * size[0] * size[1]
        return self.op(
            "Conv",
            [x, *weights],
            (width, *size),
            kernel_shape=tuple(kernel),
            strides=(stride, stride),
            pads=(*pads, *pads),
            group=groups,
            dilations=(dilation, dilation),
        )

    def act(self, x: str, kind: str) -> str:
        """An activation as torch's exporter writes it; `identity` adds nothing."""
        shape = self.shapes[x]
        if kind == "identity":
            return x
        if kind == "relu6":
            return self.op("Clip", [x, self.scalar(0.0), self.scalar(6.0)], shape)
        if kind == "silu":
            return self.op("Mul", [x, self.op("Sigmoid", [x], shape)], shape)
        if kind == "leaky_relu":
            return self.op("LeakyRelu", [x], shape, alpha=0.1)
        if kind == "hard_sigmoid":
            return self.op("HardSigmoid", [x], shape, alpha=1 / 6, beta=0.5)
        return self.op(ACTS[kind], [x], shape)

    def pool(self, x: str, kind: str, kernel: int, stride: int, *, ceil: bool = False, padded: bool = True) -> str:
        """A max or average pooling; `padded` says whether an average counts the padding."""
        channels, height, side = self.shapes[x]
        pad = kernel // 2 if kernel % 2 else 0
        sizes = []
        for s in (height, side):
            whole, rest = divmod(s + 2 * pad - kernel, stride)
            out = whole + 1 + (1 if ceil and rest and (whole + 1) * stride < s + pad else 0)
            sizes.append(out)
        more = {"count_include_pad": int(padded)} if kind == "AveragePool" else {}
        return self.op(
            kind,
            [x],
            (channels, *sizes),
            kernel_shape=(kernel, kernel),
            strides=(stride, stride),
            pads=(pad,) * 4,
            ceil_mode=int(ceil),
            **more,
        )

    def global_pool(self, x: str) -> str:
        """The mean of each channel, as a map of one pixel."""
        return self.op("GlobalAveragePool", [x], (self.shapes[x][0], 1, 1))

    def norm(self, x: str) -> str:
        """A batch norm that stands alone."""
        channels = self.shapes[x][0]
        parts = [self._weight(channels) for _ in ("scale", "shift", "mean", "variance")]
        return self.op("BatchNormalization", [x, *parts], self.shapes[x], epsilon=1e-5)

    def add(self, a: str, b: str) -> str:
        """The sum of two maps of one shape."""
        return self.op("Add", [a, b], self.shapes[a])

    def mul(self, a: str, b: str) -> str:
        """The product of two maps, one of which may have one pixel."""
        return self.op("Mul", [a, b], max(self.shapes[a], self.shapes[b]))

    def concat(self, parts: Sequence[str]) -> str:
        """Maps side by side; one alone is what it is."""
        if len(parts) == 1:
            return parts[0]
        channels = sum(self.shapes[part][0] for part in parts)
        return self.op("Concat", list(parts), (channels, *self.shapes[parts[0]][1:]), axis=1)

    def split(self, x: str, first: int) -> tuple[str, str]:
        """The first channels, and the others."""
        channels, *size = self.shapes[x]
        names = [self._name("map"), self._name("map")]
        self.ops.append(Op("Split", [x, self._sizes(first, channels - first)], names, {"axis": 1}))
        for name, width in zip(names, (first, channels - first), strict=True):
            self.shapes[name] = (width, *size)
        return names[0], names[1]

    def choose(self, x: str, channels: Sequence[int]) -> str:
        """Some channels of a map, in this order."""
        return self.op("Gather", [x, self._sizes(*channels)], (len(channels), *self.shapes[x][1:]), axis=1)

    def pad(self, x: str) -> str:
        """The map with a row and a column of zeros behind its last ones."""
        channels, height, side = self.shapes[x]
        pads = self._sizes(0, 0, 0, 0, 0, 0, 1, 1)
        return self.op("Pad", [x, pads, self.scalar(0.0)], (channels, height + 1, side + 1))

    def crop(self, x: str) -> str:
        """The map without its first row and column."""
        channels, height, side = self.shapes[x]
        starts, ends, axes = self._sizes(1, 1), self._sizes(height, side), self._sizes(2, 3)
        return self.op("Slice", [x, starts, ends, axes], (channels, height - 1, side - 1))

    def response_norm(self, x: str, size: int) -> str:
        """A map over a power of the mean of squares of neighbouring channels (local response norm)."""
        channels, *side = shape = self.shapes[x]
        y = self.op("Reshape", [self.mul(x, x), self._sizes(self.batch, 1, channels, *side)], (1, *shape))
        before = size // 2
        pads = self._sizes(0, 0, before, 0, 0, 0, 0, size - 1 - before, 0, 0)
        y = self.op("Pad", [y, pads, self.scalar(0.0)], (1, channels + size - 1, *side))
        y = self.op("AveragePool", [y], (1, *shape), kernel_shape=(size, 1, 1), strides=(1, 1, 1), pads=(0,) * 6)
        y = self.op("Reshape", [y, self._sizes(self.batch, *shape)], shape)
        y = self.op("Add", [self.op("Mul", [y, self.scalar(1e-4)], shape), self.scalar(1.0)], shape)
        return self.op("Div", [x, self.op("Pow", [y, self.scalar(0.75)], shape)], shape)

    def shuffle(self, x: str, groups: int) -> str:
        """A channel shuffle as torch's exporter writes it."""
        channels, *size = self.shapes[x]
        apart = self._sizes(self.batch, groups, channels // groups, *size)
        together = self._sizes(self.batch, channels, *size)
        y = self.op("Reshape", [x, apart], (groups, channels // groups, *size))
        y = self.op("Transpose", [y], (channels // groups, groups, *size), perm=(0, 2, 1, 3, 4))
        return self.op("Reshape", [y, together], (channels, *size))

    def flatten(self, x: str) -> str:
        """A map as one vector."""
        channels, height, side = self.shapes[x]
        return self.op("Flatten", [x], (channels * height * side,), axis=1)

    def linear(self, x: str, width: int) -> str:
        """A fully connected layer."""
        (features,) = self.shapes[x]
        self.macs += self.batch * features * width
        weight, bias = self._weight(width, features), self._weight(width)
        return self.op("Gemm", [x, weight, bias], (width,), transB=1)

    def op(self, kind: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        """Any operator of one output."""
        name = self._name("map")
        self.ops.append(Op(kind, inputs, [name], attributes))
        self.shapes[name] = shape
        return name

    def scalar(self, value: float) -> str:
        """A bound."""
        if value not in self._scalars:
            self._scalars[value] = self._constant((value,), ())
        return self._scalars[value]

    def graph(self, output: str, *, opset: int = 18) -> Graph:
        """The network, in the operators of an opset."""
        shapes = {name: (self.batch, *shape) for name, shape in self.shapes.items()}
        return Graph(self.ops, ["input"], [output], shapes | self._constant_shapes, self._constants, opset)

    def _weight(self, *shape: int) -> str:
        return self._constant(None, shape)

    def _sizes(self, *values: int) -> str:
        return self._constant(values, (len(values),))

    def _constant(self, values: tuple[float, ...] | None, shape: Shape) -> str:
        name = self._name("constant")
        self._constants[name], self._constant_shapes[name] = values, shape
        return name

    def _name(self, what: str) -> str:
        self._named += 1
        return f"{what}{self._named}"
