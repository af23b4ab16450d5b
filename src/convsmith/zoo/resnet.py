"""ResNet: Deep Residual Learning for Image Recognition.  He, Zhang, Ren & Sun, CVPR 2016, arXiv:1512.03385.

ResNeXt: Aggregated Residual Transformations for Deep Neural Networks.  Xie, Girshick, Dollar, Tu & He, CVPR 2017,
arXiv:1611.05431.

Differs from the paper: the unmarked forms have the stride of a bottleneck in its 3 x 3 convolution, as torchvision
("v1.5"); the `_v1` forms have it in the first 1 x 1 convolution, as the paper. ResNet-200 is the post-activation form
of Table 1's pattern, as pytorchcv and timm build it.
"""

from __future__ import annotations

from typing import Literal

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import BasicBlock, Bottleneck, Classifier, ConvNormAct, MaxPool
from convsmith.zoo.variant import PYTORCHCV, TIMM, TORCHVISION, Variant

Depths = tuple[int, int, int, int]


def resnet(
    *,
    block: type[BasicBlock] | type[Bottleneck],
    depths: Depths,
    width_per_group: int = 64,
    groups: int = 1,
    stride_in: Literal["1x1", "3x3"] = "3x3",
    num_classes: int = 1000,
) -> Architecture:
    """Table 1 of either paper: stages of 64, 128, 256, 512 channels, times 4 for bottlenecks.

    A bottleneck's inner width in the first stage is `width_per_group * groups`: ResNeXt's d and C.
    """

    def stage(channels: int, repeats: int, stride: int) -> list[BlockSpec]:
        def unit(stride: int) -> BlockSpec:
            if block is BasicBlock:
                return spec(BasicBlock, channels, stride=stride)
            ratio = width_per_group * groups / 64 / 4
            return spec(
                Bottleneck, channels * 4, stride=stride, stride_in=stride_in, groups=groups, bottleneck_ratio=ratio
            )

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


# fmt: off
def _row(name: str, block: type[BasicBlock] | type[Bottleneck], depths: Depths, d: int, c: int,
         stride_in: Literal["1x1", "3x3"], params: int, macs: int, source: str, peer: str | None = None) -> Variant:
    arguments = {"block": block, "depths": depths, "width_per_group": d, "groups": c, "stride_in": stride_in}
    return Variant(name, resnet, params, macs, 224, source, peer, arguments)


VARIANTS = (
    #    name               block       depths           d    C   stride      params             MACs  source
    _row("resnet18",        BasicBlock, (2, 2,  2, 2),  64,   1, "3x3",  11_689_512,   1_814_073_344, TORCHVISION),
    _row("resnet34",        BasicBlock, (3, 4,  6, 3),  64,   1, "3x3",  21_797_672,   3_663_761_408, TORCHVISION),
    _row("resnet50",        Bottleneck, (3, 4,  6, 3),  64,   1, "3x3",  25_557_032,   4_089_184_256, TORCHVISION),
    _row("resnet101",       Bottleneck, (3, 4, 23, 3),  64,   1, "3x3",  44_549_160,   7_801_405_440, TORCHVISION),
    _row("resnet152",       Bottleneck, (3, 8, 36, 3),  64,   1, "3x3",  60_192_808,  11_513_626_624, TORCHVISION),
    _row("resnet200",       Bottleneck, (3, 24, 36, 3), 64,   1, "3x3",  64_673_832,  15_007_481_856, TIMM),
    _row("resnet50_v1",     Bottleneck, (3, 4,  6, 3),  64,   1, "1x1",  25_557_032,   3_857_973_248, PYTORCHCV, "resnet50"),
    _row("resnet101_v1",    Bottleneck, (3, 4, 23, 3),  64,   1, "1x1",  44_549_160,   7_570_194_432, PYTORCHCV, "resnet101"),
    _row("resnet152_v1",    Bottleneck, (3, 8, 36, 3),  64,   1, "1x1",  60_192_808,  11_282_415_616, PYTORCHCV, "resnet152"),
    _row("resnet200_v1",    Bottleneck, (3, 24, 36, 3), 64,   1, "1x1",  64_673_832,  14_776_270_848, PYTORCHCV, "resnet200"),
    _row("resnext50_32x4d", Bottleneck, (3, 4,  6, 3),   4,  32, "3x3",  25_028_904,   4_230_479_872, TORCHVISION),
    _row("resnext101_32x4d", Bottleneck, (3, 4, 23, 3),  4,  32, "3x3",  44_177_704,   7_969_996_800, TIMM),
    _row("resnext101_32x8d", Bottleneck, (3, 4, 23, 3),  8,  32, "3x3",  88_791_336,  16_414_015_488, TORCHVISION),
    _row("resnext101_64x4d", Bottleneck, (3, 4, 23, 3),  4,  64, "3x3",  83_455_272,  15_460_270_080, TORCHVISION),
)
# fmt: on
