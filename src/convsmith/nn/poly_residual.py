"""The polynomial residual of PolyNet (Zhang et al. 2017, arXiv:1611.05725)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.branches import Branch, chain_of, dilated, strided
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.drop_path import DropPath
from convsmith.nn.norm import BATCH_NORM, build_norm


@block("poly_residual")
class PolyResidual(nn.Module):
    """act(x + scale * (F + F^2 + ... + F^order)(x)): the "poly" modules (Sec. 3.1); poly-2 is of order 2.

    F concatenates its `branches`, each a `conv_norm_act` or a chain of them, and closes with a 1 x 1 convolution
    without activation; between two powers stands the activation. As in the released network the powers share the
    convolutions of the branches, while each has norms and a closing convolution of its own; the paper has one F.
    While training each power's summand is dropped with `drop_path_rate`, alone: our reading of "stochastic paths".
    """

    def __init__(
        self,
        in_channels: int,
        *,
        branches: tuple[Branch, ...],
        order: int = 3,
        scale: float = 1.0,
        drop_path_rate: float = 0.0,
        dilation: int = 1,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        if order < 1 or not branches:
            raise ValueError(f"a polynomial needs an order and branches of at least 1, got {order=}, {len(branches)=}")
        self.branches = nn.ModuleList()
        channels = 0
        for branch in branches:
            chain, width = nn.ModuleList(), in_channels
            for spec in strided(chain_of(branch), 1):
                chain.append(SharedConvNormAct(width, dilated(spec, dilation), order))
                width = spec.get("out_channels")
            self.branches.append(chain)
            channels += width
        self.closings = nn.ModuleList(
            ConvNormAct(channels, in_channels, kernel_size=1, norm=norm, act="identity") for _ in range(order)
        )
        self.scale = scale
        self.drop_path = DropPath(in_channels, rate=drop_path_rate)
        self.act = build_act(act, in_channels)
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        total = y = x
        for i, closing in enumerate(self.closings):
            y = closing(self._concatenated(y if i == 0 else self.act(y), i))
            summand = self.drop_path(y)
            # The first sum is a new map; further ones are added to it in place.
            total = torch.add(x, summand, alpha=self.scale) if i == 0 else total.add_(summand, alpha=self.scale)
        return cast(Tensor, self.act(total))

    def _concatenated(self, x: Tensor, power: int) -> Tensor:
        maps = []
        for branch in self.branches:
            y = x
            for conv in cast(nn.ModuleList, branch):
                y = conv(y, power)
            maps.append(y)
        return torch.cat(maps, 1)


class SharedConvNormAct(nn.Module):
    """A `conv_norm_act` that is called `calls` times: one convolution, and a norm for each call."""

    def __init__(self, in_channels: int, spec: BlockSpec, calls: int):
        super().__init__()
        if spec.block != ConvNormAct.block_name:  # type: ignore[attr-defined]
            raise ValueError(f"only the convolutions of conv_norm_act blocks can be shared by powers, got {spec}")
        unit = cast(ConvNormAct, spec.build(in_channels))
        norm, channels = spec.get("norm"), unit.out_channels
        self.conv = unit.conv
        self.norms = nn.ModuleList(build_norm(norm, channels) for _ in range(calls))
        self.act = build_act(spec.get("act"), channels)

    def forward(self, x: Tensor, call: int) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W') by the norm of that call, from 0 on."""
        return cast(Tensor, self.act(self.norms[call](self.conv(x))))
