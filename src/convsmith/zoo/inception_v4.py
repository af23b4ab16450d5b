"""Inception v4: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning.  Szegedy et al., AAAI 2017, arXiv:1602.07261.

The network without residuals (Sec. 3.1); those with are in inception_resnet.py.

Differs from the paper: in the released network, which timm has, the long branch of the stem goes 1 x 7, 7 x 1 (Fig. 3:
7 x 1, 1 x 7), and those of the modules at 17 x 17 and 8 x 8 begin with 7 x 1 and 3 x 1 (Fig. 5 and 6: 1 x 7 and 1 x 3).
"""

from __future__ import annotations

from convsmith.arch import Architecture, spec
from convsmith.nn import AvgPool, Classifier
from convsmith.zoo.inception_v3 import MAX, conv, side_by_side
from convsmith.zoo.variant import TIMM, About, Variant

MEAN = spec(AvgPool, stride=1)

# Fig. 3, its three concatenations.
STEM_A = side_by_side(MAX, conv(96, 3, padding=0), stride=2)
STEM_B = side_by_side(
    (conv(64), conv(96, 3, padding=0)),
    (conv(64), conv(64, (1, 7)), conv(64, (7, 1)), conv(96, 3, padding=0)),
)
STEM_C = side_by_side(conv(192, 3, padding=0), MAX, stride=2)

INCEPTION_A = side_by_side(  # Fig. 4, 35 x 35
    conv(96),
    (conv(64), conv(96, 3)),
    (conv(64), conv(96, 3), conv(96, 3)),
    (MEAN, conv(96)),
)
INCEPTION_B = side_by_side(  # Fig. 5, 17 x 17
    conv(384),
    (conv(192), conv(224, (1, 7)), conv(256, (7, 1))),
    (conv(192), conv(192, (7, 1)), conv(224, (1, 7)), conv(224, (7, 1)), conv(256, (1, 7))),
    (MEAN, conv(128)),
)
SPLIT = side_by_side(conv(256, (1, 3)), conv(256, (3, 1)))
INCEPTION_C = side_by_side(  # Fig. 6, 8 x 8
    conv(256),
    (conv(384), SPLIT),
    (conv(384), conv(448, (3, 1)), conv(512, (1, 3)), SPLIT),
    (MEAN, conv(256)),
)
REDUCTION_A = side_by_side(  # Fig. 7 with k, l, m, n = 192, 224, 256, 384 of Table 1
    conv(384, 3, padding=0),
    (conv(192), conv(224, 3), conv(256, 3, padding=0)),
    MAX,
    stride=2,
)
REDUCTION_B = side_by_side(  # Fig. 8
    (conv(192), conv(192, 3, padding=0)),
    (conv(256), conv(256, (1, 7)), conv(320, (7, 1)), conv(320, 3, padding=0)),
    MAX,
    stride=2,
)


def inception_v4(*, num_classes: int = 1000) -> Architecture:
    """Fig. 9."""
    return Architecture(
        stem=[conv(32, 3, stride=2, padding=0), conv(32, 3, padding=0), conv(64, 3), STEM_A],
        stages=[
            [STEM_B],
            [STEM_C, *[INCEPTION_A] * 4],
            [REDUCTION_A, *[INCEPTION_B] * 7],
            [REDUCTION_B, *[INCEPTION_C] * 3],
        ],
        head=spec(Classifier, num_classes, dropout=0.2),
    )


ABOUT = About(row=4, year=2017, topic="Tensor decomposition: 1 x M + M x 1")

# fmt: off
VARIANTS = (
    #       name            builder           params            MACs   at  source
    Variant("inception_v4", inception_v4, 42_679_816, 12_253_974_624, 299, TIMM),
)
# fmt: on
