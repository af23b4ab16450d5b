"""Aligned Xception: Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation.  Chen et al., ECCV 2018, arXiv:1802.02611.

The backbone of DeepLabv3+: Xception made deeper as by Dai et al. (COCO challenge 2017), its max pooling replaced by
strided separable convolutions, and norms behind depthwise convolutions. `architecture.dilate(3)` is its output stride 16.

Differs from the paper: Fig. 4 is `xception65`; the two others, and activations inside of the last three separable
convolutions alone, are those of the released code, which timm has. Sec. 4.3 has an activation behind every depthwise
convolution.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import AlignedXceptionBlock, BatchNorm, Classifier, ConvNormAct, DepthwiseSeparable
from convsmith.zoo.variant import TIMM, About, Variant

NORM = spec(BatchNorm, eps=1e-3)


def row(channels: int, *, stride: int = 1, hidden_channels: tuple[int, int] | None = None) -> BlockSpec:
    """A block of the entry or exit flow, with a convolution in its shortcut."""
    return spec(AlignedXceptionBlock, channels, stride=stride, hidden_channels=hidden_channels, project=True, norm=NORM)


def separable(channels: int) -> BlockSpec:
    """A separable convolution of the end, with norm and ReLU behind both of its parts."""
    return spec(DepthwiseSeparable, channels, norm=NORM)


SHORT_ENTRY = ((row(128, stride=2),), (row(256, stride=2),), (row(728, stride=2),))
LONG_ENTRY = ((row(128, stride=2), row(256)), (row(256, stride=2), row(728)), (row(728, stride=2),))


def aligned_xception(
    *, middle: int, entry: tuple[tuple[BlockSpec, ...], ...] = SHORT_ENTRY, num_classes: int = 1000
) -> Architecture:
    """Fig. 4: the stages of the entry flow, `middle` blocks in the middle flow, the exit flow."""
    *first, last = entry
    return Architecture(
        stem=[spec(ConvNormAct, 32, stride=2, norm=NORM), spec(ConvNormAct, 64, norm=NORM)],
        stages=[
            *first,
            [*last, *[spec(AlignedXceptionBlock, 728, norm=NORM)] * middle],
            [
                row(1024, stride=2, hidden_channels=(728, 1024)),
                separable(1536),
                separable(1536),
                separable(2048),
            ],
        ],
        head=spec(Classifier, num_classes, dropout=0.5),
    )


ABOUT = About(
    row=8,
    year=2018,
    topic="Tensor decomposition: depthwise convolution + 1 x 1",
    use="Where a large receptive field is required, as for segmentation.",
)


# fmt: off
def _row(name: str, params: int, macs: int, **arguments: object) -> Variant:
    return Variant(name, aligned_xception, params, macs, 299, TIMM, None, arguments)


VARIANTS = (
    #    name             params            MACs
    _row("xception41", 26_969_560,  9_204_134_312, middle=8),
    _row("xception65", 39_916_312, 13_852_682_216, middle=16),
    _row("xception71", 42_338_736, 17_946_553_928, middle=16, entry=LONG_ENTRY),
)
# fmt: on
