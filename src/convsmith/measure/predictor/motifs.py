"""Motifs of random networks: drawn once, then applied with the same numbers each time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from convsmith.measure.predictor.grouped import clashing, condensed, interleaved, shuffled
from convsmith.measure.predictor.steps import Motif, Sizes, pooled, squeeze
from convsmith.measure.predictor.writer import Writer


def _bottleneck(rng: Random, sizes: Sizes) -> Motif:
    width = sizes.some()
    inner = sizes.near(width * rng.choice((0.25, 0.5, 1.0)))
    groups = sizes.groups(inner, inner) if rng.random() < 0.4 else 1
    squeezed = rng.random() < 0.3
    kernel = rng.choice((3, 3, 5))

    def apply(w: Writer, x: str, act: str) -> str:
        y = w.act(w.conv(x, inner), act)
        y = w.act(w.conv(y, inner, (kernel, kernel), groups=groups), act)
        y = w.conv(y, width)
        if squeezed:
            y = squeeze(w, y, rng, sizes)
        short = x if w.shapes[x][0] == width else w.conv(x, width)
        return w.act(w.add(y, short), act)

    return apply


def _basic(rng: Random, sizes: Sizes) -> Motif:
    width, kernel = sizes.some(), rng.choice((3, 5))

    def apply(w: Writer, x: str, act: str) -> str:
        y = w.act(w.conv(x, width, (kernel, kernel)), act)
        y = w.conv(y, width, (kernel, kernel))
        short = x if w.shapes[x][0] == width else w.conv(x, width)
        return w.act(w.add(y, short), act)

    return apply


def _inverted(rng: Random, sizes: Sizes) -> Motif:
    width, expansion = sizes.near(sizes.width), rng.choice((1, 2, 3, 4, 6))
    kernel, squeezed = rng.choice((3, 3, 5, 7)), rng.random() < 0.35

    def apply(w: Writer, x: str, act: str) -> str:
        channels = w.shapes[x][0]
        inner = sizes.near(channels * expansion)
        y = w.act(w.conv(x, inner), act) if inner != channels else x
        y = w.act(w.conv(y, inner, (kernel, kernel), groups=inner), act)
        if squeezed:
            y = squeeze(w, y, rng, sizes)
        y = w.conv(y, width)
        return w.add(y, x) if channels == width else y

    return apply


def _separable(rng: Random, sizes: Sizes) -> Motif:
    width, kernel = sizes.some(), rng.choice((3, 3, 5))
    first = rng.random() < 0.3

    def apply(w: Writer, x: str, act: str) -> str:
        y = w.act(x, "relu") if first else x
        y = w.conv(y, w.shapes[x][0], (kernel, kernel), groups=w.shapes[x][0])
        y = w.conv(y if first else w.act(y, act), width)
        return y if first else w.act(y, act)

    return apply


def _dense(rng: Random, sizes: Sizes) -> Motif:
    growth = sizes.near(rng.choice((12, 24, 32, 48)))
    grouped = rng.random() < 0.2

    def apply(w: Writer, x: str, act: str) -> str:
        inner = 4 * growth
        y = w.conv(w.act(w.norm(x), act), inner)
        y = w.act(y, act)
        y = w.conv(y, growth, (3, 3), groups=sizes.groups(inner, growth) if grouped else 1)
        return w.concat([x, y])

    return apply


def _split_unit(rng: Random, sizes: Sizes) -> Motif:
    kernel, shuffled = rng.choice((3, 3, 5)), rng.random() < 0.4

    def apply(w: Writer, x: str, act: str) -> str:
        channels = w.shapes[x][0]
        if channels % 2:
            x, channels = w.conv(x, channels + 1), channels + 1
        half = channels // 2
        kept, y = w.split(x, half)
        y = w.act(w.conv(y, half), act)
        y = w.conv(y, half, (kernel, kernel), groups=half)
        y = w.concat([kept, w.act(w.conv(y, half), act)])
        return w.shuffle(y, 2) if shuffled else y

    return apply


def _inception(rng: Random, sizes: Sizes) -> Motif:
    widths = [sizes.near(sizes.width * rng.choice((0.25, 0.5, 1.0))) for _ in range(3)]
    inner = sizes.near(sizes.width / 2)
    long = rng.choice(((5, 5), (3, 3), (1, 7)))
    kind, padded = rng.choice(("MaxPool", "AveragePool")), rng.random() < 0.5
    taps: list[tuple[int, int]] = [(1, 3), (3, 1)] if rng.random() < 0.3 else [(3, 3)]

    def apply(w: Writer, x: str, act: str) -> str:
        a = w.act(w.conv(x, widths[0]), act)
        b = w.act(w.conv(x, inner), act)
        b = w.concat([w.act(w.conv(b, widths[1], each), act) for each in taps])
        c = w.act(w.conv(w.act(w.conv(x, inner), act), widths[2], long), act)
        if long == (1, 7):
            c = w.act(w.conv(c, widths[2], (7, 1)), act)
        d = w.act(w.conv(w.pool(x, kind, 3, 1, padded=padded), inner), act)
        return w.concat([a, b, c, d])

    return apply


def _cell(rng: Random, sizes: Sizes) -> Motif:
    """Sums of depthwise convolutions and poolings of earlier maps, side by side."""
    width = sizes.near(sizes.width / 2)
    ways = [(rng.choice((3, 5, 7)), rng.choice((1, 1, 2)), rng.choice((1, 2))) for _ in range(rng.choice((3, 3, 4)))]

    def convolved(w: Writer, y: str, kernel: int, dilation: int, times: int) -> str:
        for _ in range(times if dilation == 1 else 1):
            y = w.conv(w.act(y, "relu"), width, (kernel, kernel), groups=width, dilation=dilation)
            y = w.conv(y, width)
        return y

    def apply(w: Writer, x: str, act: str) -> str:
        h = w.conv(w.act(x, "relu"), width)
        parts = [h]
        for way in ways:
            z = convolved(w, rng.choice(parts), *way)
            other = pooled(w, h, rng, sizes) if rng.random() < 0.5 else h
            parts.append(w.add(z, other))
        return w.concat(parts[1:])

    return apply


def _narrow(rng: Random, sizes: Sizes) -> Motif:
    """Many narrow convolutions of one map, joined."""
    number, kernel, adds = rng.choice((5, 6, 8, 12, 16, 24)), rng.choice((1, 3, 3)), rng.random() < 0.5
    width = max(2, sizes.near(sizes.width * rng.choice((1, 2))) // number)

    def apply(w: Writer, x: str, act: str) -> str:
        y = w.concat([w.act(w.conv(x, width, (kernel, kernel)), act) for _ in range(number)])
        return w.add(y, x) if adds and w.shapes[x] == w.shapes[y] else y

    return apply


MOTIFS: tuple[Callable[[Random, Sizes], Motif], ...] = (
    _bottleneck, *(_basic,) * 2, *(_inverted,) * 3, _separable, _dense, _split_unit, _inception, _cell,
    *(interleaved,) * 2, *(clashing,) * 2, shuffled, condensed, _narrow,
)  # fmt: skip
