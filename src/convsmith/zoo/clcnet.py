"""clcNet: Improving the Efficiency of CNNs Using Channel Local Convolutions.  Zhang D-Q., CVPR 2018, arXiv:1712.06145.

The networks are those of the author's code; a table of their parameters and multiply-accumulates was not found. In
every block the 3 x 3 convolution has groups of two channels and the 1 x 1 convolution has two groups, the most with
which each output of a block still depends on each of its inputs.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Classifier, ConvNormAct, InterlacedGroupConv
from convsmith.zoo.variant import REBUILT, About, Variant


def clcnet(*, repeats: tuple[int, int, int, int], num_classes: int = 1000) -> Architecture:
    """`repeats` (a, b, c, d): channel local blocks behind the strided one in the stages of 128 to 1024 channels."""

    def stage(channels: int, repeats: int) -> list[BlockSpec]:
        unit = spec(InterlacedGroupConv, channels, secondary_groups=2)
        return [unit.replace(stride=2), *[unit] * repeats]

    return Architecture(
        stem=[spec(ConvNormAct, 32, stride=2)],
        stages=[
            [spec(InterlacedGroupConv, 64, secondary_groups=2)],
            stage(128, repeats[0]),
            stage(256, repeats[1]),
            stage(512, repeats[2]),
            stage(1024, repeats[3]),
        ],
        head=spec(Classifier, num_classes),
    )


ABOUT = About(row=15, year=2018, topic="Channel shuffle: grouped convolution + channel shuffle")


# fmt: off
def _row(name: str, repeats: tuple[int, int, int, int], params: int, macs: int) -> Variant:
    return Variant(name, clcnet, params, macs, 224, REBUILT, None, {"repeats": repeats})


VARIANTS = (
    #    name       a  b  c  d     params         MACs
    _row("clcnet_a", (1, 1, 5, 2), 3_253_640, 342_973_440),
    _row("clcnet_b", (1, 1, 7, 3), 4_085_128, 424_559_616),
)
# fmt: on
