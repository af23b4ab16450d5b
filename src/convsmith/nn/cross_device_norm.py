"""Batch normalisation over the batches of several processes.

Cross-GPU batch normalisation (MegDet: A Large Mini-Batch Object Detector, Peng et al., CVPR 2018, arXiv:1711.07240),
for every backend of torch.distributed and any device; torch's SyncBatchNorm refuses tensors on a CPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, distributed as dist
from torch.nn import functional as F

from convsmith.arch import block
from convsmith.nn.norm import BatchNorm, batch_moments


@block("cross_device_batch_norm")
class CrossDeviceBatchNorm(BatchNorm):
    """Batch norm whose statistics in training are those of the joined batch of a group of processes.

    A group is `group_size` consecutive ranks of torch.distributed, or all of them; it must divide their number. Groups
    are made at the first training pass, which all processes must do together, as every training pass and its gradient.
    Batches may differ in size and be empty, which on all ranks leaves the statistics. Without an initialised
    torch.distributed, and in evaluation, this is plain batch norm.

    What is equal to batch norm on the joined batch: outputs and running statistics on every rank, and, of the sum of
    the ranks' losses, the gradient of the input. The gradients of weight and bias are each rank's share, to be summed,
    as for all parameters: `DistributedDataParallel` divides their sum by the number of ranks, so let a rank's loss be
    the number of ranks times the sum over its images divided by all images.

    Each rank tells its count, mean and squared deviation, which are joined by the rule of Chan et al. (1979). That
    takes one exchange, where the paper's sums of x and then of (x - mean)^2 take two, and does not cancel as the sums
    of x and x^2 do, which take one. Every rank computes the same numbers in the same order.
    """

    def __init__(self, in_channels: int, *, group_size: int | None = None, eps: float = 1e-5, momentum: float = 0.1):
        check_group_size(group_size)
        super().__init__(in_channels, eps=eps, momentum=momentum)
        self.group_size = group_size

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        group = process_group(self.group_size) if self.training else None
        if group is None:
            return super().forward(input)
        y, mean, variance, count = _JoinedBatchNorm.apply(input, self.weight, self.bias, self.eps, group)
        with torch.no_grad():
            momentum = self.count_batch() * count.clamp(max=1)  # nothing of no values
            self.running_mean.add_(momentum * (mean - self.running_mean))
            self.running_var.add_(momentum * (variance * count / (count - 1) - self.running_var))
        normalised: Tensor = y
        return normalised


def check_group_size(group_size: int | None) -> None:
    """Raise ValueError for a group of no process."""
    if group_size is not None and group_size < 1:
        raise ValueError(f"a group needs at least one process, got {group_size=}; None means all of them")


def process_group(group_size: int | None) -> dist.ProcessGroup | None:
    """This process's group of so many consecutive ranks (None: all); None where it is alone or nothing is initialised.

    Raises ValueError where the size does not divide the number of processes.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return None
    processes = dist.get_world_size()
    size = processes if group_size is None else group_size
    if processes % size:
        raise ValueError(
            f"group_size must divide the number of processes, got {group_size=} and {processes} processes; "
            "take a divisor, or None for all of them"
        )
    if size == 1:
        return None
    world: Any = dist.group.WORLD
    found: dist.ProcessGroup = world if size == processes else _groups(world, size)[dist.get_rank() // size]
    return found


@lru_cache(maxsize=8)  # by the group of all processes, so that a new initialisation makes new groups
def _groups(world: Any, size: int) -> list[Any]:
    return [dist.new_group(list(range(first, first + size))) for first in range(0, dist.get_world_size(), size)]


def join_moments(mean: Tensor, variance: Tensor, count: int, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance and count of the joined values, from the moments (C) of `count` values on each rank.

    Of no values mean and variance are 0.
    """
    own = torch.cat([mean, variance, mean.new_tensor([count])]) if count else mean.new_zeros(2 * len(mean) + 1)
    told = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(told, own, group=group)
    means, variances, counts = torch.split(torch.stack(told), [len(mean), len(mean), 1], 1)
    total = counts.sum()
    divisor = total.clamp(min=1)
    joined = (counts * means).sum(0) / divisor
    return joined, (counts * (variances + (means - joined) ** 2)).sum(0) / divisor, total


class _JoinedBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: dist.ProcessGroup
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = x.numel() // x.shape[1]
        mean, variance, count = join_moments(*batch_moments(x), own, group)
        # Reading the count makes a GPU wait, so it is read only where it may be 1, which all ranks then find.
        if own <= 1 and count == 1:
            raise ValueError(
                "batch norm needs more than one value per channel in training, got 1 over all processes of the "
                "group; train with larger batches, larger images or a larger group"
            )
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count.clamp(min=1))
        ctx.eps, ctx.group = eps, group
        ctx.mark_non_differentiable(mean, variance, count)
        # In the precision of the moments: torch takes all four in one, beside maps in half precision.
        scale, shift = weight.to(mean.dtype), bias.to(mean.dtype)
        return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """With z = (x - mean) * rstd: dx = gamma * rstd * (dy - mean(dy) - z * mean(dy * z)), means over all ranks."""
        x, weight, mean, rstd, count = ctx.saved_tensors
        dims, shape = [0, *range(2, x.dim())], (-1, *[1] * (x.dim() - 2))
        if torch.is_grad_enabled():  # for a second derivative: the moments depend on x
            mean = _SumOverRanks.apply(x.sum(dims, dtype=mean.dtype), ctx.group) / count
            squares = _SumOverRanks.apply(((x - mean.view(shape)) ** 2).sum(dims), ctx.group)
            rstd = (squares / count + ctx.eps).rsqrt()
        centred = x - mean.view(shape)
        shares = torch.cat([(dy * centred).sum(dims) * rstd, dy.sum(dims, dtype=mean.dtype)])
        mean_dyz, mean_dy = (_SumOverRanks.apply(shares, ctx.group) / count).chunk(2)
        scale = weight * rstd
        dx = torch.addcmul((-scale * mean_dy).view(shape), centred, (-scale * rstd * mean_dyz).view(shape))
        dx = torch.addcmul(dx, dy, scale.view(shape)).to(x.dtype)
        return dx, *(share.to(weight.dtype) for share in shares.chunk(2)), None, None


class _SumOverRanks(torch.autograd.Function):
    """The gradient of all ranks' losses for what a rank adds is the sum of their gradients for the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, None]:
        return _SumOverRanks.apply(grad, ctx.group), None
