"""MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications.  Howard et al., 2017, arXiv:1704.04861.

The resolution multiplier of Sec. 3.4 is the size of the input: `measure.cost(network, (1, 3, 160, 160))`.

Differs from the paper: Table 1 gives its last depthwise convolution a stride of 2 and a map that stays at 7 x 7; as in
all code, the stride is 1. `mobilenet_v1_relu6` is the released code's network, which timm has: ReLU6 for the paper's
ReLU.
"""

from __future__ import annotations

from typing import Literal

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Classifier, ConvNormAct, DepthwiseSeparable
from convsmith.zoo.variant import PYTORCHCV, TIMM, About, Variant


def mobilenet_v1(
    *, width_multiplier: float = 1.0, act: Literal["relu", "relu6"] = "relu", num_classes: int = 1000
) -> Architecture:
    """Table 1; the width multiplier (alpha) scales every layer, as in the released code to no less than 8 channels."""

    def width(channels: int) -> int:
        return max(8, int(channels * width_multiplier))

    def row(channels: int, stride: int, repeats: int = 1) -> list[BlockSpec]:
        return [spec(DepthwiseSeparable, width(channels), stride=stride, act=act)] * repeats

    return Architecture(
        stem=[spec(ConvNormAct, width(32), stride=2, act=act)],
        stages=[
            row(64, 1),
            row(128, 2) + row(128, 1),
            row(256, 2) + row(256, 1),
            row(512, 2) + row(512, 1, repeats=5),
            row(1024, 2) + row(1024, 1),
        ],
        head=spec(Classifier, num_classes),
    )


ABOUT = About(
    row=11,
    year=2017,
    topic="Tensor decomposition: depthwise convolution + 1 x 1",
    use="Only where a device supports none of the other components.",
)


# fmt: off
def _row(name: str, width_multiplier: float, params: int, macs: int, peer: str) -> Variant:
    arguments = {"width_multiplier": width_multiplier}
    return Variant(name, mobilenet_v1, params, macs, 224, PYTORCHCV, peer, arguments)


VARIANTS = (
    #    name                 alpha     params         MACs   peer
    _row("mobilenet_v1",       1.00, 4_231_976, 568_740_352, "mobilenet_w1"),
    _row("mobilenet_v1_x0_75", 0.75, 2_585_560, 325_400_448, "mobilenet_w3d4"),
    _row("mobilenet_v1_x0_5",  0.50, 1_331_592, 149_497_088, "mobilenet_wd2"),
    _row("mobilenet_v1_x0_25", 0.25,   470_072,  41_030_272, "mobilenet_wd4"),
    Variant("mobilenet_v1_relu6", mobilenet_v1, 4_231_976, 568_740_352, 224, TIMM, "mobilenetv1_100", {"act": "relu6"}),
)
# fmt: on
