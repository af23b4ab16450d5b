"""Gradually Updated Neural Networks for Large-Scale Image Recognition.  Qiao et al., ICML 2018, arXiv:1711.09280.

GUNN-15 for CIFAR and GUNN-18 for ImageNet, as in the authors' released code. GUNN-24 (29.6 M parameters) and Wide
GUNN-18 (45.6 M) are missing: their channels and segments are not published.

As in that code, pooling stands behind the 1 x 1 convolution that opens a stage for CIFAR, in front of it for ImageNet,
and the updates have shortcuts for CIFAR alone.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import AvgPool, Classifier, ConvNormAct, GraduallyUpdated, MaxPool
from convsmith.zoo.variant import REBUILT, About, Variant

POOL = spec(AvgPool, kernel_size=2, padding=0)


def gunn15_cifar(*, num_classes: int = 10) -> Architecture:
    """Three gradually updated layers whose updates have shortcuts, at 32, 16 and 8 pixels."""

    def row(channels: int, segments: int, *pooling: BlockSpec) -> list[BlockSpec]:
        layer = spec(GraduallyUpdated, segments=segments, shortcut=True)
        return [spec(ConvNormAct, channels, kernel_size=1), *pooling, layer]

    return Architecture(
        stem=[spec(ConvNormAct, 64)],
        stages=[  # N   P
            row(240, 20),
            row(300, 25, POOL),
            row(360, 30, POOL),
        ],
        neck=[spec(ConvNormAct, 360, kernel_size=1)],
        head=spec(Classifier, num_classes),
    )


def gunn18(*, num_classes: int = 1000) -> Architecture:
    """Four gradually updated layers, without shortcuts, at 56 to 7 pixels."""

    def row(channels: int, segments: int, *pooling: BlockSpec) -> list[BlockSpec]:
        return [*pooling, spec(ConvNormAct, channels, kernel_size=1), spec(GraduallyUpdated, segments=segments)]

    return Architecture(
        stem=[spec(ConvNormAct, 64, kernel_size=7, stride=2), spec(MaxPool, kernel_size=3, stride=2)],
        stages=[  #  N   P
            row(400, 10),
            row(800, 20, POOL),
            row(1600, 40, POOL),
            row(2000, 50, POOL),
        ],
        head=spec(Classifier, num_classes),
    )


ABOUT = About(row=28, year=2018, topic="Feature reuse")

# fmt: off
VARIANTS = (
    #       name            builder           params           MACs   at  source
    Variant("gunn15_cifar", gunn15_cifar,  1_585_746,   555_716_112,  32, REBUILT),
    Variant("gunn18",       gunn18,       28_909_736, 7_747_079_552, 224, REBUILT),
)
# fmt: on
