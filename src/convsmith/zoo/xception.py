"""Xception: Deep Learning with Depthwise Separable Convolutions.  Chollet, CVPR 2017, arXiv:1610.02357.

As in the released network, which timm and pytorchcv have, the first two convolutions are unpadded.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Classifier, ConvNormAct, DepthwiseSeparable, XceptionBlock
from convsmith.zoo.variant import TIMM, About, Variant


def separable(channels: int) -> BlockSpec:
    """A separable convolution outside of the blocks: norm and ReLU behind it."""
    return spec(DepthwiseSeparable, channels, mid_norm=False, mid_act=False)


def xception(*, num_classes: int = 1000) -> Architecture:
    """Fig. 5; dropout of 0.5 as for ImageNet (Sec. 4.3)."""
    middle = spec(XceptionBlock, 728, hidden_channels=(728, 728))
    return Architecture(
        stem=[spec(ConvNormAct, 32, stride=2, padding=0), spec(ConvNormAct, 64, padding=0)],
        stages=[
            [spec(XceptionBlock, 128, stride=2, first_act=False)],
            [spec(XceptionBlock, 256, stride=2)],
            [spec(XceptionBlock, 728, stride=2), *[middle] * 8],
            [spec(XceptionBlock, 1024, hidden_channels=(728,), stride=2), separable(1536), separable(2048)],
        ],
        head=spec(Classifier, num_classes, dropout=0.5),
    )


ABOUT = About(
    row=8,
    year=2017,
    topic="Tensor decomposition: depthwise convolution + 1 x 1",
    use="Where a large receptive field is required, as for segmentation.",
)

# fmt: off
VARIANTS = (
    #       name        builder       params           MACs   at  source peer
    Variant("xception", xception, 22_855_952, 8_357_403_496, 299, TIMM,  "legacy_xception"),
)
# fmt: on
