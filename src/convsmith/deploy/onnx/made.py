"""Tensors that a forward pass makes by itself: those alike for every batch are constants, others have one per image.

A tensor of zeros in the type of a map, as masks begin, says nothing about the map's values; and a class token is a
parameter until it is repeated for each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from convsmith.deploy.onnx.batch import is_from_batch

aten = torch.ops.aten
IN_THE_TYPE_OF = {aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default}
LIKE = {aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default}
OF_NUMBERS = {aten.zeros.default, aten.ones.default, aten.full.default}
REPEATING = {aten.expand.default, aten.repeat.default}


def constant(func: Any, args: Sequence[Any], kwargs: dict[str, Any], batch: int) -> Tensor | None:
    """What is made in the image of a map, with values, if its sizes do not come from the batch; None for all else."""
    if func not in IN_THE_TYPE_OF | LIKE:
        return None
    x, *rest = args
    sizes = rest[0] if func in IN_THE_TYPE_OF else x.shape
    if any(is_from_batch(size, batch) for size in sizes):
        return None
    shape = (0,) if func in IN_THE_TYPE_OF else tuple(sizes)
    return func(torch.empty(shape, dtype=x.dtype, device=x.device), *rest, **kwargs)  # type: ignore[no-any-return]


def is_per_image(func: Any, args: Sequence[Any], batch: int) -> bool:
    """Whether a constant, or a number, is repeated for each image."""
    if func not in OF_NUMBERS | REPEATING:
        return False
    return any(is_from_batch(size, batch) for size in args[0 if func in OF_NUMBERS else 1])
