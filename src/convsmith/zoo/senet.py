"""SENet: Squeeze-and-Excitation Networks.  Hu, Shen & Sun, CVPR 2018, arXiv:1709.01507.

The networks are those of the authors' Caffe models, as timm has them (`legacy_*`): the stride of a bottleneck of
SE-ResNet stands in its first 1 x 1 convolution, that of the others in the 3 x 3; squeezed are 1/16 of the channels; no
norm stands in the squeeze-and-excitation (`se_norm` of `Bottleneck` puts one there, `se_position` moves the gate).

Two sources disagree: the max pooling has no padding in Caffe and timm, whose last window may reach over the edge, and
a padding of 1 in pytorchcv, so that pytorchcv's outputs differ though weights of these shapes fit.
"""

from __future__ import annotations

from typing import Literal

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Bottleneck, Classifier, ConvNormAct, MaxPool, SENetBottleneck
from convsmith.zoo.variant import TIMM, About, Variant

Depths = tuple[int, int, int, int]
SE_RATIO = 1 / 16
POOL = spec(MaxPool, kernel_size=3, stride=2, padding=0, ceil_mode=True)


def se_resnet(
    *,
    depths: Depths,
    cardinality: int = 1,
    width: int = 64,
    stride_in: Literal["1x1", "3x3"] = "1x1",
    num_classes: int = 1000,
) -> Architecture:
    """Table 1: ResNet or, with `cardinality` groups of `width` channels in the first stage, ResNeXt; all units gated."""

    def stage(channels: int, repeats: int, stride: int) -> list[BlockSpec]:
        hidden = cardinality * width * channels // 256
        unit = spec(Bottleneck, channels, groups=cardinality, stride_in=stride_in, se_ratio=SE_RATIO)
        unit = unit.replace(hidden_channels=hidden)
        return [unit.replace(stride=stride), *[unit] * (repeats - 1)]

    return Architecture(
        stem=[spec(ConvNormAct, 64, kernel_size=7, stride=2), POOL],
        stages=[stage(256 * 2**i, repeats, 1 if i == 0 else 2) for i, repeats in enumerate(depths)],
        head=spec(Classifier, num_classes),
    )


def senet154(*, num_classes: int = 1000) -> Architecture:
    """Appendix: a ResNeXt-152 of 64 groups of 4 channels with half of the first 1 x 1 convolution's channels.

    The stem is three 3 x 3 convolutions, projections behind the first stage are 3 x 3, the head drops 0.2.
    """

    def stage(channels: int, repeats: int, stride: int) -> list[BlockSpec]:
        unit = spec(SENetBottleneck, channels, groups=64, se_ratio=SE_RATIO)
        first = unit.replace(stride=stride, shortcut_kernel_size=1 if stride == 1 else 3)
        return [first, *[unit] * (repeats - 1)]

    return Architecture(
        stem=[spec(ConvNormAct, 64, stride=2), spec(ConvNormAct, 64), spec(ConvNormAct, 128), POOL],
        stages=[stage(256, 3, 1), stage(512, 8, 2), stage(1024, 36, 2), stage(2048, 3, 2)],
        head=spec(Classifier, num_classes, dropout=0.2),
    )


ABOUT = About(
    row=29,
    year=2018,
    topic="Attention blocks: channel attention",
    use="Recommended; whether a norm belongs into it is left open.",
)


# fmt: off
def _row(name: str, depths: Depths, c: int, d: int, stride_in: str, params: int, macs: int) -> Variant:
    arguments = {"depths": depths, "cardinality": c, "width": d, "stride_in": stride_in}
    return Variant(name, se_resnet, params, macs, 224, TIMM, "legacy_" + name.replace("se_res", "seres"), arguments)


VARIANTS = (
    #    name                  depths          C   d   stride      params            MACs
    _row("se_resnet50",           (3, 4,  6, 3),  1, 64, "1x1",  28_088_024,  3_860_488_192),
    _row("se_resnet101",          (3, 4, 23, 3),  1, 64, "1x1",  49_326_872,  7_574_937_600),
    _row("se_resnet152",          (3, 8, 36, 3),  1, 64, "1x1",  66_821_848, 11_288_993_792),
    _row("se_resnext50_32x4d",    (3, 4,  6, 3), 32,  4, "3x3",  27_559_896,  4_232_994_816),
    _row("se_resnext101_32x4d",   (3, 4, 23, 3), 32,  4, "3x3",  48_955_416,  7_974_739_968),
    Variant("senet154", senet154, 115_088_984, 20_688_363_520, 224, TIMM, "legacy_senet154"),
)
# fmt: on
