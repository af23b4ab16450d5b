"""Xception-like 145M: Light-Head R-CNN: In Defense of Two-Stage Object Detector.  Li et al., 2017, arXiv:1711.07264.

The small backbone of the fast detector. Its Table 7 states widths, repeats and 145 M multiply-adds.

Differs from the paper: neither paper nor code says what the block is; ours is an interpretation. Known is that its
receptive field is 7, three depthwise 3 x 3 convolutions (Ma et al. 2018, arXiv:1807.11164, Sec. 4). "depthwise" is our
fit, with which the widths of Table 7 cost 145.4 M. "separable" is the block of Xception39, a later network of the same
laboratory: it costs 179.6 M with these widths, and 145.3 M with 128, 256 and 512.
"""

from __future__ import annotations

from typing import Literal

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import Classifier, ConvNormAct, DepthwiseBottleneck, MaxPool, SeparableBottleneck
from convsmith.zoo.variant import PAPER, About, Variant


def xception_145m(
    *,
    block: Literal["depthwise", "separable"] = "depthwise",
    widths: tuple[int, int, int] = (144, 288, 576),
    num_classes: int = 1000,
) -> Architecture:
    """Table 7, with one of two interpretations of its block."""
    if block not in ("depthwise", "separable"):
        raise ValueError(f"block must be 'depthwise' or 'separable', got {block!r}")

    def unit(width: int, stride: int) -> BlockSpec:
        if block == "separable":
            return spec(SeparableBottleneck, width, stride=stride)
        return spec(DepthwiseBottleneck, width, stride=stride)

    return Architecture(
        stem=[spec(ConvNormAct, 24, stride=2), spec(MaxPool)],
        stages=[
            [unit(width, 2), *[unit(width, 1)] * (repeats - 1)]
            for width, repeats in zip(widths, (4, 8, 4), strict=True)
        ],
        head=spec(Classifier, num_classes),
    )


ABOUT = About(
    row=9,
    year=2017,
    topic="Tensor decomposition: depthwise convolution + 1 x 1",
    use="Where a large receptive field is required, as for segmentation.",
)

# fmt: off
VARIANTS = (
    #       name             builder           params         MACs   at  source
    Variant("xception_145m", xception_145m, 1_623_040, 145_365_120, 224, PAPER),
)
# fmt: on
