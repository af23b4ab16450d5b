"""Densely Connected Convolutional Networks.  Huang, Liu, van der Maaten & Weinberger, CVPR 2017, arXiv:1608.06993.

DenseNet-BC of Table 1: bottlenecks of four times the growth rate, transitions that halve the channels. DenseNet-161
(growth rate 48) is the authors' wider network, as torchvision has it.
"""

from __future__ import annotations

from convsmith.arch import Architecture, spec
from convsmith.nn import BATCH_NORM, Classifier, ConvNormAct, DenseBlock, MaxPool, ReLU, Transition
from convsmith.zoo.variant import TORCHVISION, About, Variant

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


ABOUT = About(row=25, year=2017, topic="Dense connections")


# fmt: off
def _row(name: str, growth_rate: int, depths: Depths, params: int, macs: int) -> Variant:
    return Variant(name, densenet, params, macs, 224, TORCHVISION, None, {"growth_rate": growth_rate, "depths": depths})


VARIANTS = (
    #    name           k   depths              params           MACs
    _row("densenet121", 32, (6, 12, 24, 16),  7_978_856, 2_834_161_664),
    _row("densenet169", 32, (6, 12, 32, 32), 14_149_480, 3_359_843_328),
    _row("densenet201", 32, (6, 12, 48, 32), 20_013_928, 4_291_365_888),
    _row("densenet161", 48, (6, 12, 36, 24), 28_681_000, 7_727_907_072),
    # torchvision has no builder of this one: its class with Table 1's numbers.
    _row("densenet264", 32, (6, 12, 64, 48), 33_337_704, 5_751_653_376),
)
# fmt: on
