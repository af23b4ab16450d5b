"""How random networks halve their maps."""

from __future__ import annotations

from random import Random

from convsmith.measure.predictor.steps import ACTS, Sizes
from convsmith.measure.predictor.writer import Writer


def down(w: Writer, x: str, rng: Random, sizes: Sizes) -> str:
    """A map of half the height and width, by one of the ways that networks have."""
    channels = w.shapes[x][0]
    width = sizes.near(min(channels * rng.choice((1, 1.5, 2)), 2048))
    return rng.choice(WAYS)(w, x, width, rng, sizes)


def _pooled(w: Writer, x: str, width: int, rng: Random, sizes: Sizes) -> str:
    kind, kernel = rng.choice(("MaxPool", "AveragePool")), rng.choice((2, 3))
    return w.pool(x, kind, kernel, 2, ceil=rng.random() < 0.2, padded=rng.random() < 0.5)


def _depthwise(w: Writer, x: str, width: int, rng: Random, sizes: Sizes) -> str:
    kernel = rng.choice((3, 3, 3, 5, 7))
    y = w.conv(x, w.shapes[x][0], (kernel, kernel), stride=2, groups=w.shapes[x][0])
    return w.act(w.conv(w.act(y, rng.choice(ACTS)), width), rng.choice(ACTS))


def _full(w: Writer, x: str, width: int, rng: Random, sizes: Sizes) -> str:
    kernel = rng.choice((1, 3, 3, 5))
    return w.act(w.conv(x, width, (kernel, kernel), stride=2), rng.choice(ACTS))


def _grouped(w: Writer, x: str, width: int, rng: Random, sizes: Sizes) -> str:
    channels, kernel = w.shapes[x][0], rng.choice((1, 3, 3))
    width, groups = channels * rng.choice((1, 2)), channels if rng.random() < 0.2 else sizes.groups(channels, channels)
    y = w.conv(x, width, (kernel, kernel), stride=2, groups=groups, bias=rng.random() < 0.5)
    return w.act(y, rng.choice(ACTS))


def _with_shortcut(w: Writer, x: str, width: int, rng: Random, sizes: Sizes) -> str:
    y = w.act(w.conv(x, width, (3, 3), stride=2), rng.choice(ACTS))
    y, short = w.conv(y, width, (3, 3)), w.conv(x, width, stride=2)
    return w.act(w.add(*rng.sample((y, short), 2)), rng.choice(ACTS))


def _branches(w: Writer, x: str, width: int, rng: Random, sizes: Sizes) -> str:
    pool, act = w.pool(x, rng.choice(("MaxPool", "AveragePool")), 3, 2, padded=rng.random() < 0.5), rng.choice(ACTS)
    if rng.random() < 0.5:
        return w.concat([w.act(w.conv(x, width, (3, 3), stride=2), act), pool])
    inner = sizes.near(width / 4)
    y = w.conv(w.act(w.conv(x, inner), act), inner, (3, 3), stride=2, groups=inner)
    return w.act(w.concat([pool, w.conv(y, width, groups=sizes.groups(inner, width))]), act)


def _cropped(w: Writer, x: str, width: int, rng: Random, sizes: Sizes) -> str:
    """Two pointwise convolutions of every other pixel, the second one pixel further (in cells)."""
    padded, half = rng.random() < 0.3, max(1, width // 2)
    if w.shapes[x][1] % 2 and not padded:
        x = w.pool(x, "MaxPool", 2, 1)  # an even size, of which both see as many pixels
    further = w.crop(w.pad(x) if padded else x)
    return w.concat([w.conv(x, half, stride=2), w.conv(further, half, stride=2)])


WAYS = (
    *(_pooled,) * 5, *(_depthwise,) * 6, *(_full,) * 6, *(_grouped,) * 3, _with_shortcut, *(_branches,) * 2,
    *(_cropped,) * 2,
)  # fmt: skip
