"""ResNeXt: Aggregated Residual Transformations for Deep Neural Networks.  Xie et al., CVPR 2017, arXiv:1611.05431.

The networks for ImageNet are those of Table 1, the `_cifar` ones the 29-layer networks of Sec. 5.2, with three stages.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Bottleneck, Classifier, ConvNormAct, MaxPool
from convsmith.zoo.variant import PYTORCHCV, TIMM, TORCHVISION, About, Variant


def resnext(
    *, depths: tuple[int, ...], cardinality: int, width: int, for_cifar: bool = False, num_classes: int = 1000
) -> Architecture:
    """Table 1: `cardinality` groups (C) of `width` channels each (d) in the 3 x 3 convolution of the first stage.

    The number of groups stays, their width doubles with each stage. For CIFAR the stem is a 3 x 3 convolution.
    """

    def stage(channels: int, repeats: int, stride: int) -> list[BlockSpec]:
        unit = spec(Bottleneck, channels, groups=cardinality, hidden_channels=cardinality * width * channels // 256)
        return [unit.replace(stride=stride), *[unit] * (repeats - 1)]

    full = [spec(ConvNormAct, 64, kernel_size=7, stride=2), spec(MaxPool, kernel_size=3, stride=2)]
    return Architecture(
        stem=[spec(ConvNormAct, 64)] if for_cifar else full,
        stages=[stage(256 * 2**i, repeats, 1 if i == 0 else 2) for i, repeats in enumerate(depths)],
        head=spec(Classifier, num_classes),
    )


def resnext_cifar(*, cardinality: int, width: int, num_classes: int = 10) -> Architecture:
    """Sec. 5.2: 29 layers, three stages of three bottlenecks at 32, 16 and 8 pixels."""
    return resnext(depths=(3, 3, 3), cardinality=cardinality, width=width, for_cifar=True, num_classes=num_classes)


ABOUT = About(
    row=7,
    year=2017,
    topic="Tensor decomposition: 1 x 1 + grouped convolution + 1 x 1",
    use="For competitions (with squeeze-and-excitation) and liveness detection.",
)


# fmt: off
def _row(name: str, depths: tuple[int, ...], c: int, d: int, params: int, macs: int, source: str) -> Variant:
    arguments = {"depths": depths, "cardinality": c, "width": d}
    return Variant(name, resnext, params, macs, 224, source, None, arguments)


def _cifar(name: str, c: int, d: int, params: int, macs: int, source: str, peer: str | None = None) -> Variant:
    return Variant(name, resnext_cifar, params, macs, 32, source, peer, {"cardinality": c, "width": d})


VARIANTS = (
    #    name               depths          C   d      params            MACs  source
    _row("resnext50_32x4d",  (3, 4, 6, 3),  32,  4, 25_028_904,  4_230_479_872, TORCHVISION),
    _row("resnext101_32x4d", (3, 4, 23, 3), 32,  4, 44_177_704,  7_969_996_800, TIMM),
    _row("resnext101_32x8d", (3, 4, 23, 3), 32,  8, 88_791_336, 16_414_015_488, TORCHVISION),
    _row("resnext101_64x4d", (3, 4, 23, 3), 64,  4, 83_455_272, 15_460_270_080, TORCHVISION),
    _cifar("resnext29_8x64d_cifar",          8, 64, 34_426_698,  5_387_266_048, PYTORCHCV),
    _cifar("resnext29_16x64d_cifar",        16, 64, 68_155_210, 10_688_866_304, PYTORCHCV, "resnext29_16x64d_cifar10"),
)
# fmt: on
