"""MobileNetV2: Inverted Residuals and Linear Bottlenecks.  Sandler et al., CVPR 2018, arXiv:1801.04381.

Differs from the paper: dropout of 0.2 before the classifier, as in torchvision.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Classifier, ConvNormAct, InvertedResidual, round_channels
from convsmith.zoo.variant import TORCHVISION, About, Variant


def mobilenet_v2(*, width_multiplier: float = 1.0, num_classes: int = 1000) -> Architecture:
    """Table 2; the width multiplier scales every row, the last 1 x 1 convolution only where it exceeds 1."""

    def width(channels: int) -> int:
        return round_channels(channels * width_multiplier)

    def row(t: int, c: int, n: int, s: int) -> list[BlockSpec]:  # the columns of Table 2
        return [spec(InvertedResidual, width(c), expansion=t, stride=s if i == 0 else 1) for i in range(n)]

    return Architecture(
        stem=[spec(ConvNormAct, width(32), stride=2, act="relu6")],
        stages=[
            #   t    c  n  s
            row(1, 16, 1, 1),
            row(6, 24, 2, 2),
            row(6, 32, 3, 2),
            row(6, 64, 4, 2),
            row(6, 96, 3, 1),
            row(6, 160, 3, 2),
            row(6, 320, 1, 1),
        ],
        neck=[spec(ConvNormAct, round_channels(1280 * max(1.0, width_multiplier)), kernel_size=1, act="relu6")],
        head=spec(Classifier, num_classes, dropout=0.2),
    )


ABOUT = About(row=16, year=2018, topic="Inverted bottleneck")


# fmt: off
def _row(name: str, width_multiplier: float, params: int, macs: int) -> Variant:
    return Variant(name, mobilenet_v2, params, macs, 224, TORCHVISION, arguments={"width_multiplier": width_multiplier})


VARIANTS = (
    #    name                 width     params         MACs
    _row("mobilenet_v2",       1.00, 3_504_872, 300_774_272),
    _row("mobilenet_v2_x0_35", 0.35, 1_677_128,  59_285_808),
    _row("mobilenet_v2_x0_5",  0.50, 1_968_680,  97_131_840),
    _row("mobilenet_v2_x0_75", 0.75, 2_636_424, 209_069_792),
    _row("mobilenet_v2_x1_4",  1.40, 6_108_776, 582_195_824),
)
# fmt: on
