"""GoogLeNet: Going Deeper with Convolutions.  Szegedy et al., CVPR 2015, arXiv:1409.4842.

Differs from the paper: `googlenet` is torchvision's network. It has batch norm in place of biases and of local response
normalisation, 3 x 3 convolutions in the column "#5x5" of Table 1 (vision#906), a 2 x 2 max pooling in front of 5a, a
dropout of 0.2, and in the auxiliary classifiers adaptive pooling. `googlenet_paper` is Table 1 itself.
"""

from __future__ import annotations

from functools import partial

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import AuxClassifier, BatchNorm, Classifier, ConvNormAct, Inception, LocalResponseNorm, MaxPool
from convsmith.zoo.variant import REBUILT, TORCHVISION, About, Variant


def googlenet(*, paper: bool = False, num_classes: int = 1000, aux_heads: bool = False) -> Architecture:
    """Table 1; each row of widths is one Inception module. The auxiliary classifiers read 4a and 4d (Sec. 5)."""
    norm = None if paper else spec(BatchNorm, eps=1e-3)
    response_norm = [spec(LocalResponseNorm)] if paper else []

    def row(conv1x1: int, reduce3x3: int, conv3x3: int, reduce5x5: int, conv5x5: int, pool_proj: int) -> BlockSpec:
        return spec(
            Inception,
            conv1x1=conv1x1,
            conv3x3=(reduce3x3, conv3x3),
            conv5x5=(reduce5x5, conv5x5),
            pool_proj=pool_proj,
            kernel_sizes=(3, 5) if paper else (3, 3),
            norm=norm,
        )

    def max_pool(kernel_size: int = 3) -> BlockSpec:
        return spec(MaxPool, kernel_size=kernel_size, stride=2, padding=0, ceil_mode=True)

    aux = spec(AuxClassifier, num_classes, windows="equal" if paper else "adaptive", norm=norm)
    return Architecture(
        stem=[spec(ConvNormAct, 64, kernel_size=7, stride=2, norm=norm), max_pool(), *response_norm],
        stages=[
            [spec(ConvNormAct, 64, kernel_size=1, norm=norm), spec(ConvNormAct, 192, norm=norm), *response_norm],
            [
                max_pool(),
                #   1x1  3x3red 3x3 5x5red 5x5  pool
                row(64, 96, 128, 16, 32, 32),  # 3a
                row(128, 128, 192, 32, 96, 64),
            ],
            [
                max_pool(),
                row(192, 96, 208, 16, 48, 64),  # 4a
                row(160, 112, 224, 24, 64, 64),
                row(128, 128, 256, 24, 64, 64),
                row(112, 144, 288, 32, 64, 64),  # 4d
                row(256, 160, 320, 32, 128, 128),
            ],
            [
                max_pool(3 if paper else 2),
                row(256, 160, 320, 32, 128, 128),  # 5a
                row(384, 192, 384, 48, 128, 128),
            ],
        ],
        head=spec(Classifier, num_classes, dropout=0.4 if paper else 0.2),
        aux=[(2, 1, aux), (2, 4, aux)] if aux_heads else [],
    )


ABOUT = About(row=1, year=2015, topic="Tensor decomposition: 1 x 1 + K x K")

# fmt: off
VARIANTS = (
    #       name               builder                           params           MACs   at  source
    Variant("googlenet",       googlenet,                        6_624_904, 1_498_376_192, 224, TORCHVISION),
    Variant("googlenet_paper", partial(googlenet, paper=True),   6_998_552, 1_582_671_872, 224, REBUILT),
)
# fmt: on
