"""Passes that look at what modules are given, and leave the network as it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in eval mode; then each module is in the mode it was in, frozen norms included."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def observed(
    network: nn.Module, modules: Iterable[nn.Module], observe: Callable[[nn.Module, tuple[Tensor, ...]], None]
) -> Iterator[None]:
    """Inside, `observe(module, inputs)` precedes each call of the modules, and the network is in eval mode.

    What is compiled runs uncompiled: a program that is there already knows nothing of observers. Behind it, also after
    an error, nobody observes and every module is in the mode it was in.
    """
    handles = [module.register_forward_pre_hook(observe) for module in modules]
    try:
        with _uncompiled(), evaluating(network):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _uncompiled() -> AbstractContextManager[object]:
    if "torch._dynamo" not in sys.modules:  # nothing is compiled yet, and to load the compiler takes seconds
        return nullcontext()
    return torch.compiler.set_stance("force_eager")
