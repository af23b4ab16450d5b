"""DARTS: Differentiable Architecture Search.  Liu, Simonyan & Yang, ICLR 2019, arXiv:1806.09055.

V1 was found by the first-order, V2 by the second-order search (Fig. 4 and 5). Cells, stems and auxiliary classifiers are
those of the released networks.

Differs from the paper: it prints 574 M multiply-adds for V2 on ImageNet; the released network has 530 M. The second
convolution of its auxiliary classifier has no norm there, which the authors call a slip and keep.
"""

from __future__ import annotations

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import CellAuxClassifier, CellStem, Classifier, ConvNormAct, NasCell
from convsmith.nn.cell import Combination
from convsmith.zoo.variant import PYTORCHCV, REBUILT, About, Variant

Edge = tuple[str, int]  # operation and node as published: 0 is the previous map, 1 the current one
Genotype = tuple[tuple[Edge, Edge], ...]
Operations = tuple[Combination, ...]  # the same in the form of a cell

V1_NORMAL: Genotype = (
    (("sep_conv_3x3", 1), ("sep_conv_3x3", 0)),  # node 2
    (("skip_connect", 0), ("sep_conv_3x3", 1)),
    (("skip_connect", 0), ("sep_conv_3x3", 1)),
    (("sep_conv_3x3", 0), ("skip_connect", 2)),
)
V1_REDUCTION: Genotype = (
    (("max_pool_3x3", 0), ("max_pool_3x3", 1)),
    (("skip_connect", 2), ("max_pool_3x3", 0)),
    (("max_pool_3x3", 0), ("skip_connect", 2)),
    (("skip_connect", 2), ("avg_pool_3x3", 0)),
)
V2_NORMAL: Genotype = (
    (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
    (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
    (("sep_conv_3x3", 1), ("skip_connect", 0)),
    (("skip_connect", 0), ("dil_conv_3x3", 2)),
)
V2_REDUCTION: Genotype = (
    (("max_pool_3x3", 0), ("max_pool_3x3", 1)),
    (("skip_connect", 2), ("max_pool_3x3", 1)),
    (("max_pool_3x3", 0), ("skip_connect", 2)),
    (("skip_connect", 2), ("max_pool_3x3", 1)),
)
NAMES = {
    "none": "none",
    "skip_connect": "skip",
    "max_pool_3x3": "max_3x3",
    "avg_pool_3x3": "avg_3x3",
    "sep_conv_3x3": "sep_3x3",
    "sep_conv_5x5": "sep_5x5",
    "sep_conv_7x7": "sep_7x7",
    "dil_conv_3x3": "dil_3x3",
    "dil_conv_5x5": "dil_5x5",
}


def combinations(genotype: Genotype) -> Operations:
    """A cell as published in the form of `NasCell`, whose state 0 is the current map and 1 the previous one."""
    if unknown := {name for edges in genotype for name, _ in edges} - NAMES.keys():
        raise ValueError(f"operations of a genotype must be of {', '.join(NAMES)}, got {', '.join(sorted(unknown))}")
    return tuple((NAMES[left], _state(i), NAMES[right], _state(j)) for (left, i), (right, j) in genotype)


def _state(node: int) -> int:
    return 1 - node if node < 2 else node


def darts(
    *,
    normal: Operations,
    reduction: Operations,
    filters: int = 48,
    num_cells: int = 14,
    num_classes: int = 1000,
    aux_heads: bool = False,
) -> Architecture:
    """The network for ImageNet: three strided convolutions, of which the first cell reads the last two, then cells."""
    stages = _stages(normal, reduction, filters, num_cells, 0.0)
    # The previous map of the first cell comes reduced from the stem.
    first = stages[0][0].replace(project_previous=False)
    aux = spec(CellAuxClassifier, num_classes, grid=2, pool_stride=2, hidden_norm=False)
    return Architecture(
        stem=[spec(ConvNormAct, filters // 2, stride=2)],
        stages=[
            [spec(ConvNormAct, filters, stride=2, act="identity")],
            [spec(CellStem, filters, hand_on=filters), first, *stages[0][1:]],
            *stages[1:],
        ],
        head=spec(Classifier, num_classes),
        aux=[(3, 0, aux)] if aux_heads else [],
    )


def darts_cifar(
    *,
    normal: Operations,
    reduction: Operations,
    filters: int = 36,
    num_cells: int = 20,
    num_classes: int = 10,
    aux_heads: bool = False,
) -> Architecture:
    """The network for CIFAR: a 3 x 3 convolution to three times the filters, then cells."""
    return Architecture(
        stem=[spec(ConvNormAct, 3 * filters, act="identity")],
        stages=_stages(normal, reduction, filters, num_cells, 0.2),
        head=spec(Classifier, num_classes),
        aux=[(2, 0, spec(CellAuxClassifier, num_classes, grid=2))] if aux_heads else [],
    )


def _stages(
    normal: Operations, reduction: Operations, filters: int, num_cells: int, drop_path_rate: float
) -> list[list[BlockSpec]]:
    """Cells `num_cells // 3` and `2 * num_cells // 3` reduce and double the filters (Sec. 3.1.2); all nodes come out."""
    cell = spec(
        NasCell,
        filters=filters,
        operations=normal,
        concat=tuple(range(2, 2 + len(normal))),
        project_previous="always",
        drop_path_rate=drop_path_rate,
    )
    cuts = (0, num_cells // 3, 2 * num_cells // 3, num_cells)
    stages = [[cell] * cuts[1]]
    for i, width in ((1, 2 * filters), (2, 4 * filters)):
        opening = cell.replace(filters=width, operations=reduction, stride=2, hand_on=("current", width))
        # What a reduction hands on has been reduced in place of the projection.
        behind = cell.replace(filters=width, project_previous=False)
        cells = [opening, behind, *[cell.replace(filters=width)] * num_cells]
        stages.append(cells[: cuts[i + 1] - cuts[i]])
    return stages


V1 = {"normal": combinations(V1_NORMAL), "reduction": combinations(V1_REDUCTION)}
V2 = {"normal": combinations(V2_NORMAL), "reduction": combinations(V2_REDUCTION)}

ABOUT = About(row=49, year=2019, topic="Model search: differentiable")

# fmt: off
VARIANTS = (
    #       name              builder         params         MACs   at  source     peer     arguments
    Variant("darts_v1",       darts,       4_510_432, 505_864_704, 224, REBUILT,   None,    V1),
    Variant("darts_v2",       darts,       4_718_752, 529_911_552, 224, PYTORCHCV, "darts", V2),
    Variant("darts_v1_cifar", darts_cifar, 3_169_414, 500_987_520,  32, REBUILT,   None,    V1),
    Variant("darts_v2_cifar", darts_cifar, 3_349_342, 528_359_040,  32, REBUILT,   None,    V2),
)
# fmt: on
