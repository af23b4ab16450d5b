"""Batch renormalisation.

Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized Models.  Ioffe, NIPS 2017,
arXiv:1702.03275.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.arch import block
from convsmith.nn.norm import BatchNorm, batch_moments, refuse_single_values
from convsmith.nn.unsaved import Unsaved


@block("batch_renorm")
class BatchRenorm(Unsaved, BatchNorm):
    """gamma * ((x - mu_B) / sigma_B * r + d) + beta in training; in evaluation, batch norm (Alg. 1).

    r = sigma_B / sigma clipped to [1 / r_max, r_max] and d = (mu_B - mu) / sigma clipped to [-d_max, d_max] pass no
    gradient; unclipped, they make training normalise by the running statistics mu and sigma, as evaluation does. Then
    mu and sigma move to those of the batch with weight `momentum`, the paper's alpha. As in the paper, sigma holds eps
    and the biased variance, and sigma itself is averaged; it is kept as `running_var` = sigma^2 - eps, so that the
    parameters and buffers are those of `BatchNorm`.

    The buffers `r_max` and `d_max` start at 1 and 0, which is batch norm. `on_step` leaves them there for `warmup`
    steps, then raises them linearly, `r_max` until step `r_ramp` and `d_max` until step `d_ramp`, to the values of the
    arguments (Sec. 4: 5,000, 40,000 and 25,000 steps). A number up to 1 is a share of all steps of a training instead:
    short trainings need that.
    """

    r_max: Tensor
    d_max: Tensor

    def __init__(
        self,
        in_channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.01,
        r_max: float = 3.0,
        d_max: float = 5.0,
        warmup: float = 5_000.0,
        r_ramp: float = 40_000.0,
        d_ramp: float = 25_000.0,
    ):
        if r_max < 1 or d_max < 0 or min(warmup, r_ramp, d_ramp) < 0:
            raise ValueError(
                "batch renorm needs r_max of at least 1, and d_max and steps of at least 0, got "
                f"{r_max=}, {d_max=}, {warmup=}, {r_ramp=} and {d_ramp=}; r_max=1 and d_max=0 give batch norm"
            )
        super().__init__(in_channels, eps=eps, momentum=momentum)
        self.limits = (r_max, d_max)
        self.schedule = (warmup, r_ramp, d_ramp)
        self.register_buffer("r_max", torch.empty(()), persistent=False)
        self.register_buffer("d_max", torch.empty(()), persistent=False)
        self.fill()

    def fill(self) -> None:
        """Set the bounds of batch norm."""
        self.r_max.fill_(1.0)
        self.d_max.fill_(0.0)

    def on_step(self, step: int, total_steps: int) -> None:
        """Set `r_max` and `d_max` for step `step`, counted from 0, of `total_steps`."""
        start, r_end, d_end = (at * total_steps if at <= 1 else at for at in self.schedule)
        self.r_max.fill_(1 + (self.limits[0] - 1) * _progress(step, start, r_end))
        self.d_max.fill_(self.limits[1] * _progress(step, start, d_end))

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if not self.training or not input.numel():  # an empty batch has no moments
            return super().forward(input)
        refuse_single_values(input)
        with torch.no_grad():
            mean, variance = batch_moments(input)
            sigma_batch, sigma = (variance + self.eps).sqrt(), (self.running_var + self.eps).sqrt()
            r = (sigma_batch / sigma).clamp(1 / self.r_max, self.r_max)
            d = ((mean - self.running_mean) / sigma).clamp(-self.d_max, self.d_max)
        # gamma * (z * r + d) + beta is a batch norm of its own gamma and beta, in which one kernel does everything.
        scale, shift = self.weight * r, self.weight * d + self.bias
        y = F.batch_norm(input, None, None, scale, shift, True, 0.0, self.eps)
        with torch.no_grad():
            momentum = self.count_batch()
            self.running_mean.add_(momentum * (mean - self.running_mean))
            self.running_var.copy_((sigma + momentum * (sigma_batch - sigma)) ** 2 - self.eps)
        return y


def _progress(step: int, start: float, end: float) -> float:
    """0 before `start`, then linearly to 1 at `end`; at once where the end comes first."""
    if step < start:
        return 0.0
    return 1.0 if step >= end else (step - start) / (end - start)
