"""Normalisation over groups of channels of one image: GroupNorm, and LayerNorm, which is one group.

A channels-last map stays channels-last in both directions. Torch copies it to (N, C, H, W) order on CUDA; on a CPU it
keeps the layout, but loops over the channels of one group, and is up to ten times slower than in (N, C, H, W) order
where these are few. In both cases the map is normalised here as rows of C values, one for each position. So it is where
means are large: the variance of torch's channels-last kernel, E[x^2] - E[x]^2 in one pass, loses its digits there.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from convsmith.arch import block
from convsmith.nn.native import is_transformed
from convsmith.nn.norm import check_moments

NARROW = 8  # fewer channels of a group than this are slow in torch on a CPU, as benchmarks/norm_speed.py measures
SMALL = 1024  # positions, from which on torch's forward pass (not its backward pass) goes another, quick way
LARGE_MEAN = 30.0  # deviations: beyond it the square leaves float32 fewer than four digits of the variance


@block("group_norm")
class GroupNorm(nn.GroupNorm):
    """gamma * (x - mean) / sqrt(var + eps) + beta, the moments those of `groups` groups of channels of one image.

    Wu & He 2018, arXiv:1803.08494, Sec. 3, with gamma and beta per channel; the variance is the biased one. Training
    and evaluation are the same, whatever the batch. ValueError for maps with one value per group.
    """

    def __init__(self, in_channels: int, *, groups: int = 32, eps: float = 1e-5):
        if groups < 1 or in_channels % groups:
            # A proper one: as many groups as channels would be another norm, that of each channel by itself.
            divisors = (g for g in range(min(max(groups, 1), in_channels // 2), 0, -1) if in_channels % g == 0)
            raise ValueError(
                f"in_channels must be divisible by groups, got {in_channels=} and {groups=}; "
                f"take groups={next(divisors, 1)}"
            )
        check_moments(eps=eps)
        super().__init__(groups, in_channels, eps=eps)
        self.out_channels = in_channels

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), in the memory format of the input."""
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


@block("layer_norm")
class LayerNorm(GroupNorm):
    """Layer normalisation for convolutions: over (C, H, W) of one image, `GroupNorm` with one group.

    Ba et al. 2016, arXiv:1607.06450, Sec. 3. Gamma and beta are per channel, as in the comparison of Wu & He 2018;
    `torch.nn.LayerNorm` over (C, H, W) has them per position, which ties a network to one image size.
    """

    def __init__(self, in_channels: int, *, eps: float = 1e-5):
        super().__init__(in_channels, groups=1, eps=eps)


@fx.wrap  # one node in a graph of torch.fx, which cannot follow the branches
def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`torch.nn.functional.group_norm` of (N, C, H, W), which keeps channels-last without a copy of the map."""
    if torch.compiler.is_compiling():
        return F.group_norm(x, groups, weight, bias, eps)  # a compiler chooses the layout itself
    if x.shape[1:].numel() == groups:
        if has_torch_function_unary(x):  # a subclass of tensors may have pixels that stand for many
            by_rule: Tensor = handle_torch_function(group_norm, (x,), x, groups, weight, bias, eps)
            return by_rule
        raise ValueError(
            f"group norm needs more than one value per group, got maps of shape {tuple(x.shape[1:])} with {groups=}; "
            "take fewer groups, or norm=spec(LayerNorm)"
        )
    # First whether it is transformed: a vmap does not answer for channels last.
    if is_transformed() or not x.is_contiguous(memory_format=torch.channels_last) or x.is_contiguous():
        return F.group_norm(x, groups, weight, bias, eps)
    if x.device.type == "cuda" and torch.is_autocast_enabled("cuda"):
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # as torch does it for norms
    narrow = x.shape[1] // groups < NARROW
    if x.device.type != "cuda" and not (narrow and x.device.type == "cpu"):
        if not _has_values(x):
            return F.group_norm(x, groups, weight, bias, eps)
        if found := _by_torch(x, weight, bias, groups, eps):
            return found[0]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, weight, bias)):
        normalised: Tensor = _ChannelsLast.apply(x, weight, bias, groups, eps)
        return normalised
    return _normalise(x, weight, bias, groups, eps)[0]


class _ChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        y, mean, rstd = _normalise(x, weight, bias, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups, ctx.eps = groups, eps
        return y.detach()  # not a view to autograd, which lets nothing work in place on a view that is made here

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """With z = (x - mean) * rstd: dx = rstd * (gamma * dy - mean(gamma * dy) - z * mean(gamma * dy * z))."""
        x, weight, mean, rstd = ctx.saved_tensors
        groups = ctx.groups
        rows, dy = _rows(x), _rows(grad)
        product = dy * rows.to(mean.dtype)
        memory: Tensor | None = product  # of one map serves all steps
        if torch.is_grad_enabled():  # for a second derivative: the moments depend on x, and nothing is overwritten
            mean, rstd = _moments(rows, groups, ctx.eps)
            memory = None
        channels = x.shape[1] // groups
        count = rows.shape[1] * channels
        mean, rstd = mean.repeat_interleave(channels, 1), rstd.repeat_interleave(channels, 1)
        sum_dy = dy.sum(1, dtype=mean.dtype)
        sum_dyz = (product.sum(1) - mean * sum_dy) * rstd
        mean_dy = _over_groups(sum_dy * weight, groups).repeat_interleave(channels, 1) / count
        mean_dyz = _over_groups(sum_dyz * weight, groups).repeat_interleave(channels, 1) / count
        slope = -mean_dyz * rstd * rstd
        shift = -mean_dy * rstd - mean * slope
        dx = torch.addcmul(shift[:, None], rows, slope[:, None], out=memory)
        dx = torch.addcmul(dx, dy, (rstd * weight)[:, None], out=memory)
        return _map(dx.to(x.dtype), x), sum_dyz.sum(0).to(weight.dtype), sum_dy.sum(0).to(weight.dtype), None, None


def _normalise(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised map, and mean and 1 / deviation of each group, (N, groups)."""
    positions = x.shape[2] * x.shape[3]
    quick = x.device.type == "cpu" and positions >= SMALL and x.dtype in (torch.float32, torch.float64)
    found = _by_torch(x, weight, bias, groups, eps) if quick else None
    return found or _normalise_rows(x, weight, bias, groups, eps)


def _by_torch(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """What torch's kernel gives; None where a mean is so large that its variance is inexact."""
    images, channels, positions = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    found = torch.native_group_norm(x, weight, bias, images, channels, positions, groups, eps)
    if not images or not _has_values(x):
        return found
    largest = torch.linalg.vector_norm(found[1] * found[2], math.inf).item()
    return None if largest > LARGE_MEAN else found


def _has_values(x: Tensor) -> bool:
    """Whether a branch may depend on values: on the CPU, and without a tracer or mode that follows the operators."""
    if not x.is_cpu or type(x) not in (Tensor, nn.Parameter):
        return False
    return not (_get_tracing_state() or _len_torch_dispatch_stack())


def _normalise_rows(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    rows = _rows(x)
    mean, rstd = _moments(rows, groups, eps)
    scale = rstd.repeat_interleave(x.shape[1] // groups, 1) * weight
    shift = bias - mean.repeat_interleave(x.shape[1] // groups, 1) * scale
    return _map(torch.addcmul(shift[:, None], rows, scale[:, None]).to(x.dtype), x), mean, rstd


def _moments(rows: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / deviation in two passes, as E[x^2] - E[x]^2 would cancel where the mean is large."""
    channels = rows.shape[2] // groups
    count = rows.shape[1] * channels
    mean = _over_groups(rows.sum(1, dtype=torch.promote_types(rows.dtype, torch.float32)), groups) / count
    centred = rows - mean.repeat_interleave(channels, 1)[:, None]
    return mean, (_over_groups((centred * centred).sum(1), groups) / count + eps).rsqrt()


def _over_groups(x: Tensor, groups: int) -> Tensor:
    """(N, C) -> (N, groups), the sums."""
    return x.view(x.shape[0], groups, -1).sum(2)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C), of a channels-last map a view."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _map(rows: Tensor, x: Tensor) -> Tensor:
    """(N, H * W, C) -> a channels-last map of the shape of x, a view."""
    return rows.view(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2)
