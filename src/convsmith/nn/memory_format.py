"""Whether maps are channels-last, and whether what is made of them is to be."""

from __future__ import annotations

import torch
from torch import Tensor

from convsmith.nn.native import is_transformed


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a pixel are neighbours in memory, and the pixels of a channel are not."""
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def keeps_channels_last(x: Tensor) -> bool:
    """Whether an eager pass gives back maps as channels-last as `x` is; a compiler chooses the layout itself."""
    return not (torch.compiler.is_compiling() or is_transformed()) and is_channels_last(x)
