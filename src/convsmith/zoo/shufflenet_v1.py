"""ShuffleNet: An Extremely Efficient CNN for Mobile Devices.  Zhang, Zhou, Lin & Sun, CVPR 2018, arXiv:1707.01083.

Where the shuffle stands: behind the first grouped convolution, as in the paper and pytorchcv. The authors' code has it
behind the depthwise one and pairs other channels, which changes no figure. The ReLU stands behind the concatenation; in
the authors' code on the unit's own channels only, which makes no difference, since the pooled input is not negative.

Differs from the paper: Table 2 gives 143, 140, 137, 133 and 137 M multiply-accumulates for g = 1, 2, 3, 4 and 8; a
recount gives 143.1, 140.8, 137.5, 134.3 and 138.4 M. The classifier has a bias, as in pytorchcv; the authors' code has
none (1000 parameters less). The paper has no table for the other widths: they are the table's times the multiplier, as
in pytorchcv and the authors' code, rounded to what the groups can divide (g = 2 and 4; the stem for g = 4 and 8). At
0.25x this gives 10 to 12 M where the paper says 13 M (which a stem of 12 channels would cost with g = 1 or 3).

Figures whose source is the paper are those of the authors' code, plus the bias; `rebuilt` ones are our own recount.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Classifier, ConvNormAct, MaxPool, ShuffleUnitV1, round_channels
from convsmith.zoo.variant import PAPER, PYTORCHCV, REBUILT, About, Variant

STAGE2 = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # Table 1: output channels by the number of groups
STEM = {1.5: 24}  # the authors' code; otherwise 24 times the multiplier


def shufflenet_v1(*, groups: int, width_multiplier: float = 1.0, num_classes: int = 1000) -> Architecture:
    """Table 1: each stage is twice as wide as the one before it."""
    stem = round_channels(STEM.get(width_multiplier, 24 * width_multiplier), divisor=groups)
    width = round_channels(STAGE2[groups] * width_multiplier, divisor=4 * groups)

    def stage(channels: int, repeats: int) -> list[BlockSpec]:
        unit = spec(ShuffleUnitV1, channels, groups=groups)
        # Sec. 3.2: the first 1 x 1 convolution has no groups, its input is too narrow.
        return [unit.replace(stride=2, grouped_reduce=channels > width), *[unit] * (repeats - 1)]

    return Architecture(
        stem=[spec(ConvNormAct, stem, stride=2), spec(MaxPool, kernel_size=3, stride=2)],
        stages=[stage(width, 4), stage(2 * width, 8), stage(4 * width, 4)],
        head=spec(Classifier, num_classes),
    )


ABOUT = About(row=13, year=2018, topic="Channel shuffle: grouped convolution + channel shuffle")


# fmt: off
def _row(name: str, groups: int, width_multiplier: float, params: int, macs: int,
         source: str, peer: str | None = None) -> Variant:
    arguments = {"groups": groups, "width_multiplier": width_multiplier}
    return Variant(name, shufflenet_v1, params, macs, 224, source, peer, arguments)


VARIANTS = (
    #    name                      g  width     params         MACs  source
    _row("shufflenet_v1_g1",       1, 1.0,  1_531_936, 143_078_976, PYTORCHCV, "shufflenet_g1_w1"),
    _row("shufflenet_v1_g1_x0_25", 1, 0.25,   209_746,  11_003_184, PYTORCHCV, "shufflenet_g1_wd4"),
    _row("shufflenet_v1_g1_x0_5",  1, 0.5,    534_484,  38_517_408, PYTORCHCV, "shufflenet_g1_wd2"),
    _row("shufflenet_v1_g1_x0_75", 1, 0.75,   975_214,  82_542_672, PYTORCHCV, "shufflenet_g1_w3d4"),
    _row("shufflenet_v1_g1_x1_5",  1, 1.5,  2_993_032, 308_096_352, REBUILT),
    _row("shufflenet_v1_g1_x2_0",  1, 2.0,  4_918_744, 550_334_592, REBUILT),
    _row("shufflenet_v1_g2",       2, 1.0,  1_733_848, 140_836_512, PYTORCHCV, "shufflenet_g2_w1"),
    _row("shufflenet_v1_g2_x0_25", 2, 0.25,   253_534,  10_409_088, REBUILT),
    _row("shufflenet_v1_g2_x0_5",  2, 0.5,    678_520,  40_906_464, REBUILT),
    _row("shufflenet_v1_g2_x0_75", 2, 0.75, 1_154_596,  83_448_576, REBUILT),
    _row("shufflenet_v1_g2_x1_5",  2, 1.5,  3_342_000, 308_992_448, REBUILT),
    _row("shufflenet_v1_g2_x2_0",  2, 2.0,  5_257_896, 539_138_624, REBUILT),
    _row("shufflenet_v1_g3",       3, 1.0,  1_865_728, 137_460_672, PYTORCHCV, "shufflenet_g3_w1"),
    _row("shufflenet_v1_g3_x0_25", 3, 0.25,   305_902,  11_009_808, PYTORCHCV, "shufflenet_g3_wd4"),
    _row("shufflenet_v1_g3_x0_5",  3, 0.5,    718_324,  37_589_856, PYTORCHCV, "shufflenet_g3_wd2"),
    _row("shufflenet_v1_g3_x0_75", 3, 0.75, 1_238_266,  79_740_144, PYTORCHCV, "shufflenet_g3_w3d4"),
    _row("shufflenet_v1_g3_x1_5",  3, 1.5,  3_442_168, 292_443_552, PAPER),
    _row("shufflenet_v1_g3_x2_0",  3, 2.0,  5_450_776, 524_045_184, PAPER),
    _row("shufflenet_v1_g4",       4, 1.0,  1_968_344, 134_339_776, PYTORCHCV, "shufflenet_g4_w1"),
    _row("shufflenet_v1_g4_x0_25", 4, 0.25,   314_848,  10_780_416, REBUILT),
    _row("shufflenet_v1_g4_x0_5",  4, 0.5,    835_984,  40_710_528, REBUILT),
    _row("shufflenet_v1_g4_x0_75", 4, 0.75, 1_356_400,  81_803_520, REBUILT),
    _row("shufflenet_v1_g4_x1_5",  4, 1.5,  3_679_712, 295_086_976, REBUILT),
    _row("shufflenet_v1_g4_x2_0",  4, 2.0,  5_593_528, 510_289_536, REBUILT),
    _row("shufflenet_v1_g8",       8, 1.0,  2_434_768, 138_365_952, PYTORCHCV, "shufflenet_g8_w1"),
    _row("shufflenet_v1_g8_x0_25", 8, 0.25,   454_504,  12_426_240, REBUILT),
    _row("shufflenet_v1_g8_x0_5",  8, 0.5,  1_011_448,  40_469_760, PAPER),
    _row("shufflenet_v1_g8_x0_75", 8, 0.75, 1_671_832,  84_130_560, REBUILT),
    _row("shufflenet_v1_g8_x1_5",  8, 1.5,  4_269_952, 290_188_800, PAPER),
    _row("shufflenet_v1_g8_x2_0",  8, 2.0,  6_522_232, 521_942_016, PAPER),
)
# fmt: on
