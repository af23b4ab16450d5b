"""Progressive Neural Architecture Search.  Liu, Zoph, Neumann, Shlens et al., ECCV 2018, arXiv:1712.00559.

PNASNet-5: one cell (Fig. 1), which takes a stride where it reduces, in the wiring of the released networks (TF-slim).
The reductions open the second and third stack in place of a normal cell.

Differs from the peers: pytorchcv's large network computes rows and columns that it then cuts away, 24,980 M MACs, and
takes only sizes at which its maps are odd and even as at 331 pixels. There all three are equal.
"""

from __future__ import annotations

from convsmith.arch import Architecture, spec
from convsmith.nn import BatchNorm, NasCell
from convsmith.zoo.cells import imagenet_network, with_growing_drop_path
from convsmith.zoo.variant import REBUILT, TIMM, About, Variant

# Fig. 1: s_k = operation(s_i) + operation(s_j), with s_0 the current and s_1 the previous map.
CELL = (
    ("sep_5x5", 1, "max_3x3", 1),  # s_2
    ("sep_7x7", 0, "max_3x3", 0),
    ("sep_5x5", 0, "sep_3x3", 0),
    ("sep_3x3", 4, "max_3x3", 0),
    ("sep_3x3", 1, "identity", 0),
)
CONCAT = (2, 3, 4, 5, 6)  # s_4 too, although s_5 reads it


def pnasnet5(
    *,
    filters: int,
    repeats: int,
    stem_channels: int,
    drop_path_rate: float = 0.0,
    num_classes: int = 1000,
    aux_heads: bool = False,
    aux_grid: int = 4,
) -> Architecture:
    """The network for ImageNet (Sec. 5.3): N = `repeats` cells in each stack; `aux_grid` 4 is that of 224 pixels."""
    cell = spec(
        NasCell, filters=filters, operations=CELL, concat=CONCAT, padding="same", norm=spec(BatchNorm, eps=1e-3)
    )
    network = imagenet_network(
        cell,
        cell,
        filters=filters,
        repeats=(repeats, repeats - 1, repeats - 1),
        stem_channels=stem_channels,
        num_classes=num_classes,
        aux_grid=aux_grid if aux_heads else None,
    )
    return with_growing_drop_path(network, drop_path_rate)


# timm registers the projection of a cell's current map behind that of its previous map, which here may stand in the
# cell before.
ORDERS = {TIMM: [("*.current.*", "*.conv_1x1.*")]}

LARGE = {"filters": 216, "repeats": 4, "stem_channels": 96, "drop_path_rate": 0.4, "aux_grid": 6}
MOBILE = {"filters": 54, "repeats": 3, "stem_channels": 32}

ABOUT = About(row=42, year=2018, topic="Model search: greedy")

# fmt: off
VARIANTS = (
    #       name               builder       params            MACs   at  source   peer             arguments
    Variant("pnasnet5_large",  pnasnet5, 86_057_668, 24_937_395_792, 331, TIMM,    "pnasnet5large", LARGE),
    Variant("pnasnet5_mobile", pnasnet5,  5_064_487,    587_293_200, 224, REBUILT, None,            MOBILE),
)
# fmt: on
