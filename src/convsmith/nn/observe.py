"""Passes that look at what modules are given, and leave the network as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def observed(
    network: nn.Module, modules: Iterable[nn.Module], observe: Callable[[nn.Module, tuple[Tensor, ...]], None]
) -> Iterator[None]:
    """Inside, `observe(module, inputs)` precedes each call of the modules, and the network is in eval mode.

    Behind it, also after an error, nobody observes and every module is in the mode it was in.
    """
    flags = {module: module.training for module in network.modules()}
    handles = [module.register_forward_pre_hook(observe) for module in modules]
    try:
        network.eval()
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, training in flags.items():
            module.training = training
