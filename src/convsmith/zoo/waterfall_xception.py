"""Waterfall Xception: an interpretation; the network of this name was never published.

The lecture (2018) names it beside Light-Head R-CNN, with no citation, and nothing public describes it. This is no
reproduction: neither the block nor the figures are anybody's but ours. What is interpreted is the name alone. The
network is that of `xception_145m`, widths and repeats of Table 7 of Light-Head R-CNN (Li et al. 2017,
arXiv:1711.07264), with the block of Xception39, a network of the same laboratory, made a waterfall: each of its three
separable convolutions flows into the next one and into the output. The word was later used so for pooling (WASP:
Artacho & Savakis 2019, arXiv:1912.03183), which has no connection with the lecture's network.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Classifier, ConvNormAct, MaxPool, WaterfallBlock
from convsmith.zoo.variant import INTERPRETATION, About, Variant


def waterfall_xception(*, widths: tuple[int, int, int] = (144, 288, 576), num_classes: int = 1000) -> Architecture:
    """Stages of 4, 8 and 4 waterfall blocks."""

    def stage(width: int, repeats: int) -> list[BlockSpec]:
        return [spec(WaterfallBlock, width, stride=2), *[spec(WaterfallBlock, width)] * (repeats - 1)]

    return Architecture(
        stem=[spec(ConvNormAct, 24, stride=2), spec(MaxPool)],
        stages=[stage(width, repeats) for width, repeats in zip(widths, (4, 8, 4), strict=True)],
        head=spec(Classifier, num_classes),
    )


ABOUT = About(
    row=10,
    year=2018,
    topic="Tensor decomposition: depthwise convolution + 1 x 1",
    use="Where a large receptive field is required, as for segmentation.",
)

# fmt: off
VARIANTS = (
    #       name                  builder                params         MACs   at  source
    Variant("waterfall_xception", waterfall_xception, 1_721_056, 147_058_560, 224, INTERPRETATION),
)
# fmt: on
