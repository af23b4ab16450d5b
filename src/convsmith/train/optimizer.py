"""Optimisers by name, and which parameters decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from convsmith.train.recipe import Recipe

Groups = list[dict[str, Any]]

FUSED = ("cpu", "cuda")  # devices for which torch has kernels that do a whole step of a parameter


def make_optimizer(network: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser over the trainable parameters of a network.

    Raises:
        ValueError: when no parameter is trainable.
    """
    groups = parameter_groups(network, weight_decay=recipe.weight_decay, decay_norm_and_bias=recipe.decay_norm_and_bias)
    return OPTIMIZERS[recipe.optimizer](groups, recipe)


def parameter_groups(network: nn.Module, *, weight_decay: float, decay_norm_and_bias: bool = False) -> Groups:
    """Trainable parameters in two groups: those that decay, then norms and biases, that is all of one dimension.

    Without decay on norms and biases: Goyal et al. 2017, arXiv:1706.02677, Sec. 5.1; on biases too: Jia et al.
    2018, arXiv:1807.11205. What a module names in a method `no_weight_decay() -> set[str]`, as timm's networks do, is
    in the second group always; a name that the module has no parameter of means nothing. Empty groups are left out.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(
            f"a network needs trainable parameters, {type(network).__name__} has none; set requires_grad on some"
        )
    exempt = _exempt(network)
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in parameters:
        decays = parameter not in exempt and (decay_norm_and_bias or parameter.ndim > 1)
        (decayed if decays else rest).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _exempt(network: nn.Module) -> set[nn.Parameter]:
    owners: list[Any] = [module for module in network.modules() if hasattr(module, "no_weight_decay")]
    exempt: set[nn.Parameter] = set()
    for owner in owners:
        names = owner.no_weight_decay()
        exempt.update(parameter for name, parameter in owner.named_parameters() if name in names)
    return exempt


def _sgd(groups: Groups, recipe: Recipe) -> Optimizer:
    parameters = [parameter for group in groups for parameter in group["params"]]
    # One pass over the memory. The default, lists of tensors operation by operation, takes six times as long on a CPU.
    fused = all(parameter.device.type in FUSED and parameter.is_floating_point() for parameter in parameters)
    return torch.optim.SGD(
        groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused or None
    )


OPTIMIZERS: dict[str, Callable[[Groups, Recipe], Optimizer]] = {"sgd": _sgd}
