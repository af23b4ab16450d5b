"""Gradient normalisation: gradients of several tasks, of the layers of a network, and of a critic."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


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
    """

    initial_losses: Tensor

    def __init__(self, num_tasks: int, *, alpha: float = 1.5, initial_losses: Sequence[float] | None = None):
        super().__init__()
        stated = [float("nan")] * num_tasks if initial_losses is None else list(initial_losses)
        if num_tasks < 1 or len(stated) != num_tasks:
            raise ValueError(
                "there must be at least one task, and one initial loss for each if any, got "
                f"{num_tasks=} and {initial_losses=}"
            )
        if initial_losses is not None and not all(math.isfinite(loss) and loss for loss in stated):
            raise ValueError(
                "initial losses must be finite and other than 0, as later ones are divided by them, got "
                f"{initial_losses=}; state what an untrained network has, such as log(number of classes)"
            )
        self.alpha = alpha
        self.weights = nn.Parameter(torch.ones(num_tasks))
        self.register_buffer("initial_losses", torch.tensor(stated))  # NaN: not yet seen

    def forward(self, losses: Tensor | Sequence[Tensor]) -> Tensor:
        """The total sum_i w_i L_i of the tasks' scalar losses, whose gradient leaves the weights alone."""
        return (self.weights.detach() * torch.stack(self._each(losses))).sum()

    def balance(self, losses: Tensor | Sequence[Tensor], shared: Tensor) -> Tensor:
        """Set the weights' gradient to that of L_grad = sum_i |G_i - mean(G) r_i^alpha| (Eq. 2), and return L_grad.

        G_i is the norm of the gradient of w_i L_i by `shared`, the weight of the last layer that all tasks share, and
        r_i = (L_i / L_i(0)) / mean; the second term counts as constant. Needs the graph of the losses and keeps it:
        call this before `backward`. A loss that does not depend on `shared` raises torch's RuntimeError, a first loss
        of 0 raises ValueError.
        """
        each = self._each(losses)
        values = torch.stack(each).detach()
        first = torch.where(self.initial_losses.isnan(), values, self.initial_losses)
        if bool((first == 0).any()):
            raise ValueError(
                "the first loss of a task must be other than 0, as later ones are divided by it, got "
                f"{first.tolist()}; state initial_losses, or begin with a batch on which every task has a loss"
            )
        norms = [torch.linalg.vector_norm(torch.autograd.grad(loss, shared, retain_graph=True)[0]) for loss in each]
        self.initial_losses.copy_(first)
        ratios = values / self.initial_losses
        with torch.enable_grad():
            weighted = self.weights.abs() * torch.stack(norms)
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


class BlockNormalizedGradient(Optimizer):
    """Each block's gradient divided by its norm before any optimiser's step (Yu et al. 2017, arXiv:1707.04822, Alg. 1).

    The wrapped optimiser does all the rest, weight decay and momentum included, and its parameter groups, state and
    `state_dict` are those of the wrapper: schedulers and gradient scalers take either. `blocks` are lists of
    parameters; the paper's are layers, `[module.parameters(recurse=False) for module in network.modules()]`. None makes
    each tensor a block. Parameters in no block keep their gradient. `scale_by_weight` multiplies by the block's own
    norm: the paper's adaptive step. A zero gradient stays zero.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        blocks: Iterable[Iterable[Tensor]] | None = None,
        scale_by_weight: bool = False,
    ):
        self.optimizer = optimizer
        groups, state = optimizer.param_groups, optimizer.state
        super().__init__(groups, optimizer.defaults)
        self.param_groups, self.state = groups, state  # the line above began with empty ones
        self.blocks = None if blocks is None else [list(block) for block in blocks]
        self.scale_by_weight = scale_by_weight

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimiser's, also after it has replaced them, as when it loads a state."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        """The wrapped optimiser's."""
        return self.optimizer.state

    @state.setter
    def state(self, state: defaultdict[Tensor, Any]) -> None:
        self.optimizer.state = state

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs; hooks, and the step as schedulers replace it, stay behind, as with any optimiser."""
        return {name: vars(self)[name] for name in ("defaults", "optimizer", "blocks", "scale_by_weight")}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Normalise the gradients in place, after the closure where one computes them, and let the optimiser step."""
        if closure is None:
            self.normalise()
            return self.optimizer.step()

        def normalised() -> Any:
            loss = closure()
            self.normalise()
            return loss

        return self.optimizer.step(normalised)

    @torch.no_grad()
    def normalise(self) -> None:
        """Replace each block's gradient g by g / |g|, or by |w| g / |g|."""
        blocks = self.blocks
        if blocks is None:
            blocks = [[parameter] for group in self.param_groups for parameter in group["params"]]
        for block in blocks:
            gradients = [parameter.grad for parameter in block if parameter.grad is not None]
            if not gradients:
                continue
            norm = nn.utils.get_total_norm(gradients)
            scale = torch.where(norm > 0, 1 / norm, 0)
            if self.scale_by_weight:
                scale = scale * nn.utils.get_total_norm(block)
            for gradient in gradients:
                gradient.mul_(scale.to(gradient.device))

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimiser's."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the wrapped optimiser's."""
        self.optimizer.load_state_dict(state_dict)


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, weight: float = 10.0) -> Tensor:
    """`weight` * mean over the batch of (|gradient of critic at x| - 1)^2 (WGAN-GP, Gulrajani et al. 2017, Eq. 3).

    Improved Training of Wasserstein GANs (arXiv:1704.00028). Each x is drawn uniformly on the line between a real and a
    fake sample, both (N, ...), and hands no gradient on to them. The norm is that of one sample's gradient, so that the
    critic must not mix samples: no norm over the batch (Sec. 4). Batches of unequal shape raise ValueError.
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
