"""Blocks that hold other blocks: a chain as one block, and the weighted mixture of a supernet."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from convsmith.arch import BlockSpec, block


@block("sequence")
class Sequence(nn.Module):
    """A chain of blocks as one block; empty, it is the identity."""

    def __init__(self, in_channels: int, *, blocks: tuple[BlockSpec, ...] = ()):
        super().__init__()
        self.blocks = nn.ModuleList()
        for spec in blocks:
            self.blocks.append(spec.build(in_channels))
            in_channels = cast(int, self.blocks[-1].out_channels)
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        for module in self.blocks:
            x = module(x)
        return x


@block("mixed")
class Mixed(nn.Module):
    """The options of a choice, summed with the softmax of `alpha` as weights.

    The mixture of DARTS (Liu et al. 2019, arXiv:1806.09055, Eq. 2). `alpha` has one entry an option and starts at zero.
    The options must agree in shape. `name` is that of the choice: mixtures of one name share their `alpha` in a
    supernet.
    """

    def __init__(self, in_channels: int, *, options: tuple[BlockSpec, ...], name: str | None = None):
        super().__init__()
        self.options = nn.ModuleList(option.build(in_channels) for option in options)
        widths = [cast(int, option.out_channels) for option in self.options]
        if len(set(widths)) != 1:
            raise ValueError(
                f"the options of a mixture must have equal out_channels, got {widths}; mix other arguments"
            )
        self.alpha = nn.Parameter(torch.zeros(len(options)))
        self.name = name
        self.out_channels = widths[0]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        weights = self.alpha.softmax(0)
        return torch.stack([weight * option(x) for weight, option in zip(weights, self.options, strict=True)]).sum(0)
