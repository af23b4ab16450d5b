"""Block-normalised gradients, in front of any optimiser."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class BlockNormalizedGradient(Optimizer):
    """Each block's gradient divided by its norm before any optimiser's step (Yu et al. 2017, arXiv:1707.04822, Alg. 1).

    The wrapped optimiser does all the rest, weight decay and momentum included, and its parameter groups, state and
    `state_dict` are those of the wrapper: schedulers and gradient scalers take either. `blocks` are lists of
    parameters; the paper's are layers, `[module.parameters(recurse=False) for module in network.modules()]`. None makes
    each tensor a block. Parameters in no block keep their gradient. `scale_by_weight` multiplies by the block's own
    norm: the paper's adaptive step; of a block that is all zero it takes 1, as biases and gammas that start at 0 would
    else never leave it (the paper leaves that open; so do the usual implementations of LARS). A zero gradient stays
    zero. Sparse gradients raise ValueError.
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
        """Replace each block's gradient g by g / |g|, or by |w| g / |g|, where w is not all zero."""
        blocks = self.blocks
        if blocks is None:
            blocks = [[parameter] for group in self.param_groups for parameter in group["params"]]
        for block in blocks:
            gradients = [p.grad for p in block if p.grad is not None and p.grad.numel()]
            if not gradients:
                continue
            _check_dense(gradients)
            # By the largest value first: the squares of small and large ones are no numbers of their type.
            largest = nn.utils.get_total_norm(gradients, math.inf)
            largest = torch.where(largest == 0, 1, largest)
            for gradient in gradients:
                gradient.div_(largest.to(gradient.device))
            norm = _norm(gradients)
            scale = torch.where(norm > 0, 1 / norm, 0)
            if self.scale_by_weight:
                length = _norm(block)
                scale = scale * torch.where(length > 0, length, 1)
            for gradient in gradients:
                gradient.mul_(scale.to(gradient.device))

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimiser's."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the wrapped optimiser's."""
        self.optimizer.load_state_dict(state_dict)


def _check_dense(gradients: Iterable[Tensor]) -> None:
    if found := [gradient.layout for gradient in gradients if gradient.layout != torch.strided]:
        raise ValueError(
            f"gradients must be dense to be normalised, got one of layout {found[0]}; build the embedding with "
            "sparse=False, or leave it out of `blocks`"
        )


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Of all values together, in float32 at least, on the device of the first tensor."""
    wide = [torch.promote_types(tensor.dtype, torch.float32) for tensor in tensors]
    norms = [torch.linalg.vector_norm(tensor, dtype=dtype) for tensor, dtype in zip(tensors, wide, strict=True)]
    return torch.linalg.vector_norm(torch.stack([norm.to(tensors[0].device) for norm in norms]))
