"""Concatenated maps that the backward pass makes again instead of keeping them."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def on_concat(module: nn.Module, *maps: Tensor, recompute: bool) -> Tensor:
    """What `module` makes of the maps, (N, C_i, H, W) each, concatenated to (N, sum of C_i, H, W).

    With `recompute` nothing that lies between the maps and the result is kept for the backward pass, which makes it
    again (Memory-Efficient Implementation of DenseNets, Pleiss et al. 2017, arXiv:1707.06990): the concatenation and,
    where they stand in front of the last convolution, norm and activation. A convolution at the end is not computed
    twice, as only its input is needed.

    Buffers, such as running statistics, change in the forward pass alone: the second pass works on copies of what they
    were before the first. Both draw the same random numbers.
    """
    if not recompute:
        return _run(module, *maps)
    if torch.compiler.is_compiling():  # what a compiler repeats has no side effects, and it takes no contexts of ours
        return checkpoint(_run, module, *maps, use_reentrant=False)
    return checkpoint(
        _run, module, *maps, use_reentrant=False, context_fn=lambda: (nullcontext(), _BuffersAsTheyWere(module))
    )


class _BuffersAsTheyWere:
    """Inside, the module's buffers are copies of what they were when this was made; behind, they are themselves."""

    def __init__(self, module: nn.Module):
        owners = [owner._buffers for owner in module.modules()]
        self.before = [(owner, name, b.clone()) for owner in owners for name, b in owner.items() if b is not None]

    def __enter__(self) -> None:
        self.own = [owner[name] for owner, name, _ in self.before]
        for owner, name, buffer in self.before:
            owner[name] = buffer.clone()

    def __exit__(self, *exception: object) -> None:
        for (owner, name, _), own in zip(self.before, self.own, strict=True):
            owner[name] = own


def _run(module: nn.Module, *maps: Tensor) -> Tensor:
    return module(maps[0] if len(maps) == 1 else torch.cat(maps, 1))
