"""Passes that look at what modules are given, and leave the network as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

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

    Behind it, also after an error, nobody observes and every module is in the mode it was in.
    """
    handles = [module.register_forward_pre_hook(observe) for module in modules]
    try:
        with evaluating(network):
            yield
    finally:
        for handle in handles:
            handle.remove()
