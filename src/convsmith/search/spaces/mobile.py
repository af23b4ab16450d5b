"""A space of mobile networks around MobileNetV2.

MnasNet: Platform-Aware Neural Architecture Search for Mobile.  Tan, Chen, Pang, Vasudevan, Sandler, Howard & Le,
CVPR 2019, arXiv:1807.11626, Sec. 4.1 (decisions per stage, relative to MobileNetV2's depths and widths).

Differs from the paper: the block is always an inverted residual, whose expansion is searched instead; kernels of 7 are
offered too, and every residual is kept.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, choice, spec
from convsmith.nn import Classifier, ConvNormAct, InvertedResidual, round_channels
from convsmith.search.spaces.sizing import halvings

# fmt: off
ROWS = (  # Table 2 of MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381); the first row's t of 1 is not searched
    #  c  n  s
    ( 16, 1, 1),
    ( 24, 2, 2),
    ( 32, 3, 2),
    ( 64, 4, 2),
    ( 96, 3, 1),
    (160, 3, 2),
    (320, 1, 1),
)
# fmt: on


def mobile(
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    input_size: int = 224,
    width_multipliers: tuple[float, ...] = (0.75, 1.0, 1.25),
    kernel_sizes: tuple[int, ...] = (3, 5, 7),
    expansions: tuple[float, ...] = (3.0, 6.0),
) -> Architecture:
    """Width, depth (one block more or less), kernel size, expansion and squeeze-and-excitation of each stage.

    MobileNetV2 is one of the networks. Inputs below 128 x 128 lose the first strides, so many that the last map has
    at least 4 x 4 pixels. Widths are rounded to multiples of 8, as MobileNetV2's; multipliers that round to the same
    width are one option. With the default options the stages have 12, 72, 108, 108, 108, 108 and 72 forms, 8.5e12
    networks in all.
    """
    kept = halvings(input_size)
    strides = [2, *(s for _, _, s in ROWS)]  # the stem's first
    for i, stride in enumerate(strides):
        strides[i] = stride if strides[i:].count(2) <= kept else 1

    def row(number: int, c: int, n: int, s: int) -> list[BlockSpec]:
        def of_stage(what: str) -> str:
            return f"stage{number}_{what}"

        widths = dict.fromkeys(round_channels(c * multiplier) for multiplier in width_multipliers)

        def block(stride: int) -> BlockSpec:
            return spec(
                InvertedResidual,
                choice(*widths, name=of_stage("width")),
                stride=stride,
                kernel_size=choice(*kernel_sizes, name=of_stage("kernel_size")),
                expansion=1.0 if number == 1 else choice(*expansions, name=of_stage("expansion")),
                se_ratio=choice(0.0, 0.25, name=of_stage("se_ratio")),
            )

        if number == 1:
            return [block(s)]
        repeats = [(block(1),) * (depth - 1) for depth in (n - 1, n, n + 1) if depth]
        return [block(s), choice(*repeats, name=of_stage("depth"))]  # type: ignore[list-item]

    return Architecture(
        name="mobile",
        in_channels=in_channels,
        stem=[spec(ConvNormAct, 32, stride=strides[0], act="relu6")],
        stages=[row(i, c, n, strides[i]) for i, (c, n, _) in enumerate(ROWS, start=1)],
        neck=[spec(ConvNormAct, 1280, kernel_size=1, act="relu6")],
        head=spec(Classifier, num_classes, dropout=0.2),
    )
