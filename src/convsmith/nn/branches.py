"""Blocks of several chains side by side: concatenated as in Inception modules, or summed as a residual."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.channels import pair
from convsmith.nn.conv import same_padding

Branch = BlockSpec | tuple[BlockSpec, ...]  # one block, or a chain of them


@block("branches")
class Branches(nn.Module):
    """Branches side by side on one map, concatenated along the channels in their order: an Inception module.

    Szegedy et al. 2016, arXiv:1512.00567, Fig. 4 to 7 and 10. A branch is one block or a chain of blocks; its last one
    may be `branches` again where the figure splits. The last block of every branch takes `stride`, all other blocks
    have stride 1. `dilation` multiplies that of every block that has one (see `dilated`).
    """

    def __init__(self, in_channels: int, *, branches: tuple[Branch, ...], stride: int = 1, dilation: int = 1):
        super().__init__()
        if not branches:
            raise ValueError("branches must hold at least one branch, got none")
        self.branches = nn.ModuleList()
        self.out_channels = 0
        for branch in branches:
            module, channels = build_chain(in_channels, strided(chain_of(branch), stride), dilation)
            self.branches.append(module)
            self.out_channels += channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), C' the sum of the branches' channels."""
        return torch.cat([branch(x) for branch in self.branches], 1)


@block("scaled_residual")
class ScaledResidual(nn.Module):
    """act(x + scale * (F(x) + G(x) + ...)): paths side by side, each a chain of blocks that keeps the map's shape.

    One path is a residual Inception module (Szegedy et al. 2017, arXiv:1602.07261, Sec. 3.2 and 3.3, Fig. 20), its last
    block a 1 x 1 convolution without activation; several are the "2-way" and "3-way" modules of PolyNet (Zhang et al.
    2017, arXiv:1611.05725, Sec. 3.1). `dilation` is that of `Branches`.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        paths: tuple[Branch, ...],
        scale: float = 1.0,
        dilation: int = 1,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        if not paths:
            raise ValueError("paths must hold at least one path, got none")
        self.paths = nn.ModuleList()
        for path in paths:
            module, channels = build_chain(in_channels, strided(chain_of(path), 1), dilation)
            if channels != in_channels:
                raise ValueError(
                    f"a path must end with the channels of its input to be added to it, got {channels} behind "
                    f"{in_channels}; close it with a 1 x 1 convolution to {in_channels}"
                )
            self.paths.append(module)
        self.scale = scale
        self.act = build_act(act, in_channels)
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        total = x
        for i, path in enumerate(self.paths):
            # The first sum is a new map; further ones are added to it in place.
            total = torch.add(x, path(x), alpha=self.scale) if i == 0 else total.add_(path(x), alpha=self.scale)
        return cast(Tensor, self.act(total))


def chain_of(branch: Branch) -> tuple[BlockSpec, ...]:
    """A branch as a chain."""
    return (branch,) if isinstance(branch, BlockSpec) else branch


def build_chain(in_channels: int, chain: tuple[BlockSpec, ...], dilation: int) -> tuple[nn.Module, int]:
    """The module of a chain and the channels behind it; a chain of one block is that block's module."""
    modules: list[nn.Module] = []
    for spec in chain:
        modules.append(dilated(spec, dilation).build(in_channels))
        in_channels = cast(int, modules[-1].out_channels)
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules), in_channels


def dilated(spec: BlockSpec, dilation: int) -> BlockSpec:
    """The block with its windows `dilation` times as wide, and a padding given by number wider by what they grow.

    So branches keep one size, and weights their shapes. A block that takes no dilation, pooling say, stays as it is.
    """
    if dilation == 1 or not spec.has("dilation"):
        return spec
    own, padding = spec.get("dilation"), spec.get("padding")
    if padding is not None:
        grown = same_padding(spec.get("kernel_size"), own * (dilation - 1))
        padding = tuple(a + b for a, b in zip(pair(padding), pair(grown), strict=True))
        return spec.replace(dilation=own * dilation, padding=padding)
    return spec.replace(dilation=own * dilation)


def strided(chain: tuple[BlockSpec, ...], stride: int) -> tuple[BlockSpec, ...]:
    """The chain with the stride at its end; ValueError where a block has one already, or the last cannot take it."""
    for spec in chain:
        if spec.get("stride", 1) != 1:
            raise ValueError(
                f"the blocks of a branch must have stride 1, got {spec.block} with stride={spec.get('stride')}; give "
                "it to `branches` as a whole, where the last block of each branch takes it"
            )
    if stride == 1:
        return chain
    if not chain or not chain[-1].has("stride"):
        raise ValueError(
            f"with a stride of {stride} each branch must end with a block that takes a stride, got "
            f"{chain[-1].block if chain else 'an empty branch'}; end it with a convolution or pooling"
        )
    return (*chain[:-1], chain[-1].replace(stride=stride))
