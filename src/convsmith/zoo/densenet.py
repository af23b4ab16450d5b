"""Densely Connected Convolutional Networks.  Huang, Liu, van der Maaten & Weinberger, CVPR 2017, arXiv:1608.06993.

DenseNet-BC of Table 1: bottlenecks of four times the growth rate, transitions that halve the channels. DenseNet-161
(growth rate 48) is the authors' wider network, as torchvision has it.

The `_cifar` networks are those of Sec. 3, "Implementation Details", and Table 2: the `_bc_` ones as pytorchcv has them,
the plain ones, without bottlenecks and compression, as the paper. There pytorchcv differs: its plain networks halve the
channels too and have a stem of 2k channels in place of 16, so that it gives 0.60 M parameters for L = 40 and k = 12, and
4.07 M for L = 100, the paper 1.0 M and 7.0 M. The paper's dropout of 0.2, for training without augmentation, is left
out.
"""

from __future__ import annotations

from convsmith.arch import Architecture, spec
from convsmith.nn import BATCH_NORM, Classifier, ConvNormAct, DenseBlock, MaxPool, ReLU, Transition
from convsmith.zoo.variant import PAPER, PYTORCHCV, TORCHVISION, About, Variant

Depths = tuple[int, int, int, int]


def densenet(*, growth_rate: int = 32, depths: Depths, num_classes: int = 1000) -> Architecture:
    """Table 1: `depths` layers per dense block behind a stem of twice the growth rate; a transition opens a stage."""
    first, *later = (spec(DenseBlock, num_layers=depth, growth_rate=growth_rate) for depth in depths)
    return Architecture(
        stem=[spec(ConvNormAct, 2 * growth_rate, kernel_size=7, stride=2), spec(MaxPool, kernel_size=3, stride=2)],
        stages=[[first], *([spec(Transition), dense] for dense in later)],
        neck=[BATCH_NORM, spec(ReLU, inplace=True)],  # in place on the norm's own map
        head=spec(Classifier, num_classes),
    )


def densenet_cifar(*, depth: int, growth_rate: int, bottleneck: bool, num_classes: int = 10) -> Architecture:
    """Three dense blocks at 32, 16 and 8 pixels, of (depth - 4) / 3 convolutions each; `bottleneck` is DenseNet-BC.

    The plain network has a stem of 16 channels and keeps the channels in its transitions.
    """
    per_layer = 2 if bottleneck else 1
    num_layers, rest = divmod(depth - 4, 3 * per_layer)
    if rest or num_layers < 1:
        rule = "6n + 4 with bottlenecks" if bottleneck else "3n + 4"
        raise ValueError(f"the depth of a DenseNet for CIFAR must be {rule}, got {depth}; take 40, 100, 190 or 250")
    ratio, compression = (4.0, 0.5) if bottleneck else (0.0, 1.0)
    dense = spec(DenseBlock, num_layers=num_layers, growth_rate=growth_rate, bottleneck_ratio=ratio)
    stem = spec(ConvNormAct, 2 * growth_rate if bottleneck else 16, bias=False, norm=None, act="identity")
    return Architecture(
        stem=[stem],
        stages=[[dense], *[[spec(Transition, compression=compression), dense]] * 2],
        neck=[BATCH_NORM, spec(ReLU, inplace=True)],
        head=spec(Classifier, num_classes),
    )


ABOUT = About(row=25, year=2017, topic="Dense connections")


# fmt: off
def _row(name: str, growth_rate: int, depths: Depths, params: int, macs: int) -> Variant:
    return Variant(name, densenet, params, macs, 224, TORCHVISION, None, {"growth_rate": growth_rate, "depths": depths})


def _cifar(name: str, depth: int, growth_rate: int, params: int, macs: int, peer: str | None = None) -> Variant:
    arguments = {"depth": depth, "growth_rate": growth_rate, "bottleneck": peer is not None}
    return Variant(name, densenet_cifar, params, macs, 32, PYTORCHCV if peer else PAPER, peer, arguments)


VARIANTS = (
    #    name           k   depths              params           MACs
    _row("densenet121", 32, (6, 12, 24, 16),  7_978_856, 2_834_161_664),
    _row("densenet169", 32, (6, 12, 32, 32), 14_149_480, 3_359_843_328),
    _row("densenet201", 32, (6, 12, 48, 32), 20_013_928, 4_291_365_888),
    _row("densenet161", 48, (6, 12, 36, 24), 28_681_000, 7_727_907_072),
    # torchvision has no builder of this one: its class with Table 1's numbers.
    _row("densenet264", 32, (6, 12, 64, 48), 33_337_704, 5_751_653_376),
    #      name                        L   k      params           MACs
    _cifar("densenet_40_k12_cifar",      40, 12,  1_019_722,   264_812_928),
    _cifar("densenet_100_k12_cifar",    100, 12,  6_979_642, 1_769_516_448),
    _cifar("densenet_bc_100_k12_cifar", 100, 12,    769_162,   287_929_692, "densenet100_k12_bc_cifar10"),
    _cifar("densenet_bc_250_k24_cifar", 250, 24, 15_324_406, 5_418_785_724, "densenet250_k24_bc_cifar10"),
    _cifar("densenet_bc_190_k40_cifar", 190, 40, 25_624_430, 9_301_945_740, "densenet190_k40_bc_cifar10"),
)
# fmt: on
