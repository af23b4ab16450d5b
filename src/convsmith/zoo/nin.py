"""Network In Network.  Lin, Chen & Yan, ICLR 2014, arXiv:1312.4400.

The network for CIFAR-10 that Deep Roots starts from. Differs from the paper: the poolings are padded by one pixel on
each side, as in pytorchcv, where Caffe's have windows that reach over the lower and right border; the maps have the
same sizes.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import AvgPool, ConvClassifier, ConvNormAct, Dropout, MaxPool, RootModule
from convsmith.zoo.variant import PYTORCHCV, About, Variant


def nin(*, groups: tuple[int, int] = (1, 1), num_classes: int = 10) -> Architecture:
    """Three convolutions, each with two 1 x 1 convolutions behind it; `groups` are those of the second and third one.

    The last 1 x 1 convolution makes one map per class, and the head takes their mean.
    """

    def conv(channels: int, kernel_size: int = 1) -> BlockSpec:
        return spec(ConvNormAct, channels, kernel_size=kernel_size, norm=None)

    def root(channels: int, kernel_size: int, groups: int) -> BlockSpec:
        return spec(RootModule, channels, kernel_size=kernel_size, groups=groups, norm=None)

    mean = spec(AvgPool, kernel_size=3, stride=2, count_include_pad=True)
    return Architecture(
        stem=[conv(192, 5)],
        stages=[
            [conv(160), conv(96)],
            [spec(MaxPool, kernel_size=3, stride=2), spec(Dropout, rate=0.5), root(192, 5, groups[0]), conv(192)],
            [mean, spec(Dropout, rate=0.5), root(192, 3, groups[1])],
        ],
        head=spec(ConvClassifier, num_classes, act="relu"),
    )


ABOUT = About(row=6, year=2014, topic="Tensor decomposition: grouped convolution + 1 x 1")

VARIANTS = (
    #       name       builder params        MACs  at  source
    Variant("nin_cifar", nin, 966_986, 222_486_528, 32, PYTORCHCV, "nin_cifar10"),
)
