"""Fractal block and drop-path (FractalNet: Ultra-Deep Neural Networks without Residuals, Larsson et al. 2017)."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import torch
from torch import Tensor, nn

from convsmith.arch import Architecture, BlockSpec, block
from convsmith.nn.channels import check_odd_kernel
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM
from convsmith.nn.unsaved import Unsaved

SPAN = 2**24  # whole numbers up to here are exact in float32
GOLDEN_STEP = 10_368_889  # SPAN over the golden ratio, odd: its multiples spread evenly, and all of SPAN is met


@block("fractal_block")
class FractalBlock(Unsaved):
    """f_1 = conv, f_{C+1} = join(f_C of f_C, conv) with C = `columns` (arXiv:1605.07648, Sec. 3).

    conv is a k x k convolution with norm and activation; `drop_rate` drops single values behind it (in the authors'
    code: in front of the norm). join is the mean of its inputs. Column c, counted from the shallowest as 1, is a chain
    of 2^(c - 1) convolutions; `only_column` builds that chain alone, under the names its weights have in the whole.

    Drop-path leaves inputs of joins out while training; a join is the mean of the rest. It is drawn for each image (in
    the authors' code: for each batch). A share `global_drop_share` of the images keeps a single column, the same one in
    all fractal blocks of the network. For the others each join drops each input with probability `local_drop_rate`,
    and revives one of them at random where all fell. The paper has a rate of 0.15 and a share of one half.

    Local masks come from torch's generator. The kept columns must agree between blocks that do not know each other, so
    they are no draw: image n has the fraction u = (turn + n * golden ratio) mod 1, which decides column or none.
    `on_step` sets the turn from `torch.initial_seed()` and the step, all that blocks share; where nobody calls it, the
    turn stays 0. A join that the kept column does not pass keeps all inputs: only the statistics of norms meet it.
    """

    turn: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        columns: int = 3,
        kernel_size: int = 3,
        dilation: int = 1,
        drop_rate: float = 0.0,
        local_drop_rate: float = 0.0,
        global_drop_share: float = 0.0,
        only_column: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        if columns < 1:
            raise ValueError(
                f"a fractal block must have at least one column, got {columns=}; 1 is a single convolution"
            )
        if only_column is not None and not 1 <= only_column <= columns:
            raise ValueError(
                f"only_column must be one of the columns 1 (the shallowest) to {columns}, got {only_column}; "
                "None builds all of them"
            )
        if not (0 <= local_drop_rate < 1 and 0 <= global_drop_share <= 1):
            raise ValueError(
                "local_drop_rate must be at least 0 and below 1, global_drop_share between 0 and 1, got "
                f"{local_drop_rate=} and {global_drop_share=}; 0 drops no paths"
            )
        # Row t holds the t-th convolution of the deepest column, and of each column that reaches the join behind it.
        self.rows = nn.ModuleList()
        for t in range(1, 2 ** (columns - 1) + 1):
            row = nn.ModuleDict()
            for column in range(columns, 0, -1):
                span = 2 ** (columns - column)
                if t % span == 0 and only_column in (None, column):
                    row[str(column)] = ConvNormAct(
                        in_channels if t == span else out_channels,
                        out_channels,
                        kernel_size=kernel_size,
                        dilation=dilation,
                        norm=norm,
                        act=act,
                    )
            self.rows.append(row)
        self.dropout = nn.Dropout(drop_rate) if drop_rate else nn.Identity()
        self.columns = columns
        self.local_drop_rate = local_drop_rate
        self.global_drop_share = global_drop_share
        self.register_buffer("turn", torch.empty((), dtype=torch.int64), persistent=False)
        self.out_channels = out_channels
        self.fill()

    def fill(self) -> None:
        """Set the turn of a block without steps."""
        self.turn.zero_()

    def on_step(self, step: int, total_steps: int) -> None:
        """Choose anew which column which image of a batch keeps."""
        self.turn.fill_(Random(f"{torch.initial_seed()}:{step}").randrange(SPAN))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        kept = self._kept_columns(x) if self.training and (self.local_drop_rate or self.global_drop_share) else None
        reads = dict.fromkeys(map(str, range(1, self.columns + 1)), x)
        for row in self.rows:
            convs = cast(nn.ModuleDict, row)
            maps = [self.dropout(conv(reads[column])) for column, conv in convs.items()]
            if maps:
                x = self._join(maps, kept)
                reads |= dict.fromkeys(convs, x)
        return x

    def _kept_columns(self, x: Tensor) -> Tensor:
        """(N,): the column that each image keeps, 0 where its joins drop on their own."""
        images, share = torch.arange(x.shape[0], device=x.device), self.global_drop_share
        if not share:
            return torch.zeros_like(images)
        u = (self.turn + GOLDEN_STEP * images) % SPAN / SPAN
        column = 1 + (u / share * self.columns).long().clamp(max=self.columns - 1)
        return torch.where(u < share, column, 0)

    def _join(self, maps: list[Tensor], kept: Tensor | None) -> Tensor:
        """The mean of the maps that are alive; they come from the deepest column and its neighbours, in this order."""
        if len(maps) == 1:
            return maps[0]
        if kept is None:
            return sum(maps[1:], maps[0]) / len(maps)
        scores = torch.rand(len(maps), len(kept), device=kept.device)
        # The highest score lives in any case: where all are below the rate, it is the one revived.
        alive = scores >= scores.amax(0).clamp(max=self.local_drop_rate)
        chosen = kept == torch.arange(self.columns, self.columns - len(maps), -1, device=kept.device)[:, None]
        alive = torch.where(kept > 0, chosen | ~chosen.any(0), alive)
        weights = (alive / alive.sum(0)).to(maps[0].dtype)[:, :, None, None, None]
        return sum((w * y for w, y in zip(weights[1:], maps[1:], strict=True)), weights[0] * maps[0])


def single_column(architecture: Architecture, column: int) -> Architecture:
    """The same network with `only_column=column` in each fractal block; its weights have the names of the whole's.

    Raises ValueError where the network has no fractal block.
    """
    found = 0

    def narrowed(node: Any) -> Any:
        nonlocal found
        if isinstance(node, tuple):
            return tuple(map(narrowed, node))
        if not isinstance(node, BlockSpec):
            return node
        if node.block == "fractal_block":
            found += 1
            return node.replace(only_column=column)
        return BlockSpec(node.block, [(name, narrowed(value)) for name, value in node.arguments])

    parts = {name: narrowed(getattr(architecture, name)) for name in ("stem", "stages", "neck")}
    if not found:
        raise ValueError(f"{architecture.name} must have a fractal block to have columns; take a FractalNet")
    return architecture.replace(**parts)
