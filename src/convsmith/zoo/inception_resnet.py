"""Inception-ResNet: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning.  Szegedy et al., AAAI 2017, arXiv:1602.07261.

The networks with residuals (Sec. 3.2), scaled (Sec. 3.3): the 1 x 1 convolution that closes a branch has a bias and
neither norm nor activation. Scales are those of the released code, 0.17, 0.1 and 0.2 at 35 x 35, 17 x 17 and 8 x 8.

Differs from the paper: paper and released form of v2 are two networks. The paper's has the stem of Inception v4 and 5,
10 and 5 modules (Fig. 15); `inception_resnet_v2` is the released one, which timm has: stem of Inception v3, a module
without residual, 10, 20 and 10 modules of fewer channels (320, 1088, 2080; paper: 384, 1154, 2048), the last of them
without scale and activation, and a 1 x 1 convolution to 1536 channels. `inception_resnet_v1` is pytorchcv's: the paper's
with a sixth module at 8 x 8, without scale and activation, and an embedding of 512 entries in front of the logits.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import AvgPool, Classifier, ConvNormAct, EmbeddingClassifier, ScaledResidual
from convsmith.nn.branches import Branch
from convsmith.zoo.inception_v3 import MAX, NORM, POOL, conv, side_by_side
from convsmith.zoo.variant import PYTORCHCV, TIMM, About, Variant


def residual(scale: float, channels: int, *branches: Branch, act: str = "relu") -> BlockSpec:
    """Fig. 20: branches, concatenated and closed by a linear convolution to `channels`, scaled and added to the input."""
    close = spec(ConvNormAct, channels, kernel_size=1, norm=None, act="identity")
    return spec(ScaledResidual, paths=((side_by_side(*branches), close),), scale=scale, act=act)


def reduction_a(k: int, l: int, m: int, n: int) -> BlockSpec:  # noqa: E741 (the letters of Table 1)
    """Fig. 7 with the widths of Table 1."""
    return side_by_side(conv(n, 3, padding=0), (conv(k), conv(l, 3), conv(m, 3, padding=0)), MAX, stride=2)


def reduction_b(second: int, third: int, fourth: int) -> BlockSpec:
    """Fig. 12 and 18: the widths of the strided convolutions of its branches beside the pooling, but for the first."""
    return side_by_side(
        (conv(256), conv(384, 3, padding=0)),
        (conv(256), conv(second, 3, padding=0)),
        (conv(256), conv(third, 3), conv(fourth, 3, padding=0)),
        MAX,
        stride=2,
    )


STEM = [conv(32, 3, stride=2, padding=0), conv(32, 3, padding=0), conv(64, 3), POOL]


def inception_resnet_v1(*, num_classes: int = 1000) -> Architecture:
    """Fig. 15 with the blocks of Fig. 14, 10, 7, 11, 12 and 13."""
    a = residual(0.17, 256, conv(32), (conv(32), conv(32, 3)), (conv(32), conv(32, 3), conv(32, 3)))
    b = residual(0.10, 896, conv(128), (conv(128), conv(128, (1, 7)), conv(128, (7, 1))))
    c = residual(0.20, 1792, conv(192), (conv(192), conv(192, (1, 3)), conv(192, (3, 1))))
    return Architecture(
        stem=STEM,
        stages=[
            [conv(80), conv(192, 3, padding=0)],
            [conv(256, 3, stride=2, padding=0), *[a] * 5],
            [reduction_a(192, 192, 256, 384), *[b] * 10],
            [reduction_b(256, 256, 256), *[c] * 5, c.replace(scale=1.0, act="identity")],
        ],
        head=spec(EmbeddingClassifier, num_classes, dropout=0.2, norm=NORM),
    )


def inception_resnet_v2(*, num_classes: int = 1000) -> Architecture:
    """The released network; its blocks are those of Fig. 16, 7, 17, 18 and 19 with other numbers of channels behind."""
    mean = spec(AvgPool, stride=1)
    opening = side_by_side(
        conv(96),
        (conv(48), conv(64, 5)),
        (conv(64), conv(96, 3), conv(96, 3)),
        (mean, conv(64)),
    )
    a = residual(0.17, 320, conv(32), (conv(32), conv(32, 3)), (conv(32), conv(48, 3), conv(64, 3)))
    b = residual(0.10, 1088, conv(192), (conv(128), conv(160, (1, 7)), conv(192, (7, 1))))
    c = residual(0.20, 2080, conv(192), (conv(192), conv(224, (1, 3)), conv(256, (3, 1))))
    return Architecture(
        stem=STEM,
        stages=[
            [conv(80), conv(192, 3, padding=0)],
            [POOL, opening, *[a] * 10],
            [reduction_a(256, 256, 384, 384), *[b] * 20],
            [reduction_b(288, 288, 320), *[c] * 9, c.replace(scale=1.0, act="identity")],
        ],
        neck=[conv(1536)],
        head=spec(Classifier, num_classes, dropout=0.2),
    )


ABOUT = About(row=4, year=2017, topic="Tensor decomposition: 1 x M + M x 1")

# fmt: off
VARIANTS = (
    #       name                   builder                  params            MACs   at  source     peer
    Variant("inception_resnet_v1", inception_resnet_v1, 23_995_624,  6_308_235_360, 299, PYTORCHCV, "inceptionresnetv1"),
    Variant("inception_resnet_v2", inception_resnet_v2, 55_843_464, 13_155_794_016, 299, TIMM),
)
# fmt: on
