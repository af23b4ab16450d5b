"""NASNet: Learning Transferable Architectures for Scalable Image Recognition.  Zoph et al., CVPR 2018, arXiv:1707.07012.

Cells and wiring are those of the released networks (TF-slim), the auxiliary classifier too.

Differs from the peers: pytorchcv's mobile network computes rows and columns that it then cuts away, 568,234,858 MACs;
without them it has the 564 M of the paper. The large network is timm's, whose strided means count the zeros around the
map, other than TensorFlow's.
"""

from __future__ import annotations

from typing import Literal

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import BATCH_NORM, BatchNorm, NasCell
from convsmith.zoo.cells import cifar_network, imagenet_network, with_growing_drop_path
from convsmith.zoo.variant import PYTORCHCV, REBUILT, TIMM, About, Variant

# NASNet-A, the paper's Fig. 4: s_k = operation(s_i) + operation(s_j), with s_0 the current and s_1 the previous map.
NORMAL = (
    ("sep_5x5", 0, "sep_3x3", 1),  # s_2
    ("sep_5x5", 1, "sep_3x3", 1),
    ("avg_3x3", 0, "identity", 1),
    ("avg_3x3", 1, "avg_3x3", 1),
    ("sep_3x3", 0, "identity", 0),
)
NORMAL_CONCAT = (1, 2, 3, 4, 5, 6)
REDUCTION = (
    ("sep_5x5", 0, "sep_7x7", 1),  # s_2
    ("max_3x3", 0, "sep_7x7", 1),
    ("avg_3x3", 0, "sep_5x5", 1),
    ("identity", 3, "avg_3x3", 2),
    ("sep_3x3", 2, "max_3x3", 0),
)
REDUCTION_CONCAT = (3, 4, 5, 6)  # s_3 too, although s_5 reads it


def nasnet(
    *,
    filters: int,
    repeats: int,
    stem_channels: int,
    skip_reduction: bool = False,
    padding: Literal["same", "same_counted"] = "same",
    drop_path_rate: float = 0.0,
    num_classes: int = 1000,
    aux_heads: bool = False,
    aux_grid: int = 4,
) -> Architecture:
    """The network for ImageNet of `imagenet_network`, whose arguments these are; `aux_grid` 4 is that of 224 pixels."""
    normal, reduction = _cells(filters, padding, spec(BatchNorm, eps=1e-3))
    network = imagenet_network(
        normal,
        reduction,
        filters=filters,
        repeats=(repeats, repeats, repeats),
        stem_channels=stem_channels,
        skip_reduction=skip_reduction,
        num_classes=num_classes,
        aux_grid=aux_grid if aux_heads else None,
    )
    return with_growing_drop_path(network, drop_path_rate)


def nasnet_cifar(
    *, filters: int, repeats: int, drop_path_rate: float = 0.0, num_classes: int = 10, aux_heads: bool = False
) -> Architecture:
    """The network for CIFAR of `cifar_network`; its auxiliary classifier reads maps of 16 x 16."""
    normal, reduction = _cells(filters, "same", BATCH_NORM)
    network = cifar_network(
        normal,
        reduction,
        filters=filters,
        repeats=(repeats, repeats, repeats),
        num_classes=num_classes,
        aux_grid=4 if aux_heads else None,
    )
    return with_growing_drop_path(network, drop_path_rate)


def _cells(filters: int, padding: Literal["same", "same_counted"], norm: BlockSpec) -> tuple[BlockSpec, BlockSpec]:
    normal = spec(NasCell, filters=filters, operations=NORMAL, concat=NORMAL_CONCAT, padding=padding, norm=norm)
    return normal, normal.replace(operations=REDUCTION, concat=REDUCTION_CONCAT)


# Peers register the projection of a cell's current map before or behind that of its previous map, as the cell may be.
ORDERS = {
    PYTORCHCV: [("*.current.*", "*.conv1x1.*")],
    TIMM: [("*.current.*", "*.conv_1x1.*")],
}

MOBILE = {"repeats": 4, "filters": 44, "stem_channels": 32}
LARGE = {
    "repeats": 6,
    "filters": 168,
    "stem_channels": 96,
    "skip_reduction": True,
    "padding": "same_counted",
    "drop_path_rate": 0.3,
    "aux_grid": 6,
}
CIFAR = {"repeats": 6, "filters": 32, "drop_path_rate": 0.4}

ABOUT = About(
    row=41,
    year=2018,
    topic="Model search: reinforcement learning",
    use="Searched on CIFAR-10, used on ImageNet: cells transfer.",
)

# fmt: off
VARIANTS = (
    #       name               builder           params            MACs   at  source     peer             arguments
    Variant("nasnet_a_mobile", nasnet,        5_289_978,    563_638_816, 224, PYTORCHCV, "nasnet_4a1056", MOBILE),
    Variant("nasnet_a_large",  nasnet,       88_753_150, 23_783_414_658, 331, TIMM,      "nasnetalarge",  LARGE),
    Variant("nasnet_a_cifar",  nasnet_cifar,  3_346_538,    544_333_312,  32, REBUILT,   None,            CIFAR),
)
# fmt: on
