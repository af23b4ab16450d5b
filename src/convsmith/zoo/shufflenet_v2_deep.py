"""ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design.  Ma et al., ECCV 2018, arXiv:1807.11164.

The networks beside Table 5: ShuffleNet v2-50 and SE-ShuffleNet v2-164 of the appendix, and v2* of the detection
experiments. In units that stride or change their channels both branches give half of the channels, as torchvision's.

Differs from the paper: SE-ShuffleNet v2-164 has 12.6 G multiply-accumulates, the appendix states 12.7 G. The authors'
later code of this depth is another network: 256 to 2048 channels, 3 x 3 convolutions in 8 groups, dense 3 x 3 ones as
passing branch and in front of the classifier, auxiliary heads and dropout of 0.2; 12.8 G multiply-accumulates.

v2* is described by one sentence, and its figures in the lecture are not those of the paper: see `ShuffleUnitV2Star` for
what is our reading.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Classifier, ConvNormAct, MaxPool, ShuffleUnitV2, ShuffleUnitV2Deep, ShuffleUnitV2Star
from convsmith.zoo.shufflenet_v2 import X1_0
from convsmith.zoo.variant import PAPER, REBUILT, About, Variant

POOL = spec(MaxPool, kernel_size=3, stride=2)


def _stage(unit: BlockSpec, channels: int, repeats: int, stride: int = 2) -> list[BlockSpec]:
    unit = unit.replace(out_channels=channels)
    return [unit.replace(stride=stride), *[unit] * (repeats - 1)]


def shufflenet_v2_50(*, num_classes: int = 1000) -> Architecture:
    """Appendix, Table 2: the depths of ResNet-50; the first stage does not stride."""
    unit = spec(ShuffleUnitV2, 244)
    return Architecture(
        stem=[spec(ConvNormAct, 64, stride=2), POOL],
        stages=[
            _stage(unit, 244, 3, stride=1),
            _stage(unit, 488, 4),
            _stage(unit, 976, 6),
            _stage(unit, 1952, 3),
        ],
        neck=[spec(ConvNormAct, 2048, kernel_size=1)],
        head=spec(Classifier, num_classes),
    )


def shufflenet_v2_164_se(*, num_classes: int = 1000) -> Architecture:
    """Appendix, Table 2 and Fig. 2c: 53 units with residual path and gate, behind a stem of three convolutions."""
    unit = spec(ShuffleUnitV2Deep, 340, se_ratio=0.5)
    return Architecture(
        stem=[spec(ConvNormAct, 64, stride=2), spec(ConvNormAct, 64), spec(ConvNormAct, 128), POOL],
        stages=[
            _stage(unit, 340, 10, stride=1),
            _stage(unit, 680, 10),
            _stage(unit, 1360, 23),
            _stage(unit, 2720, 10),
        ],
        neck=[spec(ConvNormAct, 2048, kernel_size=1)],
        head=spec(Classifier, num_classes),
    )


def shufflenet_v2_star(*, widths: tuple[int, int, int, int], num_classes: int = 1000) -> Architecture:
    """Sec. 4, object detection: Table 5 with a further depthwise convolution in each unit."""
    unit = spec(ShuffleUnitV2Star, widths[0])
    return Architecture(
        stem=[spec(ConvNormAct, 24, stride=2), POOL],
        stages=[_stage(unit, widths[0], 4), _stage(unit, widths[1], 8), _stage(unit, widths[2], 4)],
        neck=[spec(ConvNormAct, widths[3], kernel_size=1)],
        head=spec(Classifier, num_classes),
    )


ABOUT = About(
    row=34,
    year=2018,
    topic="Inference efficiency",
    use="For classification, and perhaps for competitions; v2* detects better than v2 and is slower.",
)

# fmt: off
VARIANTS = (
    #       name                     params             MACs
    Variant("shufflenet_v2_50",      shufflenet_v2_50,     16_573_534,  2_304_152_672, 224, REBUILT),
    Variant("shufflenet_v2_164_se",  shufflenet_v2_164_se, 133_099_976, 12_598_704_192, 224, PAPER),
    Variant("shufflenet_v2_star_x1_0", shufflenet_v2_star, 2_301_198, 149_780_160, 224, REBUILT, None, {"widths": X1_0}),
)
# fmt: on
