"""Running statistics recomputed over given batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed as dist, nn
from torch.nn.modules.batchnorm import _BatchNorm

from convsmith.nn.batch_renorm import BatchRenorm
from convsmith.nn.cross_device_norm import CrossDeviceBatchNorm, join_moments, process_group
from convsmith.nn.norm import MeanOnlyBatchNorm, batch_moments
from convsmith.nn.observe import observed


@torch.no_grad()
def precise_batch_norm(
    network: nn.Module,
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    *,
    forward: Callable[[Tensor], object] | None = None,
    all_ranks: bool = False,
) -> list[str]:
    """Set the running statistics of batch norms to those of the given batches, by weights that no longer change.

    A moving average lags behind the weights: by much where steps are few and long, as with large batches. Precise
    batch norm (Wu & Johnson 2021, arXiv:2105.07576, Sec. 3) passes the batches through the network, each normalised
    by its own statistics, and pools mean mu_b and biased variance s_b of the n_b values of each batch:
    mean = sum(n_b mu_b) / n and variance = sum(n_b (s_b + (mu_b - mean)^2)) / (n - 1), which are E[mu_b] and
    E[mu_b^2 + s_b] - E[mu_b]^2 but for the last division: it is that of batch norm's own running variance (Ioffe &
    Szegedy 2015, Alg. 2). A `BatchRenorm`, which keeps the biased variance, gets this. `momentum` plays no
    part.

    Norms are in training mode, everything else is in eval mode, without dropout. A `BatchRenorm` takes r = 1 and d = 0.
    Of a `CrossDeviceBatchNorm` the statistics are those of its group's batches, which must be equally many on all of
    its ranks; with `all_ranks` those of every norm are those of all ranks' batches. Weights, training flags and other
    buffers stay as they were, after an error the statistics too. What is compiled runs uncompiled.

    Args:
        network: With batch norms that keep running statistics, torch's and those of this package.
        batches: (N, C, H, W) each, or tuples of which that is the first; they are moved to the network's device.
        forward: Called with each batch; the network itself unless given. `network.forward_aux` reaches auxiliary heads.
        all_ranks: Pool over all processes of torch.distributed.

    Returns the names of the norms that the batches met, of other ranks too where they are pooled: a rank may have none.
    The others keep their statistics. Raises ValueError if there are none, or no batch on any rank, and TypeError for
    batches of another kind.
    """
    names = {module: name for name, module in network.named_modules() if _keeps_statistics(module)}
    if not names:
        raise ValueError("the network must have a batch norm with running statistics, got none; leave this step out")
    pools: dict[Any, _Pool] = {norm: _Pool(norm) for norm in names}

    def observe(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        pools[norm].add(*batch_moments(x), x.numel() // x.shape[1])

    kept = {buffer: buffer.clone() for norm in names for buffer in norm.buffers(recurse=False)}
    device = next(iter(kept)).device
    try:
        with observed(network, names, observe):
            for norm in names:
                norm.training = True
                if isinstance(norm, BatchRenorm):
                    norm.r_max.fill_(1)
                    norm.d_max.zero_()
            for batch in batches:
                (forward or network)(_images(batch).to(device))
    finally:
        for buffer, value in kept.items():
            buffer.copy_(value)
    # Of all norms, in the same order on all ranks: one that met no batch here may have met some on another rank.
    met = [name for norm, name in names.items() if pools[norm].write(norm, _group_of(norm, all_ranks))]
    if not met:
        raise ValueError("precise batch norm needs at least one batch that meets a batch norm, got none")
    return met


class _Pool:
    """Count, mean and sum of squared deviations of the values so far, in float64 (Chan et al. 1979)."""

    def __init__(self, norm: Any):
        self.count = 0
        self.mean = torch.zeros_like(norm.running_mean, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)

    def add(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if count == 0:  # of no values the mean is nan
            return
        total, step = self.count + count, mean - self.mean
        self.mean += step * (count / total)
        self.squares += variance * count + step**2 * (self.count * count / total)
        self.count = total

    def write(self, norm: Any, group: dist.ProcessGroup | None) -> bool:
        """Set the statistics to those of the group's values; False, and nothing is set, where there are none."""
        mean, variance, count = self.mean, self.squares / max(self.count, 1), torch.tensor(self.count)
        if group is not None:
            mean, variance, count = join_moments(mean, variance, self.count, group)
        if not count:
            return False
        norm.running_mean.copy_(mean)
        if not isinstance(norm, MeanOnlyBatchNorm):
            biased = isinstance(norm, BatchRenorm)
            norm.running_var.copy_(variance if biased else variance * (count / (count - 1)))
        return True


def _images(batch: Any) -> Tensor:
    images = batch[0] if isinstance(batch, Sequence) and batch else batch
    if not isinstance(images, Tensor):
        raise TypeError(
            f"a batch must be a tensor of images, or a tuple or list of which that is the first, got {type(batch)}; "
            'pick the images, as in (batch["image"] for batch in batches)'
        )
    return images


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm | MeanOnlyBatchNorm) and module.running_mean is not None


def _group_of(norm: nn.Module, all_ranks: bool) -> dist.ProcessGroup | None:
    if all_ranks:
        return process_group(None)
    return process_group(norm.group_size) if isinstance(norm, CrossDeviceBatchNorm) else None
