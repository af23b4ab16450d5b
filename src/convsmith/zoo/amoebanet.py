"""Regularized Evolution for Image Classifier Architecture Search.  Real et al., AAAI 2019, arXiv:1802.01548.

Cells and wiring are those of the released code, where the stem has 32 channels and a convolution that is not separable
stands between 1 x 1 ones to a quarter of the filters and back. Its drop-path grows in time, not along the depth.

Differs from the paper: B with 190 filters has 79.0 M parameters and 20.9 B MACs; the paper's table prints 84.0 M and
22.3 B, which are those of 196 filters. D has no figures in the paper; its width is the default of the code.

Interpretations: the first two widths are rounded down (190 / 4 is 47), odd ones are halved to 47 and 48, where the code
stops; the separable 5 x 5 convolution of B is dilated, as its name says, where the code builds it without; the auxiliary
classifier has NASNet's 128 and 768 channels, where the code multiplies them by the weight of the loss, 0.4.
"""

from __future__ import annotations

from convsmith.arch import Architecture, spec
from convsmith.nn import BatchNorm, NasCell
from convsmith.nn.cell import Combination
from convsmith.zoo.cells import imagenet_network
from convsmith.zoo.variant import PAPER, REBUILT, About, Variant

Cells = tuple[tuple[Combination, Combination], ...]

# s_k = operation(s_i) + operation(s_j), with s_0 the current and s_1 the previous map. The states to concatenate are
# set by hand: other combinations read some of them.
# fmt: off
A: Cells = (
    #  normal cell                         reduction cell
    (("avg_3x3",  0, "max_3x3",      0), ("sep_3x3",      1, "avg_3x3",      0)),  # s_2
    (("sep_3x3",  1, "identity",     1), ("max_3x3",      0, "sep_7x7",      2)),
    (("identity", 0, "avg_3x3",      1), ("max_3x3",      1, "max_3x3",      0)),
    (("sep_3x3",  0, "sep_5x5",      2), ("sep_3x3",      4, "conv_1x7_7x1", 0)),
    (("avg_3x3",  5, "sep_3x3",      0), ("avg_3x3",      1, "sep_7x7",      0)),
)
B: Cells = (
    (("conv_1x1", 1, "max_3x3",      1), ("max_2x2",      0, "max_3x3",      0)),
    (("identity", 1, "sep_3x3",      0), ("identity",     2, "conv_3x3",     1)),
    (("conv_1x1", 1, "sep_3x3",      0), ("sep_dil_5x5",  2, "max_3x3",      2)),
    (("conv_1x1", 2, "identity",     2), ("identity",     3, "sep_3x3",      1)),
    (("avg_3x3",  1, "conv_1x1",     5), ("avg_3x3",      4, "conv_1x1",     3)),
)
C: Cells = (
    (("avg_3x3",  0, "sep_3x3",      0), ("max_3x3",      0, "max_3x3",      0)),
    (("identity", 0, "sep_3x3",      0), ("sep_7x7",      2, "sep_3x3",      0)),
    (("avg_3x3",  2, "sep_3x3",      1), ("sep_7x7",      0, "max_3x3",      1)),
    (("identity", 0, "sep_3x3",      1), ("sep_5x5",      4, "sep_5x5",      4)),
    (("avg_3x3",  3, "sep_3x3",      0), ("max_3x3",      1, "sep_3x3",      1)),
)
D: Cells = (
    (("conv_1x1", 1, "max_3x3",      1), ("max_2x2",      0, "max_3x3",      0)),
    (("identity", 1, "conv_1x7_7x1", 0), ("identity",     2, "conv_3x3",     1)),
    (("conv_1x1", 0, "conv_1x7_7x1", 0), ("conv_1x7_7x1", 2, "max_3x3",      2)),
    (("max_3x3",  2, "identity",     2), ("identity",     3, "max_2x2",      1)),
    (("avg_3x3",  1, "conv_1x1",     5), ("avg_3x3",      2, "conv_1x1",     3)),
)
# fmt: on


def amoebanet(
    *,
    cells: Cells,
    concat: tuple[tuple[int, ...], tuple[int, ...]],
    filters: int,
    repeats: int = 6,
    num_classes: int = 1000,
    aux_heads: bool = False,
    aux_grid: int = 6,
) -> Architecture:
    """The network for ImageNet (Sec. 3.3): N = `repeats`, F = `filters`; `aux_grid` 6 is that of 331 pixels."""
    (normal, reduction), norm = zip(*cells, strict=True), spec(BatchNorm, eps=1e-3)
    cell = spec(
        NasCell,
        filters=filters,
        operations=normal,
        concat=concat[0],
        padding="same",
        drop_path_rate=0.3,
        norm=norm,
    )
    return imagenet_network(
        cell,
        cell.replace(operations=reduction, concat=concat[1]),
        filters=filters,
        repeats=(repeats, repeats, repeats),
        stem_channels=32,
        num_classes=num_classes,
        aux_grid=aux_grid if aux_heads else None,
    )


OF_A = {"cells": A, "concat": ((1, 3, 4, 6), (2, 3, 4, 5, 6))}
OF_B = {"cells": B, "concat": ((0, 3, 4, 6), (5, 6))}
OF_C = {"cells": C, "concat": ((1, 2, 4, 5, 6), (0, 2, 3, 4, 5, 6))}
OF_D = {"cells": D, "concat": ((0, 3, 4, 6), (4, 5, 6)), "aux_grid": 5}

ABOUT = About(row=44, year=2019, topic="Model search: evolution")

# fmt: off
VARIANTS = (
    #       name           builder         params            MACs   at  source   peer  arguments
    Variant("amoebanet_a", amoebanet,  86_718_797, 23_133_663_507, 331, PAPER,   None, {**OF_A, "filters": 190}),
    Variant("amoebanet_b", amoebanet,  79_008_676, 20_934_489_887, 331, REBUILT, None, {**OF_B, "filters": 190}),
    Variant("amoebanet_c", amoebanet, 155_272_667, 41_129_488_875, 331, PAPER,   None, {**OF_C, "filters": 228}),
    Variant("amoebanet_d", amoebanet, 121_911_016, 26_964_901_216, 299, REBUILT, None, {**OF_D, "filters": 256}),
)
# fmt: on
