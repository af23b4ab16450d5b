"""Deep Roots: Improving CNN Efficiency with Hierarchical Filter Groups.  Ioannou et al., CVPR 2017, arXiv:1605.06489.

The number in a name is that of the groups in the first grouped stage; they halve from stage to stage (a root). The
builders make trees (they double) and columns (they stay) too. Grouped are the spatial convolutions but for the first.

The figures here are our own count. The authors' data files count otherwise: parameters without the scales and shifts
of batch norm, multiply-accumulates plus one for each bias (not for each addition of one), auxiliary classifiers
included. So counted, and with what the authors' networks have besides, all their figures of the three are met to the
unit. ResNet-200 is not here: only the differences between its forms are met.

- NIN: `nin_cifar` in groups, as there without norm.
- ResNet-50: the stride is in the first 1 x 1 convolution (`resnet50_v1`). Differs from the paper: the first convolution
  has no bias (64 parameters less).
- GoogLeNet: Table 1 of its paper with batch norm in place of biases and of local response normalisation. The poolings
  in front of 4a and 5a are padded, so that images of 224 pixels give maps of 15 x 15 and 8 x 8, and the auxiliary
  classifiers have 5 x 5 windows: an interpretation, but the one that meets the figures. Differs from the paper: the
  authors have a bias in each convolution too, and a mean of 7 x 7 windows, which leaves 2 x 2 of them to the last layer
  (3,072,000 weights more); here it is the mean of the whole map.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import AuxClassifier, Bottleneck, Branches, ConvNormAct, MaxPool, group_schedule
from convsmith.nn.root import Schedule
from convsmith.zoo.googlenet import googlenet
from convsmith.zoo.nin import nin
from convsmith.zoo.resnet import Depths, resnet
from convsmith.zoo.variant import REBUILT, About, Variant


def nin_root(*, groups: int, schedule: Schedule = "root", num_classes: int = 10) -> Architecture:
    """Network in Network with its second and third spatial convolution in groups."""
    second, third = group_schedule(schedule, groups, 2)
    return nin(groups=(second, third), num_classes=num_classes)


def resnet50_root(
    *,
    groups: int,
    schedule: Schedule = "root",
    depths: Depths = (3, 4, 6, 3),
    num_classes: int = 1000,
) -> Architecture:
    """ResNet-50, or of other depths, with the 3 x 3 convolutions of each stage in groups."""
    dense = resnet(block=Bottleneck, depths=depths, stride_in="1x1", num_classes=num_classes)
    per_stage = zip(dense.stages, group_schedule(schedule, groups, 4), strict=True)
    return dense.replace(stages=[[unit.replace(groups=number) for unit in stage] for stage, number in per_stage])


def googlenet_root(
    *, groups: int, schedule: Schedule = "root", num_classes: int = 1000, aux_heads: bool = False
) -> Architecture:
    """GoogLeNet with its second convolution and the 3 x 3 and 5 x 5 ones of each size of map in groups."""
    second, *later = group_schedule(schedule, groups, 4)
    table = googlenet(paper=True, num_classes=num_classes)
    pools = [spec(MaxPool, kernel_size=3, stride=2, padding=padding, ceil_mode=True) for padding in (0, 1, 1)]
    modules = [
        [pool, *(_inception(unit, number) for unit in stage[1:])]
        for pool, number, stage in zip(pools, later, table.stages[1:], strict=True)
    ]
    aux = spec(AuxClassifier, num_classes, grid=5)
    return table.replace(
        stem=[spec(ConvNormAct, 64, kernel_size=7, stride=2), pools[0]],
        stages=[[spec(ConvNormAct, 64, kernel_size=1), spec(ConvNormAct, 192, groups=second)], *modules],
        aux=[(2, 1, aux), (2, 4, aux)] if aux_heads else [],
    )


def _inception(row: BlockSpec, groups: int) -> BlockSpec:
    """An Inception module of GoogLeNet's table with batch norm and grouped spatial convolutions."""

    def reduced(widths: tuple[int, int], kernel_size: int) -> tuple[BlockSpec, BlockSpec]:
        spatial = spec(ConvNormAct, widths[1], kernel_size=kernel_size, groups=groups)
        return spec(ConvNormAct, widths[0], kernel_size=1), spatial

    return spec(
        Branches,
        branches=(
            spec(ConvNormAct, row.get("conv1x1"), kernel_size=1),
            reduced(row.get("conv3x3"), 3),
            reduced(row.get("conv5x5"), 5),
            (spec(MaxPool, stride=1), spec(ConvNormAct, row.get("pool_proj"), kernel_size=1)),
        ),
    )


ABOUT = About(row=6, year=2017, topic="Tensor decomposition: grouped convolution + 1 x 1")


# fmt: off
def _nin(groups: int, params: int, macs: int) -> Variant:
    return Variant(f"nin_root{groups}", nin_root, params, macs, 32, REBUILT, None, {"groups": groups})


def _resnet(groups: int, params: int, macs: int) -> Variant:
    return Variant(f"resnet50_root{groups}", resnet50_root, params, macs, 224, REBUILT, None, {"groups": groups})


def _googlenet(groups: int, params: int, macs: int) -> Variant:
    return Variant(f"googlenet_root{groups}", googlenet_root, params, macs, 224, REBUILT, None, {"groups": groups})


VARIANTS = (
    #   groups      params           MACs
    _nin(2,        736_586,   163_504_128),
    _nin(4,        455_498,   123_396_096),
    _nin(8,        314_954,   103_342_080),
    _nin(16,       244_682,    93_315_072),
    _resnet(2,  25_501_736, 3_684_564_992),
    _resnet(4,  25_179_176, 3_366_649_856),
    _resnet(8,  23_248_424, 2_860_875_776),
    _resnet(16, 18_744_104, 2_434_580_480),
    _resnet(32, 16_491_944, 2_221_432_832),
    _resnet(64, 15_365_864, 2_114_859_008),
    _googlenet(2,   6_950_536, 1_527_901_952),
    _googlenet(4,   6_712_200, 1_276_018_432),
    _googlenet(8,   5_701_000,   949_369_472),
    _googlenet(16,  4_505_224,   741_873_728),
)
# fmt: on
