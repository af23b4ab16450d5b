"""Batch normalisation, and how a block builds the norm of a recorded call (`norm=spec(...)`)."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, fx, nn

from convsmith.arch import BlockSpec, block, registered, spec


@block("batch_norm")
class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over (N, H, W) (Ioffe & Szegedy 2015, arXiv:1502.03167); `momentum` weighs the new batch.

    In training a channel needs more than one value: ValueError for a single image whose map is 1 x 1.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, in_channels: int, *, eps: float = 1e-5, momentum: float = 0.1):
        check_moments(eps=eps, momentum=momentum)
        super().__init__(in_channels, eps=eps, momentum=momentum)
        self.out_channels = in_channels

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        try:
            return super().forward(input)
        except ValueError:
            # Torch has counted the values already; to count them once more in front would cost time at every call.
            refuse_single_values(input)
            raise

    def count_batch(self) -> Tensor | float:
        """Count a batch: the weight of its statistics, which is `momentum`, or with None, as in torch, 1 / count."""
        self.num_batches_tracked.add_(1)
        return 1 / self.num_batches_tracked if self.momentum is None else self.momentum

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # torch's check reads the input's rank, which torch.fx cannot trace; the convolution in front checks it


@block("mean_only_batch_norm")
class MeanOnlyBatchNorm(nn.Module):
    """x - mean + b, the mean that of the batch, in evaluation the running one: a companion of weight normalisation.

    Salimans & Kingma 2016, arXiv:1602.07868, Sec. 4; `momentum` weighs the new batch.
    """

    running_mean: Tensor

    def __init__(self, in_channels: int, *, momentum: float = 0.1):
        check_moments(momentum=momentum)
        super().__init__()
        self.momentum = momentum
        self.bias = nn.Parameter(torch.zeros(in_channels))
        self.register_buffer("running_mean", torch.zeros(in_channels))
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W); also (N, C) and (N, C, L)."""
        mean = self.running_mean
        if self.training and x.numel():  # an empty batch has no mean
            mean = x.mean([0, *range(2, x.dim())], dtype=mean.dtype)
            self.running_mean.lerp_(mean.detach(), self.momentum)
        return _add_to_channels(x, (self.bias - mean).to(x.dtype))


@fx.wrap  # one node of a traced graph: it reads the rank of the map
def _add_to_channels(x: Tensor, values: Tensor) -> Tensor:
    return x + values.view(-1, *[1] * (x.dim() - 2))


def check_moments(*, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
    """Raise ValueError for an `eps` under which no root is taken, and for a `momentum` that is no share.

    None is torch's momentum of 1 / count.
    """
    if not 0 < eps < math.inf:
        raise ValueError(
            f"eps must be above 0 and finite, as a variance of 0 is divided by its root, got {eps=}; 1e-5 is usual"
        )
    if momentum is not None and not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be from 0 to 1, the share of the new batch, got {momentum=}; 0.1 is usual")


def refuse_single_values(x: Tensor) -> None:
    """Raise ValueError if a batch holds one value per channel, which has no variance."""
    if x.numel() == x.shape[1]:
        raise ValueError(
            f"batch norm needs more than one value per channel in training, got one image of shape "
            f"{tuple(x.shape[1:])}; train with larger batches (drop a last batch of one) or larger images, or take "
            "norm=spec(LayerNorm)"
        ) from None


@torch.no_grad()
def batch_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of (N, C, ...), in float32 at least.

    In two passes: E[x^2] - E[x]^2 would cancel where the mean is large against the deviation.
    """
    dims = [0, *range(2, x.dim())]
    mean = x.mean(dims, dtype=torch.promote_types(x.dtype, torch.float32))
    centred = x - mean.view(-1, *[1] * (x.dim() - 2))
    return mean, centred.square_().mean(dims)


BATCH_NORM = spec(BatchNorm)


def acts_on_weights(norm: BlockSpec | None) -> bool:
    """Whether a norm normalises the weights of a convolution, by its `apply_to(conv)`, and no map.

    Raises TypeError for what is no recorded call.
    """
    if norm is not None and not isinstance(norm, BlockSpec):
        raise TypeError(f"a norm must be recorded, as spec(BatchNorm) is, or None, got {norm!r}")
    return norm is not None and hasattr(registered(norm.block).constructor, "apply_to")


def build_norm(norm: BlockSpec | None, channels: int) -> nn.Module:
    """The norm of a spec for `channels` channels; None is no norm.

    Raises ValueError for one that acts on weights, as the block that calls has not applied it to a convolution, and for
    what changes the number of channels.
    """
    if acts_on_weights(norm):
        raise ValueError(
            f"this block normalises maps, and {norm} acts on the weights of a convolution; take norm=spec(BatchNorm), "
            "or another block for the convolution"
        )
    if norm is None:
        return nn.Identity()
    built = cast(nn.Module, norm.build(channels))
    if getattr(built, "out_channels", channels) != channels:
        raise ValueError(
            f"a norm must keep the {channels} channels of its map, and {norm} gives {built.out_channels}; take "
            "norm=spec(BatchNorm)"
        )
    return built


def apply_norm(norm: BlockSpec | None, conv: nn.Conv2d) -> nn.Module:
    """A new convolution of a block, its weight normalised if the norm acts on weights; else the convolution itself."""
    if norm is None or not acts_on_weights(norm):
        return conv
    # As `network.initialise` draws other convolutions, and this one no longer: it is a part of what is returned.
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return cast(nn.Module, norm.build(conv.out_channels).apply_to(conv))
