"""Motifs of grouped convolutions: a few wide groups or many of few channels, and what orders channels between them."""

from __future__ import annotations

import math
from random import Random

from convsmith.measure.predictor.steps import Motif, Sizes, power_of_two
from convsmith.measure.predictor.writer import Writer

GROUP_CHANNELS = (1, 2, 2, 2, 2, 3, 4, 4, 6, 8, 12, 16, 16, 16, 24, 32, 32, 64)  # of many groups
POWERS_SHARE = 0.3  # of many groups' numbers and widths: as such maps make a cache slow whose pixels share its sets
CLASHING = (2e4, 2e5)  # elements of a map of many groups whose pixels share sets
FEW_GROUPS = (2, 3, 4, 4, 8, 8)
ALIGNS = (1, 1, 4, 16)  # of the channels of a group


def interleaved(rng: Random, sizes: Sizes) -> Motif:
    """Convolutions of many groups, and pointwise ones across them: what one leaves apart, the other joins."""
    depth = rng.choice(GROUP_CHANNELS)
    wanted, align = sizes.width * rng.choice((1, 2, 4)) / depth, rng.choice((1, 4, 4, 8, 16, 16))
    groups = max(2, round(wanted / align) * align if wanted > align else round(wanted))
    if sizes.powers or rng.random() < POWERS_SHARE:
        groups, depth = power_of_two(groups), power_of_two(depth)
    width, kernel, biased = groups * depth, rng.choice((3, 3, 3, 5, 1)), rng.random() < 0.3
    convolutions, restored, adds = rng.choice((1, 1, 2)), rng.random() < 0.6, rng.random() < 0.6
    across = depth if rng.random() < 0.8 else 1

    def apply(w: Writer, x: str, act: str) -> str:
        y = x if w.shapes[x][0] % groups == 0 else w.act(w.conv(x, width), act)
        for n in range(convolutions):
            y = w.act(y, act) if n else y
            y = w.conv(y, width, (kernel, kernel), groups=groups, bias=biased)
            y = w.conv(w.shuffle(y, groups), width, groups=across)
            y = w.shuffle(y, across) if restored and across > 1 else y
        if adds:
            shared = groups if w.shapes[x][0] % groups == 0 else 1
            y = w.add(y, x if w.shapes[x][0] == width else w.conv(x, width, groups=shared))
        return w.act(y, act)

    return apply


def clashing(rng: Random, sizes: Sizes) -> Motif:
    """Convolutions of groups of few channels on maps whose pixels lie a power of two apart, and pointwise ones."""
    depth, kernel, biased = rng.choice((2, 2, 2, 4, 8)), rng.choice((3, 3, 5)), rng.random() < 0.3
    elements, pointwise = math.exp(rng.uniform(*map(math.log, CLASHING))), rng.random() < 0.5

    def apply(w: Writer, x: str, act: str) -> str:
        channels, height, across = w.shapes[x]
        width = min(max(power_of_two(elements / height / across), 128), 1024)
        y = x if channels == width else w.act(w.conv(x, width), act)
        y = w.conv(y, width, (kernel, kernel), groups=width // depth, bias=biased)
        y = w.conv(w.act(y, act), width, groups=1 if pointwise else depth)
        return w.act(w.add(x, y) if channels == width else y, act)

    return apply


def shuffled(rng: Random, sizes: Sizes) -> Motif:
    """A bottleneck of grouped pointwise convolutions with a depthwise one between, behind a shuffle."""
    groups, align = rng.choice(FEW_GROUPS), rng.choice(ALIGNS)
    width = _multiple(sizes.width * rng.choice((1, 2, 4)), groups, align)
    inner, kernel = _multiple(width / rng.choice((1, 2, 4, 4)), groups, align), rng.choice((3, 3, 5))

    def apply(w: Writer, x: str, act: str) -> str:
        x = x if w.shapes[x][0] == width else w.act(w.conv(x, width), act)
        y = w.act(w.conv(x, inner, groups=groups), act)
        y = w.conv(w.shuffle(y, groups), inner, (kernel, kernel), groups=inner)
        return w.act(w.add(x, w.conv(y, width, groups=groups)), act)

    return apply


def condensed(rng: Random, sizes: Sizes) -> Motif:
    """A dense layer of grouped convolutions behind a norm, the first of channels that are chosen one by one."""
    groups, chosen, mixed = rng.choice(FEW_GROUPS), rng.random() < 0.5, rng.random() < 0.6
    growth = _multiple(sizes.width * rng.choice((0.25, 0.5, 0.5)), groups, rng.choice(ALIGNS))
    narrow = rng.choice((1, 2, 4, 4))

    def apply(w: Writer, x: str, act: str) -> str:
        channels = w.shapes[x][0]
        if channels % groups:
            x, channels = w.conv(x, channels + -channels % groups), channels + -channels % groups
        y = w.choose(x, rng.sample(range(channels), channels)) if chosen else x
        y = w.conv(w.act(w.norm(y), act), narrow * growth, groups=groups)
        y = w.act(w.shuffle(y, groups) if mixed else y, act)
        return w.concat([x, w.conv(y, growth, (3, 3), groups=groups, bias=False)])

    return apply


def _multiple(width: float, groups: int, align: int) -> int:
    """The nearest width of groups of `align` channels each, or of a multiple."""
    return max(1, round(width / groups / align)) * align * groups
