"""Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions.  Wu et al., CVPR 2018, arXiv:1711.08141.

ShiftNet for ImageNet; no code of the authors for it was found. Interpretations: the norms and activations at both ends,
and that the width between the 1 x 1 convolutions of a unit is a multiple of the unit's own channels, which are fewer
than its output where the pooled input is concatenated. Both are what gives B the multiply-accumulates of the paper.

Differs from the paper: A has 4.19 M parameters, not 4.1 M, B 1.18 M, not 1.1 M; the multiply-accumulates are the
paper's 1.4 G and 371 M. C is not reproduced: 0.70 M parameters, not 0.78 M. Its first unit strides but does not widen
the map, for which the paper has no form; ours adds the pooled input.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import BATCH_NORM, Classifier, ConvNormAct, ReLU, ShiftUnit
from convsmith.zoo.variant import REBUILT, About, Variant

# The paper's table: channels, units, kernel size, expansion of the first unit and of the others
Row = tuple[int, int, int, float, float]

A: tuple[Row, ...] = ((64, 5, 5, 4, 4), (128, 6, 5, 4, 3), (256, 7, 3, 3, 2), (512, 3, 3, 2, 1))
B: tuple[Row, ...] = ((32, 5, 5, 4, 4), (64, 6, 5, 4, 3), (128, 7, 3, 3, 2), (256, 3, 3, 2, 1))
C: tuple[Row, ...] = ((32, 1, 3, 1, 1), (64, 4, 3, 1, 1), (128, 4, 3, 1, 1), (256, 3, 3, 1, 1))


def shiftnet(*, stem: int = 32, rows: tuple[Row, ...], num_classes: int = 1000) -> Architecture:
    """A 7 x 7 convolution, then each row a group of shift units, the first one strided."""

    def stage(channels: int, repeats: int, kernel_size: int, first: float, others: float) -> list[BlockSpec]:
        unit = spec(ShiftUnit, channels, kernel_size=kernel_size, expansion=others)
        return [unit.replace(stride=2, expansion=first), *[unit] * (repeats - 1)]

    return Architecture(
        stem=[spec(ConvNormAct, stem, kernel_size=7, stride=2)],
        stages=[stage(*row) for row in rows],
        neck=[BATCH_NORM, spec(ReLU, inplace=True)],  # in place on the norm's own map
        head=spec(Classifier, num_classes),
    )


ABOUT = About(row=17, year=2018, topic="Spatial operations: shift")


# fmt: off
def _row(name: str, stem: int, rows: tuple[Row, ...], params: int, macs: int) -> Variant:
    return Variant(name, shiftnet, params, macs, 224, REBUILT, None, {"stem": stem, "rows": rows})


VARIANTS = (
    #    name      stem  groups   params           MACs
    _row("shiftnet_a", 32, A,  4_188_744, 1_424_306_176),
    _row("shiftnet_b", 16, B,  1_183_512,   370_956_288),
    _row("shiftnet_c", 32, C,    697_736,   138_741_760),
)
# fmt: on
