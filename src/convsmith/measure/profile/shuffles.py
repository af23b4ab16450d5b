"""Channel shuffles that are written out as view - transpose - copy - view, recognised from strides and shapes."""

from __future__ import annotations

from torch import Tensor


def swapped_pairs(x: Tensor) -> tuple[int, ...]:
    """Dimensions i such that i and i + 1 lie in memory in the other order: what a transposition of neighbours leaves.

    Of a map (N, C, H, W) viewed as (N, g, C / g, H, W) and transposed it is 1, in either memory format.
    """
    sizes, strides = x.shape, x.stride()
    return tuple(
        i
        for i in range(x.dim() - 1)
        if sizes[i] > 1 and sizes[i + 1] > 1 and strides[i + 1] == sizes[i] * strides[i] and strides[i]
    )


def merges_a_pair(before: tuple[int, ...], after: tuple[int, ...], pairs: tuple[int, ...]) -> bool:
    """Whether a view from one shape to the other makes exactly one of the pairs one dimension and leaves all others.

    The heads of an attention step and the windows of a Swin block are transposed too, but other dimensions are merged.
    """
    return any((*before[:i], before[i] * before[i + 1], *before[i + 2 :]) == after for i in pairs)
