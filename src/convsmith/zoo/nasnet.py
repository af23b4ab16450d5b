"""NASNet: Learning Transferable Architectures for Scalable Image Recognition.  Zoph et al., CVPR 2018, arXiv:1707.07012.

Cells and wiring are those of the released networks (TF-slim); the auxiliary classifier of their training is left out.

Differs from the peers: pytorchcv's mobile network computes rows and columns that it then cuts away, 568,234,858 MACs;
without them it has the 564 M of the paper. The large network is timm's, whose strided means count the zeros around the
map, other than TensorFlow's.
"""

from __future__ import annotations

import itertools
from typing import Literal

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import BatchNorm, Classifier, ConvNormAct, NasCell, ReLU
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
    repeats: int,
    filters: int,
    stem_channels: int,
    skip_reduction: bool = False,
    padding: Literal["same", "same_counted"] = "same",
    drop_path_rate: float = 0.0,
    num_classes: int = 1000,
) -> Architecture:
    """The network for ImageNet: two reduction cells as stem, then three stacks of normal cells.

    "6 @ 4032" is 6 `repeats` with 168 `filters` in the first stack: 4032 = 168 * 4 * 6 come out of the last one. Behind
    the reductions of the stacks the previous map of a cell is the reduction's input, or, with `skip_reduction`, the
    reduction's own previous map.
    """
    norm = spec(BatchNorm, eps=1e-3)
    normal = spec(NasCell, filters=filters, operations=NORMAL, concat=NORMAL_CONCAT, padding=padding, norm=norm)
    reduction = normal.replace(operations=REDUCTION, concat=REDUCTION_CONCAT, stride=2)
    first = reduction.replace(filters=filters // 4, hand_on=("current", filters // 2), project_previous=False)
    second = reduction.replace(filters=filters // 2, hand_on=("current", filters))
    return Architecture(
        stem=[spec(ConvNormAct, stem_channels, stride=2, padding=0, norm=norm, act="identity")],
        stages=drop_paths(
            [
                [first],
                [second, *[normal] * repeats],
                stack(normal, reduction, 2 * filters, repeats, skip_reduction),
                stack(normal, reduction, 4 * filters, repeats, skip_reduction),
            ],
            drop_path_rate,
        ),
        neck=[spec(ReLU)],
        head=spec(Classifier, num_classes, dropout=0.5),
    )


def nasnet_cifar(*, repeats: int, filters: int, drop_path_rate: float = 0.0, num_classes: int = 10) -> Architecture:
    """The network for CIFAR: a 3 x 3 convolution to three times the filters as stem, then three stacks."""
    normal = spec(NasCell, filters=filters, operations=NORMAL, concat=NORMAL_CONCAT, padding="same")
    reduction = normal.replace(operations=REDUCTION, concat=REDUCTION_CONCAT, stride=2)
    return Architecture(
        stem=[spec(ConvNormAct, 3 * filters, act="identity")],
        stages=drop_paths(
            [
                [normal.replace(project_previous=False), *[normal] * (repeats - 1)],
                stack(normal, reduction, 2 * filters, repeats),
                stack(normal, reduction, 4 * filters, repeats),
            ],
            drop_path_rate,
        ),
        neck=[spec(ReLU)],
        head=spec(Classifier, num_classes),
    )


def stack(
    normal: BlockSpec, reduction: BlockSpec, filters: int, repeats: int, skip_reduction: bool = False
) -> list[BlockSpec]:
    """A reduction cell and `repeats` normal cells of these filters."""
    handed = "previous" if skip_reduction else "current"
    opening = reduction.replace(filters=filters, hand_on=(handed, filters))
    return [opening, *[normal.replace(filters=filters)] * repeats]


def drop_paths(stages: list[list[BlockSpec]], rate: float) -> list[list[BlockSpec]]:
    """ScheduledDropPath grows along the depth too, in the released code: cell l of L drops with l / L of the rate."""
    count = sum(map(len, stages))
    cell_number = itertools.count(1)
    return [[cell.replace(drop_path_rate=rate * next(cell_number) / count) for cell in stage] for stage in stages]


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
