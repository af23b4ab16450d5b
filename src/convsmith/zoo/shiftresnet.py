"""ShiftResNet: Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions.  Wu et al., CVPR 2018.

arXiv:1711.08141; ResNets for CIFAR whose 3 x 3 convolutions are shifts between two 1 x 1 convolutions. The number
behind `e` is the expansion. The networks are those of the authors' code for ResNets, which has projections where the
shape changes, and in its last version no activation behind the sums.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Classifier, ConvNormAct, ShiftResidual
from convsmith.zoo.variant import REBUILT, About, Variant


def shiftresnet(*, depth: int, expansion: float, num_classes: int = 10) -> Architecture:
    """6n + 2 as in a ResNet for CIFAR: n units of 16, 32 and 64 channels each at 32, 16 and 8 pixels."""
    repeats, rest = divmod(depth - 2, 6)
    if rest or repeats < 1:
        raise ValueError(f"the depth of a ShiftResNet must be 6n + 2, got {depth}; take 20, 56 or 110")

    def stage(channels: int, stride: int) -> list[BlockSpec]:
        unit = spec(ShiftResidual, channels, expansion=expansion)
        return [unit.replace(stride=stride), *[unit] * (repeats - 1)]

    return Architecture(
        stem=[spec(ConvNormAct, 16)],
        stages=[stage(16, 1), stage(32, 2), stage(64, 2)],
        head=spec(Classifier, num_classes),
    )


ABOUT = About(row=17, year=2018, topic="Spatial operations: shift")


# fmt: off
def _row(depth: int, expansion: int, params: int, macs: int) -> Variant:
    arguments = {"depth": depth, "expansion": float(expansion)}
    return Variant(f"shiftresnet{depth}_e{expansion}", shiftresnet, params, macs, 32, REBUILT, None, arguments)


VARIANTS = (
    # depth  E     params         MACs
    _row(20,  1,    34_906,   5_948_032),
    _row(20,  3,    95_642,  16_433_792),
    _row(20,  6,   186_746,  32_162_432),
    _row(20,  9,   277_850,  47_891_072),
    _row(56,  1,   102_106,  15_385_216),
    _row(56,  3,   294_554,  44_745_344),
    _row(56,  6,   583_226,  88_785_536),
    _row(56,  9,   871_898, 132_825_728),
    _row(110, 1,   202_906,  29_540_992),
    _row(110, 3,   592_922,  87_212_672),
    _row(110, 6, 1_177_946, 173_720_192),
    _row(110, 9, 1_762_970, 260_227_712),
)
# fmt: on
