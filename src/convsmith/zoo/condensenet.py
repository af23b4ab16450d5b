"""CondenseNet: An Efficient DenseNet using Learned Group Convolutions.  Huang et al., CVPR 2018, arXiv:1711.09224.

Each network has two forms. `_train` is the one to train, for ImageNet with `Recipe(group_lasso=1e-5)`: its groups learn
which inputs they read, and in the first half of a training drop all but 1 / C of them. `convsmith.nn.condense_network`
then makes it the converted one, which is shipped: the variant without `_train`, with the indices of the inputs among
its weights. The number in a name counts convolutions and the classifier.

Differs from the paper: its multiply-accumulates are 2 to 6 % more than those of the convolutions and the classifier,
probably because they count norms, activations and pooling too.
"""

from __future__ import annotations

from convsmith.arch import Architecture, spec
from convsmith.nn import BATCH_NORM, AvgPool, CondenseClassifier, CondenseLayer, ConvNormAct, ReLU
from convsmith.zoo.variant import PYTORCHCV, REBUILT, About, Variant


def condensenet(
    *,
    depths: tuple[int, ...],
    growth_rates: tuple[int, ...],
    groups: int = 4,
    condensed: bool = True,
    drop_rate: float = 0.0,
    for_cifar: bool = False,
    num_classes: int = 1000,
) -> Architecture:
    """Sec. 3.2: dense blocks of growth rates k, 2 k, 4 k, ..., between them nothing but the pooling of all features.

    `groups` is that of the learned and of the ordinary groups, G, and the condensation factor, C. The stem has 2 k
    channels, and halves the image unless `for_cifar`.
    """
    pool = spec(AvgPool, kernel_size=2, padding=0)
    first, *later = (
        [
            spec(
                CondenseLayer,
                growth_rate=growth_rate,
                groups=groups,
                condensation=groups,
                drop_rate=drop_rate,
                condensed=condensed,
            )
        ]
        * depth
        for depth, growth_rate in zip(depths, growth_rates, strict=True)
    )
    stem = spec(ConvNormAct, 2 * growth_rates[0], stride=1 if for_cifar else 2, norm=None, bias=False, act="identity")
    return Architecture(
        stem=[stem],
        stages=[first, *([pool, *layers] for layers in later)],
        neck=[BATCH_NORM, spec(ReLU, inplace=True)],  # in place on the norm's own map
        head=spec(CondenseClassifier, num_classes, condensed=condensed),
    )


def condensenet_cifar(
    *, depth: int, growth_rate: int, condensed: bool = True, drop_rate: float = 0.0, num_classes: int = 10
) -> Architecture:
    """Sec. 4.1: three dense blocks of `depth` layers with growth rates k, 2 k and 4 k at 32, 16 and 8 pixels."""
    return condensenet(
        depths=(depth,) * 3,
        growth_rates=(growth_rate, 2 * growth_rate, 4 * growth_rate),
        condensed=condensed,
        drop_rate=drop_rate,
        for_cifar=True,
        num_classes=num_classes,
    )


ABOUT = About(row=27, year=2018, topic="Dense connections")


# fmt: off
def _imagenet(name: str, groups: int, condensed: bool, params: int, macs: int, source: str) -> Variant:
    arguments = {"depths": (4, 6, 8, 10, 8), "growth_rates": (8, 16, 32, 64, 128), "groups": groups}
    peer = f"condensenet74_c{groups}_g{groups}" if condensed else None
    return Variant(name, condensenet, params, macs, 224, source, peer, arguments | {"condensed": condensed})


def _cifar(name: str, depth: int, k: int, drop: float, condensed: bool, params: int, macs: int, source: str) -> Variant:
    arguments = {"depth": depth, "growth_rate": k, "drop_rate": drop, "condensed": condensed}
    return Variant(name, condensenet_cifar, params, macs, 32, source, None, arguments)


VARIANTS = (
    #         name                      C = G  converted     params           MACs  source
    _imagenet("condensenet_74_c4",          4, True,      4_773_944,   516_640_576, PYTORCHCV),
    _imagenet("condensenet_74_c8",          8, True,      2_935_416,   261_545_792, PYTORCHCV),
    # What is trained, of which no source gives figures.
    _imagenet("condensenet_74_c4_train",    4, False,    11_922_680, 1_267_904_128, REBUILT),
    _imagenet("condensenet_74_c8_train",    8, False,    11_103_608, 1_137_847_936, REBUILT),
    #      name                 layers   k  drop  converted     params           MACs  source
    _cifar("condensenet_86_cifar",  14,  8, 0.0, True,         516_202,    62_377_888, REBUILT),
    _cifar("condensenet_182_cifar", 30, 12, 0.0, True,       4_209_226,   493_916_592, REBUILT),
    _cifar("condensenet_86_cifar_train",  14,  8, 0.0, False,  1_451_594,   173_858_624, REBUILT),
    # Sec. 4.1: dropout where there are more than 3 M parameters.
    _cifar("condensenet_182_cifar_train", 30, 12, 0.1, False, 13_792_906, 1_615_332_192, REBUILT),
)
# fmt: on
