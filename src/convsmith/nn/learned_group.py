"""Learned group convolution, trained and shipped (CondenseNet, Huang et al. 2018, arXiv:1711.09224)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block
from convsmith.nn.channels import check_divisible
from convsmith.nn.condensed_conv import CondensedConv2d
from convsmith.nn.dense import NormActConv
from convsmith.nn.norm import BATCH_NORM

# From it on a mask is 1 but for rounding: averages of ones lose a few digits.
KEPT = 0.999


@block("learned_group_conv2d")
class LearnedGroupConv2d(NormActConv):
    """Norm, activation and a 1 x 1 convolution whose groups of outputs learn which inputs they read (Sec. 3.1).

    Group g has the outputs g, g + groups, g + 2 groups, ...; `mask[g, j]` says whether it still reads input j. At each
    of the stages 1 to `condensation - 1` every group drops `in_channels / condensation` inputs, those with the smallest
    sum of |w| over its rows. The masks act in the forward pass: no gradient, momentum or weight decay brings an input
    back. Stage i begins as soon as 2 * progress >= i / (condensation - 1), so that condensing fills the first half of a
    training. From the last stage on, `condensed()` is the same function at 1 / `condensation` of the cost; until then
    the layer costs what a dense one does.

    The masks are floats, 1 or 0, so that averages of weights (`torch.optim.swa_utils.AveragedModel`) may take them with
    `use_buffers=True`: the average reads an input, `kept[g, j]`, where the mask has been 1 all along. With
    `use_buffers=False` it has the newest masks.

    `drop_rate` drops single values in front of the convolution, as in the released code.
    """

    mask: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int = 4,
        condensation: int = 4,
        drop_rate: float = 0.0,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        check_divisible(in_channels=in_channels, condensation=condensation)
        check_divisible(out_channels=out_channels, groups=groups)
        super().__init__(in_channels, out_channels, kernel_size=1, norm=norm, act=act)
        self.drop = nn.Dropout(drop_rate) if drop_rate else nn.Identity()
        self.register_buffer("mask", torch.ones(groups, in_channels))
        self.in_channels, self.groups, self.condensation = in_channels, groups, condensation
        self.norm_spec, self.act_spec = norm, act
        self._due = 0

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._due = -1  # the masks may be those of another step

    @property
    def kept(self) -> Tensor:
        """Whether each group still reads each input, (groups, in_channels) of bools."""
        return self.mask >= KEPT

    @property
    def stage(self) -> int:
        """The condensing stage that the masks have reached, from 0 to `condensation - 1`."""
        dropped = self.in_channels - int(self.kept[0].sum())
        return dropped * self.condensation // self.in_channels

    def on_step(self, step: int, total_steps: int) -> None:
        """Enter the stage that is due at step `step` of `total_steps`."""
        if total_steps < 1:
            raise ValueError(
                f"a schedule needs at least one step in total, got {total_steps=}; give the steps of the whole training"
            )
        due = min(self.condensation - 1, 2 * step * (self.condensation - 1) // total_steps)
        if due != self._due:  # not `self.stage`: an accelerator would stop at every step to read the masks
            self.condense(due)
            self._due = due

    @torch.no_grad()
    def condense(self, stage: int) -> None:
        """Drop inputs until stage * in_channels / condensation are dropped in each group; none ever returns."""
        if not 0 <= stage < self.condensation:
            raise ValueError(
                f"the stages of a layer with condensation={self.condensation} are 0 to {self.condensation - 1}, got "
                f"{stage=}; stage 0 drops nothing, the last one leaves in_channels / condensation"
            )
        # What is dropped comes first whatever its weights are now: it stays dropped.
        sums = self._rows().abs().sum(0).masked_fill(~self.kept, -1)
        order = sums.argsort(dim=1, stable=True)
        self.mask.scatter_(1, order[:, : stage * self.in_channels // self.condensation], 0)

    def group_lasso(self) -> Tensor:
        """The sum over groups and inputs of sqrt(sum of w^2 over the group's rows); 0 from the last stage on.

        It makes a group's rows agree on the inputs they do without (Sec. 3.1, weight 1e-5). That it ends with the
        condensing is the released code's choice. Its gradient at weights that are all zero is taken as zero.
        """
        condensing = self.kept[0].sum() > self.in_channels // self.condensation
        return torch.linalg.vector_norm(self._rows() * self.kept, dim=0).sum() * condensing

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        weight = (self._rows() * self.kept).flatten(0, 1)[:, :, None, None]
        return F.conv2d(self.drop(self.act(self.norm(x))), weight, self.conv.bias)

    @torch.no_grad()
    def condensed(self) -> CondensedConv2d:
        """The same function as a grouped convolution of the inputs that are left.

        Raises ValueError before the last stage, and for a norm or activation that mixes channels (GroupNorm): among
        fewer channels it is another function.
        """
        left = self.in_channels // self.condensation
        if not bool((self.kept.sum(1) == left).all()):
            raise ValueError(
                f"a layer is converted after its last stage, {self.condensation - 1}, this one is at {self.stage}; "
                f"train it with on_step or call condense({self.condensation - 1})"
            )
        weight = self.conv.weight
        target = CondensedConv2d(
            self.in_channels,
            self.out_channels,
            groups=self.groups,
            condensation=self.condensation,
            norm=self.norm_spec,
            act=self.act_spec,
        ).to(weight.device, weight.dtype)
        target.index.copy_(self.kept.nonzero()[:, 1])
        for name in ("norm", "act"):
            self._convert_channelwise(getattr(self, name), getattr(target, name), target.index)
        index = target.index.view(self.groups, 1, left).expand(-1, self.out_channels // self.groups, -1)
        target.conv.weight.copy_(self._rows().transpose(0, 1).gather(2, index).reshape(target.conv.weight.shape))
        if target.conv.bias is not None and self.conv.bias is not None:
            target.conv.bias.copy_(self.conv.bias.view(-1, self.groups).t().flatten())
        return target.train(self.training)

    def _rows(self) -> Tensor:
        """The weight as (C' / groups, groups, C): row k of group g is output k * groups + g."""
        return self.conv.weight.view(-1, self.groups, self.in_channels)

    def _convert_channelwise(self, source: nn.Module, target: nn.Module, index: Tensor) -> None:
        state = source.state_dict()
        target.load_state_dict({k: v[index] if v.shape[:1] == (self.in_channels,) else v for k, v in state.items()})
        x = torch.linspace(-1, 3, 4 * self.in_channels, dtype=self.conv.weight.dtype, device=index.device).sin()
        x = x.view(1, -1, 2, 2)
        expected = copy.deepcopy(source).eval()(x.clone())[:, index]
        if not torch.allclose(target.eval()(x[:, index]), expected):
            raise ValueError(
                f"only norms and activations that treat each channel by itself can be converted, got "
                f"{type(source).__name__}; take batch_norm and relu"
            )


def group_lasso(network: nn.Module) -> Tensor:
    """The group lasso of all learned group convolutions of a network together: a term of its loss."""
    layers = (module for module in network.modules() if isinstance(module, LearnedGroupConv2d))
    return sum((layer.group_lasso() for layer in layers), torch.zeros(()))
