"""How often a network may halve its maps, given the size of its input."""

from __future__ import annotations

import math


def halvings(input_size: int) -> int:
    """As many as leave a map of at least 4 x 4, and five at most: stride 32, the classic networks' at 224.

    ValueError below an input of 4 x 4.
    """
    if type(input_size) is not int or input_size < 4:
        raise ValueError(f"input_size must be an integer of at least 4, got {input_size!r}; enlarge the images")
    return min(5, int(math.log2(input_size / 4)))
