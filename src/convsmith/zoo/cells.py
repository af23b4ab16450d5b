"""Networks around found cells: the skeletons of NASNet's released code, which PNASNet and AmoebaNet share.

A cell found small is used large by one call: `imagenet_network(normal, reduction, filters=..., repeats=..., ...)` with
the specs of the cells, whatever network they were found in.
"""

from __future__ import annotations

import itertools

from convsmith.arch import Architecture, BlockSpec, spec
from convsmith.nn import CellAuxClassifier, Classifier, ConvNormAct, ReLU


def imagenet_network(
    normal: BlockSpec,
    reduction: BlockSpec,
    *,
    filters: int,
    repeats: tuple[int, int, int],
    stem_channels: int,
    skip_reduction: bool = False,
    num_classes: int = 1000,
    aux_grid: int | None = None,
) -> Architecture:
    """The skeleton for ImageNet: a convolution and two reduction cells as stem, then three stacks of normal cells.

    "6 @ 4032" is three times 6 `repeats` with 168 `filters` in the first stack: 4032 = 168 * 4 * 6 come out of the last
    one. Behind the reductions of the stacks the previous map of a cell is the reduction's input, or, with
    `skip_reduction`, the reduction's own previous map. An auxiliary classifier of `aux_grid` stands in front of the
    second reduction of the stacks.
    """
    norm = normal.get("norm")
    first = reduction.replace(filters=filters // 4, stride=2, hand_on=("current", filters // 2), project_previous=False)
    second = reduction.replace(filters=filters // 2, stride=2, hand_on=("current", filters))
    return Architecture(
        stem=[spec(ConvNormAct, stem_channels, stride=2, padding=0, norm=norm, act="identity")],
        stages=[
            [first],
            [second, *[normal.replace(filters=filters)] * repeats[0]],
            stack(normal, reduction, filters=2 * filters, repeats=repeats[1], skip_reduction=skip_reduction),
            stack(normal, reduction, filters=4 * filters, repeats=repeats[2], skip_reduction=skip_reduction),
        ],
        neck=[spec(ReLU)],
        head=spec(Classifier, num_classes, dropout=0.5),
        aux=[(2, repeats[1], spec(CellAuxClassifier, num_classes, grid=aux_grid, norm=norm))] if aux_grid else [],
    )


def cifar_network(
    normal: BlockSpec,
    reduction: BlockSpec,
    *,
    filters: int,
    repeats: tuple[int, int, int],
    num_classes: int = 10,
    aux_grid: int | None = None,
) -> Architecture:
    """The skeleton for CIFAR: a 3 x 3 convolution to three times the filters as stem, then three stacks."""
    norm, cell = normal.get("norm"), normal.replace(filters=filters)
    return Architecture(
        stem=[spec(ConvNormAct, 3 * filters, norm=norm, act="identity")],
        stages=[
            [cell.replace(project_previous=False), *[cell] * (repeats[0] - 1)],
            stack(normal, reduction, filters=2 * filters, repeats=repeats[1]),
            stack(normal, reduction, filters=4 * filters, repeats=repeats[2]),
        ],
        neck=[spec(ReLU)],
        head=spec(Classifier, num_classes),
        aux=[(1, repeats[1], spec(CellAuxClassifier, num_classes, grid=aux_grid, norm=norm))] if aux_grid else [],
    )


def stack(
    normal: BlockSpec, reduction: BlockSpec, *, filters: int, repeats: int, skip_reduction: bool = False
) -> list[BlockSpec]:
    """A reduction cell and `repeats` normal cells of these filters."""
    handed = "previous" if skip_reduction else "current"
    opening = reduction.replace(filters=filters, stride=2, hand_on=(handed, filters))
    return [opening, *[normal.replace(filters=filters)] * repeats]


def with_growing_drop_path(architecture: Architecture, rate: float) -> Architecture:
    """ScheduledDropPath grows along the depth too, in the released code: cell l of L drops with l / L of the rate."""
    count = sum(map(len, architecture.stages))
    number = itertools.count(1)
    return architecture.replace(
        stages=[
            [cell.replace(drop_path_rate=rate * next(number) / count) for cell in stage]
            for stage in architecture.stages
        ]
    )
