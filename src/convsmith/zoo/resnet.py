"""ResNet: Deep Residual Learning for Image Recognition.  He, Zhang, Ren & Sun, CVPR 2016, arXiv:1512.03385.

Differs from the paper: the unmarked forms have the stride of a bottleneck in its 3 x 3 convolution, as torchvision
("v1.5"); the `_v1` forms have it in the first 1 x 1 convolution, as the paper. ResNet-200 is the post-activation form
of Table 1's pattern, as pytorchcv and timm build it. The `_cifar` networks have projections where the width changes,
as pytorchcv's; the paper pads with zeros there, which saves 2,752 params.
"""

from __future__ import annotations

from typing import Literal

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import BasicBlock, Bottleneck, Classifier, ConvNormAct, MaxPool
from convsmith.zoo.variant import PYTORCHCV, TIMM, TORCHVISION, About, Variant

Depths = tuple[int, int, int, int]


def resnet(
    *,
    block: type[BasicBlock] | type[Bottleneck],
    depths: Depths,
    stride_in: Literal["1x1", "3x3"] = "3x3",
    num_classes: int = 1000,
) -> Architecture:
    """Table 1: stages of 64, 128, 256, 512 channels, times 4 for bottlenecks."""

    def stage(channels: int, repeats: int, stride: int) -> list[BlockSpec]:
        def unit(stride: int) -> BlockSpec:
            if block is BasicBlock:
                return spec(BasicBlock, channels, stride=stride)
            return spec(Bottleneck, channels * 4, stride=stride, stride_in=stride_in)

        return [unit(stride), *(unit(1) for _ in range(repeats - 1))]

    return Architecture(
        stem=[spec(ConvNormAct, 64, kernel_size=7, stride=2), spec(MaxPool, kernel_size=3, stride=2)],
        stages=[
            stage(64, depths[0], 1),
            stage(128, depths[1], 2),
            stage(256, depths[2], 2),
            stage(512, depths[3], 2),
        ],
        head=spec(Classifier, num_classes),
    )


def resnet_cifar(*, depth: int, num_classes: int = 10) -> Architecture:
    """Sec. 4.2: 6n + 2 layers, n basic blocks of 16, 32 and 64 channels each at 32, 16 and 8 pixels."""
    repeats, rest = divmod(depth - 2, 6)
    if rest or repeats < 1:
        raise ValueError(f"the depth of a ResNet for CIFAR must be 6n + 2, got {depth}; take 20, 32, 44, 56 or 110")

    def stage(channels: int, stride: int) -> list[BlockSpec]:
        return [spec(BasicBlock, channels, stride=stride), *[spec(BasicBlock, channels)] * (repeats - 1)]

    return Architecture(
        stem=[spec(ConvNormAct, 16)],
        stages=[stage(16, 1), stage(32, 2), stage(64, 2)],
        head=spec(Classifier, num_classes),
    )


# fmt: off
Block = type[BasicBlock] | type[Bottleneck]


def _row(name: str, block: Block, depths: Depths, stride_in: Literal["1x1", "3x3"],
         params: int, macs: int, source: str, peer: str | None = None) -> Variant:
    arguments = {"block": block, "depths": depths, "stride_in": stride_in}
    return Variant(name, resnet, params, macs, 224, source, peer, arguments)


def _cifar(name: str, depth: int, params: int, macs: int, peer: str) -> Variant:
    return Variant(name, resnet_cifar, params, macs, 32, PYTORCHCV, peer, {"depth": depth})


ABOUT = About(
    row=2,
    year=2016,
    topic="Tensor decomposition: 1 x 1 + K x K + 1 x 1",
    use="Shortcuts matter: every later network for a hard task has them.",
)

VARIANTS = (
    #    name            block       depths         stride      params            MACs  source
    _row("resnet18",        BasicBlock, (2, 2,  2, 2), "3x3",  11_689_512,   1_814_073_344, TORCHVISION),
    _row("resnet34",        BasicBlock, (3, 4,  6, 3), "3x3",  21_797_672,   3_663_761_408, TORCHVISION),
    _row("resnet50",        Bottleneck, (3, 4,  6, 3), "3x3",  25_557_032,   4_089_184_256, TORCHVISION),
    _row("resnet101",       Bottleneck, (3, 4, 23, 3), "3x3",  44_549_160,   7_801_405_440, TORCHVISION),
    _row("resnet152",       Bottleneck, (3, 8, 36, 3), "3x3",  60_192_808,  11_513_626_624, TORCHVISION),
    _row("resnet200",       Bottleneck, (3, 24, 36, 3), "3x3",  64_673_832,  15_007_481_856, TIMM),
    _row("resnet50_v1",     Bottleneck, (3, 4,  6, 3), "1x1",  25_557_032,   3_857_973_248, PYTORCHCV, "resnet50"),
    _row("resnet101_v1",    Bottleneck, (3, 4, 23, 3), "1x1",  44_549_160,   7_570_194_432, PYTORCHCV, "resnet101"),
    _row("resnet152_v1",    Bottleneck, (3, 8, 36, 3), "1x1",  60_192_808,  11_282_415_616, PYTORCHCV, "resnet152"),
    _row("resnet200_v1",    Bottleneck, (3, 24, 36, 3), "1x1",  64_673_832,  14_776_270_848, PYTORCHCV, "resnet200"),
    _cifar("resnet20_cifar",    20,    272_474,    40_813_184, "resnet20_cifar10"),
    _cifar("resnet56_cifar",    56,    855_770,   125_747_840, "resnet56_cifar10"),
    _cifar("resnet110_cifar",  110,  1_730_714,   253_149_824, "resnet110_cifar10"),
)
# fmt: on
