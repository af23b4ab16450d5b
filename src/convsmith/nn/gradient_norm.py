"""Gradient normalisation: gradients of several tasks, and of a critic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, distributed as dist, nn

from convsmith.nn.cross_device_norm import check_group_size, process_group


class GradNorm(nn.Module):
    """Task weights learnt so that all tasks train at similar rates (Chen et al. 2018, arXiv:1711.02257, Algorithm 1).

    One training step with two optimisers, the second one for `parameters()` of this module:

        losses = task_losses(network, batch)
        gradnorm.balance(losses, shared)     # sets the gradient of the weights
        gradnorm(losses).backward()          # the network's loss; the weights count as constants in it
        network_optimizer.step()
        weights_optimizer.step()
        gradnorm.renormalise()

    The losses of the first step are kept as L_i(0), unless `initial_losses` states them, such as log(number of classes)
    (Sec. 3.2). Larger `alpha` pulls slower tasks forward more strongly; 1.5 and 0.12 are the paper's.

    With an initialised torch.distributed, losses and gradients are means over a group of processes, so that all of them
    have the same weights: those of the joined batch, where batches are equally large. A group is `group_size`
    consecutive ranks, or all of them; 1 leaves each process to itself. All must call `balance` together.
    """

    initial_losses: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        alpha: float = 1.5,
        initial_losses: Sequence[float] | None = None,
        group_size: int | None = None,
    ):
        super().__init__()
        check_group_size(group_size)
        if not 0 <= alpha < math.inf:
            raise ValueError(
                f"alpha must be at least 0 and finite, as below 0 slower tasks are slowed further, got {alpha=}; the "
                "paper takes 1.5, and 0.12 where the tasks are alike"
            )
        stated = [float("nan")] * num_tasks if initial_losses is None else list(initial_losses)
        if num_tasks < 1 or len(stated) != num_tasks:
            raise ValueError(
                "there must be at least one task, and one initial loss for each if any, got "
                f"{num_tasks=} and {initial_losses=}"
            )
        if initial_losses is not None and not all(math.isfinite(loss) and loss > 0 for loss in stated):
            raise ValueError(
                "initial losses must be finite and above 0, as later ones are divided by them, got "
                f"{initial_losses=}; state what an untrained network has, such as log(number of classes)"
            )
        self.alpha = alpha
        self.group_size = group_size
        self.weights = nn.Parameter(torch.ones(num_tasks))
        self.register_buffer("initial_losses", torch.tensor(stated))  # NaN: not yet seen

    def forward(self, losses: Tensor | Sequence[Tensor]) -> Tensor:
        """The total sum_i w_i L_i of the tasks' scalar losses, whose gradient leaves the weights alone."""
        return (self.weights.detach() * torch.stack(self._each(losses))).sum()

    def balance(self, losses: Tensor | Sequence[Tensor], shared: Tensor) -> Tensor:
        """Set the weights' gradient to that of L_grad = sum_i |G_i - mean(G) r_i^alpha| (Eq. 2), and return L_grad.

        G_i is the norm of the gradient of w_i L_i by `shared`, the weight of the last layer that all tasks share, and
        r_i = (L_i / L_i(0)) / mean; the second term counts as constant. Needs the graph of the losses and keeps it:
        call this before `backward`. A loss that does not depend on `shared` raises torch's RuntimeError, a negative
        loss, a first loss of 0 and losses that are all 0 raise ValueError.
        """
        each = self._each(losses)
        values = torch.stack(each).detach()
        gradients = torch.stack([torch.autograd.grad(loss, shared, retain_graph=True)[0].flatten() for loss in each])
        group = process_group(self.group_size)
        if group is not None:
            values, gradients = _means(values, gradients, group)
        first = torch.where(self.initial_losses.isnan(), values, self.initial_losses)
        _check_positive(values.tolist(), first.tolist())
        norms = torch.linalg.vector_norm(gradients, dim=1)
        self.initial_losses.copy_(first)
        ratios = values / self.initial_losses
        with torch.enable_grad():
            weighted = self.weights.abs() * norms
            targets = (weighted.mean() * (ratios / ratios.mean()) ** self.alpha).detach()
            loss = (weighted - targets).abs().sum()
            (self.weights.grad,) = torch.autograd.grad(loss, self.weights)
        return loss.detach()

    @torch.no_grad()
    def renormalise(self) -> None:
        """Scale the weights to the sum of the number of tasks, after the step of their optimiser.

        A weight that the step took below 0 starts again just above it, which the paper leaves open.
        """
        self.weights.clamp_(min=1e-6)
        self.weights.mul_(len(self.weights) / self.weights.sum())

    def _each(self, losses: Tensor | Sequence[Tensor]) -> list[Tensor]:
        each = list(losses)
        if len(each) != len(self.weights) or any(loss.dim() for loss in each):
            raise ValueError(
                f"there must be one scalar loss for each of {len(self.weights)} tasks, got "
                f"losses of the shapes {[tuple(loss.shape) for loss in each]}"
            )
        return each


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, weight: float = 10.0) -> Tensor:
    """`weight` * mean over the batch of (|gradient of critic at x| - 1)^2 (WGAN-GP, Gulrajani et al. 2017, Eq. 3).

    Improved Training of Wasserstein GANs (arXiv:1704.00028). Each x is drawn uniformly on the line between a real and a
    fake sample, both (N, ...), and hands no gradient on to them. The norm is that of one sample's gradient, so that the
    critic must not mix samples: no norm over the batch (Sec. 4). Batches of unequal shape raise ValueError. The
    penalty's own gradient is a second derivative, which deformable convolutions lack: take ordinary ones.
    """
    if real.shape != fake.shape:
        raise ValueError(
            f"real and fake must have the same shape, got {tuple(real.shape)} and {tuple(fake.shape)}; pair them first"
        )
    share = torch.rand(len(real), *(1,) * (real.dim() - 1), dtype=real.dtype, device=real.device)
    between = torch.lerp(real.detach(), fake.detach(), share).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norms = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return weight * (norms - 1).square().mean()


def _means(values: Tensor, gradients: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor]:
    """The losses and, in rows, their gradients as means over the processes of a group, in one exchange."""
    joined = torch.cat((values[:, None], gradients), 1)
    dist.all_reduce(joined, group=group)
    joined /= dist.get_world_size(group)
    return joined[:, 0].to(values.dtype), joined[:, 1:].to(gradients.dtype)


def _check_positive(losses: list[float], first: list[float]) -> None:
    for task, (loss, start) in enumerate(zip(losses, first, strict=True)):
        if start <= 0:
            raise ValueError(
                f"the first loss of a task must be above 0, as later ones are divided by it, got {start} for task "
                f"{task}; state initial_losses, or begin with a batch on which every task has a loss"
            )
        if loss < 0:
            raise ValueError(
                f"losses must not be negative, as powers of their ratios to the first ones are taken, got {loss} for "
                f"task {task}; add a constant to the loss"
            )
    if not any(losses):
        raise ValueError(
            f"one task at least must have a loss above 0, as rates are relative to their mean, got {losses}; leave "
            "`balance` out where nothing is left to learn"
        )
