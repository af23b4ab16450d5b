"""IGCNet: Interleaved Group Convolutions for Deep Neural Networks.  Zhang, Qi, Xiao & Wang, ICCV 2017, arXiv:1707.02725.

The networks for ImageNet have the layout of ResNet-18 and are written LxMy by the primary groups L and the channels M
of each in the first stage. `igc_l4m32` and `igc_l16m16` double M from stage to stage. `igc_l100m2` doubles L; its stem
has L = 100 channels and its first stage twice as many, as in the authors' code and in the graph of their trained
network. `igc_l24m2_cifar` has no shortcuts; its 20 layers, one depth of several in the paper, are our choice.

Differs from the paper: it gives 11.205 M parameters and 1.9 G for L4M32, 11.329 M and 2.2 G for L16M16, 8.61 M and 1.3
G for L100M2. Without scales and shifts of batch norm the last has 8.608 M; the others have 11.207 and 11.441 M when
also the classifier is left out, and L16M16 has 2.27 G.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Classifier, ConvNormAct, InterleavedGroupConv, InterleavedResidual, MaxPool
from convsmith.zoo.variant import REBUILT, About, Variant


def igcnet(
    *, primary_groups: int, group_channels: int, grow_groups: bool = False, num_classes: int = 1000
) -> Architecture:
    """Four stages of two residual blocks, each L * M channels wide, L = `primary_groups` and M = `group_channels`.

    From stage to stage M doubles, or with `grow_groups` L, where the stem is half as wide as the first stage.
    """

    def stage(i: int) -> list[BlockSpec]:
        groups = primary_groups * 2**i if grow_groups else primary_groups
        unit = spec(InterleavedResidual, primary_groups * group_channels * 2**i, primary_groups=groups)
        return [unit.replace(stride=1 if i == 0 else 2), unit]

    stem = primary_groups * group_channels // (2 if grow_groups else 1)
    return Architecture(
        stem=[spec(ConvNormAct, stem, kernel_size=7, stride=2), spec(MaxPool, kernel_size=3, stride=2)],
        stages=[stage(i) for i in range(4)],
        head=spec(Classifier, num_classes),
    )


def igcnet_cifar(*, primary_groups: int, group_channels: int, depth: int = 20, num_classes: int = 10) -> Architecture:
    """Three stages of (depth - 2) / 3 interleaved group convolutions at 32, 16 and 8 pixels; M doubles."""
    repeats, rest = divmod(depth - 2, 3)
    if rest or repeats < 1:
        raise ValueError(f"the depth of an IGCNet for CIFAR must be 3n + 2, got {depth}; take 8, 20, 38 or 62")
    width = primary_groups * group_channels

    def stage(channels: int, stride: int) -> list[BlockSpec]:
        unit = spec(InterleavedGroupConv, primary_groups=primary_groups, out_channels=channels)
        return [unit.replace(stride=stride), *[unit] * (repeats - 1)]

    return Architecture(
        stem=[spec(ConvNormAct, width)],
        stages=[stage(width, 1), stage(2 * width, 2), stage(4 * width, 2)],
        head=spec(Classifier, num_classes),
    )


ABOUT = About(row=14, year=2017, topic="Channel shuffle: grouped convolution + channel shuffle")


# fmt: off
def _row(name: str, primary_groups: int, group_channels: int, grow_groups: bool, params: int, macs: int) -> Variant:
    arguments = {"primary_groups": primary_groups, "group_channels": group_channels, "grow_groups": grow_groups}
    return Variant(name, igcnet, params, macs, 224, REBUILT, None, arguments)


VARIANTS = (
    #    name           L   M  doubles L     params           MACs
    _row("igc_l4m32",    4, 32, False,   12_251_240, 1_944_641_536),
    _row("igc_l16m16",  16, 16, False,   13_528_296, 2_265_989_120),
    _row("igc_l100m2", 100,  2, True,     8_637_900, 1_264_780_800),
    Variant("igc_l24m2_cifar", igcnet_cifar, 155_962, 28_755_840, 32, REBUILT, None, {"primary_groups": 24, "group_channels": 2}),
)
# fmt: on
