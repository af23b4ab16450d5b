"""G1 and G2 of ShuffleNet v2 (Ma et al. 2018, arXiv:1807.11164, Sec. 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from convsmith.arch import Architecture, BlockSpec
from convsmith.measure.advice.case import Case, Convolution, fits
from convsmith.measure.advice.edits import at_equal_macs, block_of, changed, multiple
from convsmith.measure.advice.finding import GUIDELINES, Finding

UNEQUAL = 2.0  # the first ratio of widths beside 1 that the paper measures (Table 1)


def equal_widths(case: Case) -> Iterator[Finding]:
    """G1: of pointwise convolutions with equal MACs the one with equal widths moves the least memory."""
    unequal = [c for c in case.convolutions if c.is_pointwise and c.layer.groups == 1 and _width_ratio(c) >= UNEQUAL]
    unequal = [c for c in unequal if min(_positions(c), 2) > 1]  # a single position is a fully connected layer
    if not unequal:
        return
    moved = sum(_traffic(c) for c in unequal)
    least = sum(_bound(c) for c in unequal)
    yield Finding(
        rule="G1",
        where=tuple(c.path for c in unequal),
        value=moved / least,
        unit="times the memory traffic of equal widths at the same MACs",
        reason=f"a pointwise convolution of c1 to c2 channels moves hw(c1 + c2) + c1 c2 elements, at fixed MACs the "
        f"least for c1 = c2 ({GUIDELINES}, G1)",
        edit="give the inner convolutions the width of their block, and all blocks the width that keeps the MACs",
        architecture=_equal(case),
    )


def few_groups(case: Case) -> Iterator[Finding]:
    """G2: group convolution moves more memory for its MACs; depthwise convolution is another matter."""
    grouped = [c for c in case.convolutions if c.layer.groups > 1 and not c.is_depthwise]
    if not grouped:
        return
    yield Finding(
        rule="G2",
        where=tuple(c.path for c in grouped),
        value=sum(_traffic(c) for c in grouped) / sum(_ungrouped_traffic(c) for c in grouped),
        unit="times the memory traffic of convolutions without groups at the same MACs",
        reason=f"at fixed MACs the memory traffic of a convolution grows with its groups, here up to "
        f"{max(c.layer.groups for c in grouped)} ({GUIDELINES}, G2)",
        edit="take fewer groups, and so many fewer inner channels that the MACs stay",
        architecture=_ungrouped(case, {c.path for c in grouped}),
    )


def _positions(c: Convolution) -> int:
    return math.prod(c.counts.output[2:]) if isinstance(c.counts.output, tuple) else 0


def _width_ratio(c: Convolution) -> float:
    widths = (c.layer.in_channels, c.layer.out_channels)
    return max(widths) / min(widths)


def _traffic(c: Convolution) -> float:
    """Elements of one call on one image, without bias: g of the formula with groups, at the stride's positions."""
    c1, c2, hw = c.layer.in_channels, c.layer.out_channels, _positions(c)
    return hw * (c1 + c2) + c1 * c2 * math.prod(c.layer.kernel_size) / c.layer.groups


def _bound(c: Convolution) -> float:
    hw = _positions(c)
    macs = hw * c.layer.in_channels * c.layer.out_channels
    return 2 * math.sqrt(hw * macs) + macs / hw


def _ungrouped_traffic(c: Convolution) -> float:
    """With one group and inputs as they are, the outputs that give the same MACs."""
    c1, hw = c.layer.in_channels, _positions(c)
    c2 = c.layer.out_channels / c.layer.groups
    return hw * (c1 + c2) + c1 * c2 * math.prod(c.layer.kernel_size)


def _equal(case: Case) -> Architecture | None:
    """Every block of the stages at one width, inside and out, scaled alike so that the MACs are the original's."""
    architecture = case.architecture
    if architecture is None:
        return None
    widths = {
        path
        for path, spec in architecture.blocks()
        if path.startswith("stages.") and spec.has("hidden_channels") and spec.has("out_channels")
    }
    if not widths:
        return None

    def make(scale: float) -> Architecture:
        def change(path: str, spec: BlockSpec) -> BlockSpec:
            if path not in widths:
                return spec
            width = multiple(scale * spec.get("out_channels"))
            return spec.replace(out_channels=width, hidden_channels=width)

        return changed(architecture, change)

    return at_equal_macs(architecture, case.input_shape, make)


def _ungrouped(case: Case, paths: set[str]) -> Architecture | None:
    architecture = case.architecture
    if architecture is None:
        return None
    blocks = {block_of(path, architecture) for path in paths}
    inner = {
        path: layer.out_channels
        for path, spec in architecture.blocks()
        if path in blocks and spec.get("groups", 1) > 1
        for layer in [_first_grouped(case, path, paths)]
    }
    if not inner:
        return None

    def make(scale: float) -> Architecture:
        def change(path: str, spec: BlockSpec) -> BlockSpec:
            if path not in inner:
                return spec
            narrower = {"hidden_channels": multiple(scale * inner[path])} if spec.has("hidden_channels") else {}
            return spec.replace(groups=1, **narrower)

        return changed(architecture, change)

    if any(spec.has("hidden_channels") for path, spec in architecture.blocks() if path in inner):
        return at_equal_macs(architecture, case.input_shape, make)
    return make(1.0) if fits(make(1.0), case.input_shape) else None


def _first_grouped(case: Case, block: str, paths: set[str]) -> nn.Conv2d:
    return next(
        c.layer for c in case.convolutions if c.path in paths and (c.path == block or c.path.startswith(f"{block}."))
    )
