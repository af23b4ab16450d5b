"""Activations as blocks: a name in an architecture (`act="relu6"`) is a recorded call without arguments."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block, registered

IN_PLACE = ("relu", "relu6")  # their backward pass needs only the output, so it may replace the input
OTHER_NAMES = {"silu": "swish", "hswish": "hard_swish", "hardswish": "hard_swish"}


def build_act(act: str | BlockSpec, channels: int) -> nn.Module:
    """The activation of a name or spec behind `channels` channels.

    One given by name works in place where that is sound; a block applies it to maps of its own only. Raises ValueError
    for an unknown name.
    """
    if isinstance(act, BlockSpec):
        return cast(nn.Module, act.build(channels))
    if act in OTHER_NAMES:
        raise ValueError(f"unknown activation {act!r}; its name here is {OTHER_NAMES[act]!r}")
    return cast(nn.Module, registered(act).constructor(channels, **({"inplace": True} if act in IN_PLACE else {})))


class _Activation(nn.Module):
    def __init__(self, in_channels: int):
        super().__init__()
        self.out_channels = in_channels


@block("identity")
class Identity(_Activation):
    """The map itself; as an option of a choice it leaves a block out."""

    def __init__(self, in_channels: int):
        super().__init__(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x


@block("relu")
class ReLU(_Activation):
    """max(x, 0)."""

    def __init__(self, in_channels: int, *, inplace: bool = False):
        super().__init__(in_channels)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return F.relu(x, self.inplace)


@block("relu6")
class ReLU6(_Activation):
    """min(max(x, 0), 6), robust in low precision (Sandler et al. 2018, arXiv:1801.04381, Sec. 4)."""

    def __init__(self, in_channels: int, *, inplace: bool = False):
        super().__init__(in_channels)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return F.relu6(x, self.inplace)


@block("sigmoid")
class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    def __init__(self, in_channels: int):
        super().__init__(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return F.sigmoid(x)


@block("tanh")
class Tanh(_Activation):
    """The hyperbolic tangent."""

    def __init__(self, in_channels: int):
        super().__init__(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return F.tanh(x)


@block("elu")
class ELU(_Activation):
    """x for x > 0, else alpha * (exp(x) - 1) (Clevert et al. 2016, arXiv:1511.07289)."""

    def __init__(self, in_channels: int, *, alpha: float = 1.0):
        super().__init__(in_channels)
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return F.elu(x, self.alpha)


@block("hard_swish")
class HardSwish(_Activation):
    """x * relu6(x + 3) / 6 (Howard et al. 2019, arXiv:1905.02244, Sec. 5.2)."""

    def __init__(self, in_channels: int):
        super().__init__(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return F.hardswish(x)


@block("swish")
class Swish(_Activation):
    """x * sigmoid(beta * x) (Ramachandran et al. 2017, arXiv:1710.05941, Sec. 4).

    With "fixed" beta is 1, which is SiLU. It is trained from 1 on, one for each channel with "channel" or one for the
    whole map with "shared"; the paper trains it too, and names no starting value. Towards 0 the function tends to
    x / 2, towards infinity to ReLU.
    """

    def __init__(self, in_channels: int, *, beta: Literal["fixed", "channel", "shared"] = "fixed"):
        super().__init__(in_channels)
        if beta != "fixed":
            self.beta = nn.Parameter(torch.ones(in_channels if beta == "channel" else 1))
        self.trained = beta != "fixed"

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * F.sigmoid(per_channel(self.beta, x) * x) if self.trained else F.silu(x)


@fx.wrap  # one node of a traced graph: it asks how many axes there are
def per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    """(C) as (C, 1, 1) beside a map, or as (C) beside a vector of features (N, C); in the map's dtype."""
    return parameter.to(x.dtype).view(-1, *(1,) * (x.dim() - 2))
