"""The cell of NASNet, PNASNet, AmoebaNet and DARTS as one block (Zoph et al. 2018, arXiv:1707.07012, Sec. 3).

A found cell is data: combinations, `(operation, state, operation, state)` each, and the states that are concatenated.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import Identity
from convsmith.nn.cell_operation import build_operation
from convsmith.nn.cell_parts import ActConvNorm, FactorizedReduction
from convsmith.nn.drop_path import DropPath
from convsmith.nn.norm import BATCH_NORM
from convsmith.nn.same_padding import Padding

Combination = tuple[str, int, str, int]


@block("nas_cell", carries=2)
class NasCell(nn.Module):
    """Combinations operation(s_i) + operation(s_j) of two states each; some of the states are concatenated.

    States are numbered as in TF-slim: s_0 is the current map behind a 1 x 1 convolution to `filters` channels, s_1 the
    previous map likewise, s_2 the first combination, and so on. (DARTS has the previous map as 0, the current as 1.)
    `concat` None concatenates the combinations that no other one reads; the lists of papers may differ.

    The two maps between cells, previous and current, are always of one size. Operations on s_0 and s_1 take the stride.
    A strided cell hands on, as the next cell's previous map, one of its own two inputs behind a factorised reduction
    to the filters of that next cell (papers draw it there): `("current", filters)` or, which skips this cell,
    `("previous", filters)`. With `hand_on` None it hands on its current input, or its output where it has a stride.

    The previous map is brought to `filters` channels by a 1 x 1 convolution where it has others; with
    `project_previous` "always" in any case, as DARTS does with a map that was not reduced, with False never, as NASNet
    does in the first cell of a network. `drop_path_rate` drops operations by the schedule of `DropPath`, but not the
    identity (in any form), nor a skip that changes nothing.
    """

    def __init__(
        self,
        in_channels: tuple[int, int],
        *,
        filters: int,
        operations: tuple[Combination, ...],
        concat: tuple[int, ...] | None = None,
        stride: int = 1,
        hand_on: tuple[Literal["current", "previous"], int] | None = None,
        project_previous: bool | Literal["always"] = True,
        padding: Padding = "symmetric",
        drop_path_rate: float = 0.0,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        if filters < 1 or stride < 1 or (hand_on and hand_on[1] < 2):
            raise ValueError(
                "a cell needs positive filters and stride, and hands on at least 2 channels, got "
                f"{filters=}, {stride=}, {hand_on=}"
            )
        self.concat = check_genotype(operations, concat)
        self.reads = tuple((i, j) for _, i, _, j in operations)
        previous, current = in_channels
        projects = project_previous == "always" or (project_previous and previous != filters)
        channels = [filters, filters if projects else previous, *(filters for _ in operations)]

        def operation(name: str, state: int) -> nn.Module:
            step = stride if state < 2 else 1
            module = build_operation(name, channels[state], filters, stride=step, padding=padding, norm=norm, act=act)
            if name == "identity" or isinstance(module, Identity) or drop_path_rate == 0:
                return module
            return nn.Sequential(module, DropPath(filters, rate=drop_path_rate, scheduled=True))

        def join(state: int) -> nn.Module:  # an input of the cell is brought to the size and width of its output
            if state < 2 and stride > 1:
                return FactorizedReduction(channels[state], filters, stride=stride, norm=norm, act="identity")
            if channels[state] != filters:
                return ActConvNorm(channels[state], filters, norm=norm, act="identity")
            return nn.Identity()

        self.previous = ActConvNorm(previous, filters, norm=norm, act=act) if projects else nn.Identity()
        self.current = ActConvNorm(current, filters, norm=norm, act=act)
        self.combinations = nn.ModuleList(
            Sum(operation(left, i), operation(right, j)) for left, i, right, j in operations
        )
        self.joins = nn.ModuleList(map(join, self.concat))
        self.handed: str = hand_on[0] if hand_on else ("output" if stride > 1 else "current")
        width = hand_on[1] if hand_on else None
        handed = {"previous": previous, "current": current, "output": filters * len(self.concat)}[self.handed]
        self.reduce = FactorizedReduction(handed, width, stride=stride, norm=norm, act=act) if width else nn.Identity()
        self.out_channels = (width or handed, filters * len(self.concat))

    def forward(self, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Previous and current map, (N, C, H, W) and (N, C', H, W), to those of the next cell."""
        previous, current = maps
        states = [self.current(current), self.previous(previous)]
        for (i, j), combination in zip(self.reads, self.combinations, strict=True):
            states.append(combination(states[i], states[j]))
        output = torch.cat([join(states[i]) for i, join in zip(self.concat, self.joins, strict=True)], 1)
        handed = {"previous": previous, "current": current, "output": output}[self.handed]
        return self.reduce(handed), output


class Sum(nn.Module):
    """left(x) + right(y)."""

    def __init__(self, left: nn.Module, right: nn.Module):
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two maps of one size to one."""
        return self.left(x) + self.right(y)


def check_genotype(operations: tuple[Combination, ...], concat: tuple[int, ...] | None) -> tuple[int, ...]:
    """The states that a cell concatenates; ValueError where the cell reads a state that is not there."""
    if not operations:
        raise ValueError("a cell needs at least one combination (operation, state, operation, state), got none")
    for k, (_, i, _, j) in enumerate(operations, start=2):
        if not (0 <= i < k and 0 <= j < k):
            raise ValueError(f"the combination that makes state {k} must read states 0 to {k - 1}, got {i} and {j}")
    made = range(2, len(operations) + 2)
    if concat is None:
        read = {state for _, i, _, j in operations for state in (i, j)}
        return tuple(state for state in made if state not in read)
    if not concat or len(set(concat)) < len(concat) or not all(0 <= state < made.stop for state in concat):
        raise ValueError(f"a cell must concatenate different states of 0 to {made.stop - 1}, got {concat=}")
    return concat
