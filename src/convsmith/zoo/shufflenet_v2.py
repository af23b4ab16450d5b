"""ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design.  Ma et al., ECCV 2018, arXiv:1807.11164.

Two forms, which differ in the units with stride: in torchvision's each branch gives half of the channels; in that of
the authors' code (`_paper`) one branch keeps the input's channels and the other gives the rest. The paper's 41, 146,
299 and 591 M multiply-accumulates are those of the second one.

Differs from the paper: the `_paper` classifier has a bias as in pytorchcv, which the authors' code has not (1000
parameters more). In the first unit of a `_paper` network with unequal branches the two halves behind the shuffle are
pytorchcv's; the authors' code splits by even and odd channels. Dropout of 0.2 at 2x is the authors'.
"""

from __future__ import annotations

from typing import Literal

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Classifier, ConvNormAct, MaxPool, ShuffleUnitV2
from convsmith.zoo.variant import PYTORCHCV, TORCHVISION, About, Variant

# Our units have the passing branch first, as torchvision's; pytorchcv's have it last.
ORDERS = {PYTORCHCV: [("*.passing.*", "*.shortcut_*")]}


def shufflenet_v2(
    *,
    widths: tuple[int, int, int, int],
    split: Literal["half", "paper"] = "half",
    dropout: float = 0.0,
    num_classes: int = 1000,
) -> Architecture:
    """Table 5; `widths` are those of stages 2 to 4 and of the last 1 x 1 convolution."""

    def stage(channels: int, repeats: int) -> list[BlockSpec]:
        unit = spec(ShuffleUnitV2, channels, split=split)
        return [unit.replace(stride=2), *[unit] * (repeats - 1)]

    return Architecture(
        stem=[spec(ConvNormAct, 24, stride=2), spec(MaxPool, kernel_size=3, stride=2)],
        stages=[stage(widths[0], 4), stage(widths[1], 8), stage(widths[2], 4)],
        neck=[spec(ConvNormAct, widths[3], kernel_size=1)],
        head=spec(Classifier, num_classes, dropout=dropout),
    )


ABOUT = About(
    row=34,
    year=2018,
    topic="Inference efficiency",
    use="For classification and where a GPU must be used well; its receptive field is limited.",
)

# fmt: off
X0_5, X1_0, X1_5, X2_0 = (48, 96, 192, 1024), (116, 232, 464, 1024), (176, 352, 704, 1024), (244, 488, 976, 2048)


def _row(name: str, widths: tuple[int, int, int, int], split: str, dropout: float, params: int, macs: int,
         source: str, peer: str | None = None) -> Variant:
    arguments = {"widths": widths, "split": split, "dropout": dropout}
    return Variant(name, shufflenet_v2, params, macs, 224, source, peer, arguments)


VARIANTS = (
    #    name                        widths  split   dropout  params         MACs  source
    _row("shufflenet_v2_x0_5",       X0_5,  "half",  0.0,  1_366_792,  40_476_448, TORCHVISION),
    _row("shufflenet_v2_x1_0",       X1_0,  "half",  0.0,  2_278_604, 144_907_992, TORCHVISION),
    _row("shufflenet_v2_x1_5",       X1_5,  "half",  0.0,  3_503_624, 295_759_392, TORCHVISION),
    _row("shufflenet_v2_x2_0",       X2_0,  "half",  0.0,  7_393_996, 583_253_464, TORCHVISION),
    _row("shufflenet_v2_x0_5_paper", X0_5,  "paper", 0.0,  1_366_792,  40_476_448, PYTORCHCV, "shufflenetv2b_wd2"),
    _row("shufflenet_v2_x1_0_paper", X1_0,  "paper", 0.0,  2_279_760, 145_814_296, PYTORCHCV, "shufflenetv2b_w1"),
    # The widths of pytorchcv's networks of these names differ from the paper's: its class, with the paper's widths.
    _row("shufflenet_v2_x1_5_paper", X1_5,  "paper", 0.0,  3_507_720, 298_970_656, PYTORCHCV),
    _row("shufflenet_v2_x2_0_paper", X2_0,  "paper", 0.2,  7_403_600, 590_783_000, PYTORCHCV),
)
# fmt: on
