"""Deformable ResNet: Deformable Convolutional Networks.  Dai et al., ICCV 2017, arXiv:1703.06211.

ResNet whose three 3 x 3 convolutions of the last stage ("res5") are deformable (Sec. 2.3), each with four groups of
offsets, as in the authors' code.

Differs from the paper: it is the form for classification, with a last stage of stride 32, and the stride of a
bottleneck is that of torchvision's ResNet, so that at first, with zero offsets, the networks compute the same. The
paper's detectors and segmenters dilate the last stage instead, which `architecture.dilate(3)` does, and have the stride
in the first 1 x 1 convolution. It states no figures for these networks alone: ours are ResNet's and those of the three
convolutions that predict the offsets.
"""

from __future__ import annotations

from convsmith.arch import Architecture, spec
from convsmith.nn import Bottleneck, DeformableBottleneck
from convsmith.zoo.resnet import Depths, resnet
from convsmith.zoo.variant import REBUILT, About, Variant


def resnet_deformable(*, depths: Depths, offset_groups: int = 4, num_classes: int = 1000) -> Architecture:
    """ResNet with deformable bottlenecks as its last stage."""
    plain = resnet(block=Bottleneck, depths=depths, num_classes=num_classes)
    last = [
        spec(DeformableBottleneck, unit.get("out_channels"), stride=unit.get("stride"), offset_groups=offset_groups)
        for unit in plain.stages[-1]
    ]
    return plain.replace(stages=[*plain.stages[:-1], last])


ABOUT = About(row=19, year=2017, topic="Spatial operators: deformable convolution and pooling")

# fmt: off
VARIANTS = (
    #       name                                      params           MACs
    Variant("resnet50_deformable",  resnet_deformable, 26_552_576, 4_137_955_328, 224, REBUILT, None,
            {"depths": (3, 4, 6, 3)}),
    Variant("resnet101_deformable", resnet_deformable, 45_544_704, 7_850_176_512, 224, REBUILT, None,
            {"depths": (3, 4, 23, 3)}),
)
# fmt: on
