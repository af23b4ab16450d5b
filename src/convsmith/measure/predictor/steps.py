"""Single steps of random networks: operators and small groups of them, as no family has them together."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import TypeAlias

from convsmith.measure.predictor.writer import Writer

Motif: TypeAlias = Callable[[Writer, str, str], str]  # of the network, the map and the activation: the next map

ACTS = ("relu", "relu", "relu", "relu6", "relu6", "silu", "hard_swish", "sigmoid", "identity")
KERNELS = ((1, 1), (1, 1), (3, 3), (3, 3), (3, 3), (5, 5), (7, 7), (1, 7), (7, 1), (1, 3), (3, 1))


POWERS_SHARE = 0.2  # of the networks: those whose widths are powers of two


def power_of_two(width: float) -> int:
    """The nearest one."""
    return int(2 ** round(math.log2(width)))


class Sizes:
    """How wide maps are in one network: an alignment, or powers of two, and a width that stages multiply.

    Powers of two are common, and pixels that lie so far apart share few sets of a cache.
    """

    def __init__(self, rng: Random, side: int, wider: float = 1.0):
        self.rng = rng
        self.align = rng.choice((1, 2, 4, 8, 8, 16, 16, 32))
        self.powers = rng.random() < POWERS_SHARE
        # Small maps are wide where the stages of a network end: few pixels for many weights.
        self.width = wider * math.exp(rng.uniform(math.log(8), math.log(128 if side > 64 else 256)))

    def near(self, width: float) -> int:
        """A width close to this one, nearly always of the network's alignment."""
        if self.powers:
            return power_of_two(max(4, width))
        align = self.align if self.rng.random() < 0.9 else self.rng.choice((1, 2, 4, 8, 16))
        return max(align, round(width / align) * align)

    def some(self) -> int:
        """A width of the network's kind."""
        return self.near(min(self.width * math.exp(self.rng.uniform(-0.7, 0.7)), 2048))

    def groups(self, channels: int, width: int) -> int:
        """A number of groups that both divide: a few, or of 2 to 128 channels each; whole blocks of 16 being likely."""
        few, size = self.rng.choice((2, 2, 3, 4, 8)), self.rng.choice((2, 4, 8, 16, 16, 32, 32, 64, 128))
        wanted = few if self.rng.random() < 0.4 else channels / size
        options = [g for g in range(2, channels) if channels % g == 0 and width % g == 0]
        if self.rng.random() < 0.4:
            options = [g for g in options if channels // g % 16 == width // g % 16 == 0] or options
        return min(options, key=lambda g: abs(math.log(g / wanted))) if options and wanted > 1 else 1


def _convolution(w: Writer, x: str, rng: Random, sizes: Sizes) -> str:
    kernel, way, width = rng.choice(KERNELS), rng.random(), sizes.some()
    channels = w.shapes[x][0]
    if max(kernel) > 1 and way < 0.4:
        return w.act(w.conv(x, channels, kernel, groups=channels), rng.choice(ACTS))
    groups = sizes.groups(channels, width) if way > 0.85 else 1
    dilation = 2 if rng.random() < 0.04 else 1
    return w.act(w.conv(x, width, kernel, groups=groups, dilation=dilation), rng.choice(ACTS))


def _residual(w: Writer, x: str, rng: Random, sizes: Sizes) -> str:
    y = _convolution(w, x, rng, sizes)
    y = w.conv(y, w.shapes[x][0], rng.choice(((1, 1), (3, 3))))
    y = w.act(y, rng.choice(("identity", "identity", "relu")))
    return w.act(w.add(*rng.sample((x, y), 2)), rng.choice(("identity", "relu", "relu", "silu")))


def squeeze(w: Writer, x: str, rng: Random, sizes: Sizes) -> str:
    """Squeeze-and-excitation by a random ratio."""
    inner = max(2, w.shapes[x][0] // rng.choice((4, 8, 16)))
    y = w.act(w.conv(w.global_pool(x), inner), rng.choice(("relu", "silu")))
    y = w.act(w.conv(y, w.shapes[x][0]), rng.choice(("sigmoid", "hard_sigmoid")))
    return w.mul(*rng.sample((x, y), 2)) if rng.random() < 0.5 else w.mul(x, y)


def _branches(w: Writer, x: str, rng: Random, sizes: Sizes) -> str:
    parts = [_convolution(w, x, rng, sizes) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.5:
        parts.append(pooled(w, x, rng, sizes))
    if rng.random() < 0.4 or len(parts) == 1:
        parts.append(x)
    return w.concat(parts)


def _halves(w: Writer, x: str, rng: Random, sizes: Sizes) -> str:
    channels = w.shapes[x][0]
    if channels < 8:
        return x
    kept, y = w.split(x, channels // 2 if rng.random() < 0.8 else rng.randint(1, channels - 1))
    y = w.concat([kept, _convolution(w, y, rng, sizes)])
    return w.shuffle(y, 2) if w.shapes[y][0] % 2 == 0 and rng.random() < 0.3 else y


def _pre_norm(w: Writer, x: str, rng: Random, sizes: Sizes) -> str:
    return _convolution(w, w.act(w.norm(x), rng.choice(ACTS)), rng, sizes)


def pooled(w: Writer, x: str, rng: Random, sizes: Sizes) -> str:
    """A pooling that keeps the map's size."""
    return w.pool(x, rng.choice(("MaxPool", "AveragePool")), rng.choice((3, 3, 5)), 1, padded=rng.random() < 0.5)


def _grouped(w: Writer, x: str, rng: Random, sizes: Sizes) -> str:
    channels = w.shapes[x][0]
    groups = sizes.groups(channels, channels)
    kernel = rng.choice((1, 1, 3))
    y = w.act(w.conv(x, channels, (kernel, kernel), groups=groups), rng.choice(ACTS))
    return w.shuffle(y, groups) if groups > 1 else y


def _rare(w: Writer, x: str, rng: Random, sizes: Sizes) -> str:
    """What few networks have: other activations, norms over channels or unfolded, dilated depthwise convolutions."""
    way = rng.random()
    if way < 0.4:
        return w.act(x, rng.choice(("tanh", "leaky_relu", "hard_sigmoid")))
    if way < 0.6:
        return w.response_norm(x, 5)
    channels, kernel = w.shapes[x][0], rng.choice((3, 5))
    if way < 0.8:
        return w.conv(x, channels, (kernel, kernel), groups=channels, dilation=2)
    return w.act(w.norm(w.conv(x, sizes.some(), (kernel, kernel), bias=False)), rng.choice(ACTS))


STEPS: tuple[Callable[[Writer, str, Random, Sizes], str], ...] = (
    *(_convolution,) * 6, *(_residual,) * 3, *(squeeze,) * 2, *(_branches,) * 2, _halves, _pre_norm, pooled,
    *(_grouped,) * 2, _rare,
)  # fmt: skip
