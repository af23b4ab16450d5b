"""Passes that leave behind no trace: what a module's forward may change, and torch's own state, is put back."""

from __future__ import annotations

import copy
import random
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import nn

from convsmith.deploy.snapshot import computed

CONTAINERS = frozenset((dict, OrderedDict, defaultdict, list, set, deque))


@contextmanager
def left_as_it_was(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Puts back the attributes of these modules, the containers among them, and the random number generators.

    A forward pass may assign to attributes, fill a list or rebind a buffer: what it leaves there has no values.
    Inside, what `Module.compile` has compiled runs as it is written.
    """
    before = [
        (state, state.copy() if state else ())
        for attributes in map(vars, parts)
        for state in (attributes, *(value for value in attributes.values() if type(value) in CONTAINERS))
    ]
    # The generators that all share: also numpy's old one, since `forward` may use it.
    generators = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    for attributes in map(vars, parts):
        attributes.pop("_compiled_call_impl", None)
    try:
        yield
    finally:
        for state, saved in before:
            if not _same(state, saved):
                state.clear()
                (state.extend if isinstance(state, (list, deque)) else state.update)(saved)
        random.setstate(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002
        torch.set_rng_state(generators[2])


def _same(state: Any, saved: Any) -> bool:
    if len(state) != len(saved) or not saved:
        return len(state) == len(saved)
    if isinstance(state, dict):
        return all(map(is_, state.values(), saved.values())) and all(map(is_, state, saved))
    return all(map(is_, state, saved))


@contextmanager
def attention_in_parts() -> Iterator[None]:
    """Without torch's fused transformer layers, which run products that no dispatch mode sees."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def uncompiled_attention() -> Iterator[None]:
    """With `flex_attention` as it is written: it compiles itself, which no dispatch mode follows."""
    module = sys.modules.get("torch.nn.attention.flex_attention")
    switch = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
    if module is None or not hasattr(module, switch):
        yield
        return
    before = getattr(module, switch)
    setattr(module, switch, True)
    try:
        yield
    finally:
        setattr(module, switch, before)


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Inside, every part of the module is in eval mode; afterwards each is in the mode it was in."""
    # By the flags alone: a module's own `train` may do more.
    flags = {part: part.training for part in module.modules()}
    try:
        for part in flags:
            part.training = False
        yield
    finally:
        for part, training in flags.items():
            part.training = training


def twin(module: nn.Module) -> nn.Module:
    """A deep copy, in the mode that the module is in."""
    return copy.deepcopy(module, computed(module))
