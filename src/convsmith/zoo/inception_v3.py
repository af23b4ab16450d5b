"""Inception v3: Rethinking the Inception Architecture for Computer Vision.  Szegedy et al., CVPR 2016, arXiv:1512.00567.

Differs from the paper: this is the released network, as torchvision has it. Its stem pools a second time where Table 1
has a strided convolution, and ends with 192 channels, not 288; its modules at 35 x 35 keep the 5 x 5 convolution that
Fig. 5 makes two of 3 x 3. The dropout is torchvision's, the paper names none.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import AvgPool, BatchNorm, Branches, Classifier, ConvAuxClassifier, ConvNormAct, MaxPool
from convsmith.nn.branches import Branch
from convsmith.zoo.variant import TORCHVISION, About, Variant

NORM = spec(BatchNorm, eps=1e-3)
MEAN = spec(AvgPool, stride=1, count_include_pad=True)
MAX = spec(MaxPool, stride=1, padding=0)  # a branch's stride is that of its module
POOL = spec(MaxPool, padding=0)


def conv(
    channels: int, kernel_size: int | tuple[int, int] = 1, *, stride: int = 1, padding: int | None = None
) -> BlockSpec:
    """Convolution, norm, ReLU; a padding of 0 where the figures say "V", valid."""
    return spec(ConvNormAct, channels, kernel_size=kernel_size, stride=stride, padding=padding, norm=NORM)


def side_by_side(*branches: Branch, stride: int = 1) -> BlockSpec:
    """The branches of a figure, concatenated."""
    return spec(Branches, branches=branches, stride=stride)


def inception_a(pool_proj: int) -> BlockSpec:
    """35 x 35: Fig. 5, with the 5 x 5 convolution that it splits."""
    return side_by_side(
        conv(64),
        (conv(48), conv(64, 5)),
        (conv(64), conv(96, 3), conv(96, 3)),
        (MEAN, conv(pool_proj)),
    )


def inception_b(c7: int) -> BlockSpec:
    """17 x 17: Fig. 6 with n = 7."""
    return side_by_side(
        conv(192),
        (conv(c7), conv(c7, (1, 7)), conv(192, (7, 1))),
        (conv(c7), conv(c7, (7, 1)), conv(c7, (1, 7)), conv(c7, (7, 1)), conv(192, (1, 7))),
        (MEAN, conv(192)),
    )


def inception_c() -> BlockSpec:
    """8 x 8: Fig. 7, the expanded filter bank."""
    split = side_by_side(conv(384, (1, 3)), conv(384, (3, 1)))
    return side_by_side(
        conv(320),
        (conv(384), split),
        (conv(448), conv(384, 3), split),
        (MEAN, conv(192)),
    )


# Fig. 10: pooling beside strided convolutions.
REDUCTION_A = side_by_side(
    conv(384, 3, padding=0),
    (conv(64), conv(96, 3), conv(96, 3, padding=0)),
    MAX,
    stride=2,
)
REDUCTION_B = side_by_side(
    (conv(192), conv(320, 3, padding=0)),
    (conv(192), conv(192, (1, 7)), conv(192, (7, 1)), conv(192, 3, padding=0)),
    MAX,
    stride=2,
)


def inception_v3(*, num_classes: int = 1000, aux_heads: bool = False) -> Architecture:
    """Table 1 as released; the auxiliary classifier reads the last map of 17 x 17 (Sec. 4)."""
    return Architecture(
        stem=[conv(32, 3, stride=2, padding=0), conv(32, 3, padding=0), conv(64, 3), POOL],
        stages=[
            [conv(80), conv(192, 3, padding=0)],
            [POOL, inception_a(32), inception_a(64), inception_a(64)],
            [REDUCTION_A, inception_b(128), inception_b(160), inception_b(160), inception_b(192)],
            [REDUCTION_B, inception_c(), inception_c()],
        ],
        head=spec(Classifier, num_classes, dropout=0.5),
        aux=[(2, 4, spec(ConvAuxClassifier, num_classes, norm=NORM))] if aux_heads else [],
    )


ORDERS = {TORCHVISION: [("aux.*", "AuxLogits.*")]}

ABOUT = About(row=3, year=2016, topic="Tensor decomposition: 1 x M + M x 1")

# fmt: off
VARIANTS = (
    #       name            builder           params           MACs   at  source
    Variant("inception_v3", inception_v3, 23_834_568, 5_713_216_096, 299, TORCHVISION),
)
# fmt: on
