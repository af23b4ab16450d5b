"""Params, MACs, activations and memory traffic of one forward pass of any module, by module and by operator.

The pass runs on the meta device under a dispatch mode that sees every operator below autograd (`observe.py`) and adds
up what each costs (`formulas.py`). A pass that needs values (`.item()`, a branch on data) is repeated for real, on a
copy of the module.
"""

import copy
import gc
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter, is_
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convsmith.measure.observe import Cost, Event, ForReal, OnMeta, Span, module_calls

Input = Any
"""A shape (tuple of integers), a tensor, or a tuple, list or dict of inputs; any other value is passed as it is."""


@dataclass(frozen=True)
class ModuleCounts:
    """What was called inside one module; a module called three times counts its MACs three times, its params once."""

    params: int
    macs: int
    activations: int
    memory_bytes: int


@dataclass(frozen=True)
class OperatorCounts:
    """All calls of one operator."""

    calls: int
    macs: int
    memory_bytes: int


@dataclass(frozen=True)
class Counts:
    """What one forward pass costs.

    Attributes:
        params: Learnable scalars; a parameter that several modules share counts once.
        macs: Multiply-accumulates of convolutions and matrix products over the whole batch, as torchvision counts: none
            for norms, activations, pooling, interpolation and the sampling of a deformable convolution.
        activations: Output elements of convolutions (Radosavovic et al. 2020, arXiv:2003.13678, Sec. 3).
        memory_bytes: Bytes that operators read (inputs and weights) plus those they write; views are free (the MAC of
            Ma et al. 2018, arXiv:1807.11164, G1, in bytes: a 1x1 convolution moves hw(c1 + c2) + c1 c2 elements).
        by_module: Counts by module path as in `named_modules`, "" being the whole. A container that is never called
            itself (`ModuleList`) has the sum of its children.
        by_operator: Counts by operator ("convolution", "addmm", "batch_norm", ...), views excepted.
        uncounted: Calls of operators that have no formula and are not known to be free of MACs.
        output: What `forward` returned, with the shape (a tuple) in the place of each tensor.
        method: "meta" where shapes were enough, "run" where the pass needed values.
    """

    params: int
    macs: int
    activations: int
    memory_bytes: int
    by_module: Mapping[str, ModuleCounts]
    by_operator: Mapping[str, OperatorCounts]
    uncounted: Mapping[str, int]
    output: Any
    method: Literal["meta", "run"]


def count(module: nn.Module, *inputs: Input) -> Counts:
    """Count what `module(*inputs)` costs, without data and without touching the module.

    Training flags are respected, gradients are not tracked. Buffers, hooks, attributes and random number generators are
    afterwards what they were, also when `forward` raises; its exception is passed on.

    Args:
        module: Any module, on any device.
        *inputs: One for each positional argument of `forward`: a shape such as (1, 3, 224, 224), a tensor, or a tuple,
            list or dict of these. A shape stands for a tensor of the dtype of the first floating-point parameter.

    Raises:
        ValueError: A shape has a negative size, or the module has parameters that only its first forward pass makes.
    """
    parts = list(module.modules())
    held = [tensor for part in parts for tensor in (*part._parameters.values(), *part._buffers.values())]
    tensors = [tensor for tensor in held if tensor is not None]
    if any(map(is_lazy, tensors)):
        raise ValueError("only a module that has all its parameters is counted, got a lazy one; call it once on data")
    like = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    try:
        with _garbage_kept(), _left_as_it_was(parts), torch.inference_mode():
            return _observe(module, _materialise(inputs, like, _without_memory), OnMeta(), "meta")
    except Exception as error:
        failure = error
    try:
        twin = _twin(module)
    except Exception:
        raise failure from None
    gpus = sorted({tensor.get_device() for tensor in tensors if tensor.is_cuda})
    with _left_as_it_was([]), torch.random.fork_rng(gpus), torch.no_grad(), _attention_in_parts():
        return _observe(twin, _materialise(inputs, like, _with_memory), ForReal(), "run")


def _twin(module: nn.Module) -> nn.Module:
    """A deep copy; attributes that torch refuses to copy, such as the computed weight of a pruned layer, are cloned."""
    attributes = [value for each in module.modules() for value in vars(each).values() if isinstance(value, Tensor)]
    return copy.deepcopy(module, {id(value): value.detach().clone() for value in attributes if not value.is_leaf})


def _observe(
    module: nn.Module, inputs: Sequence[Any], mode: OnMeta | ForReal, method: Literal["meta", "run"]
) -> Counts:
    with module_calls(mode.events) as spans, mode:
        output = module(*inputs)
    by_module = _by_module(module, mode.events, spans)
    by_operator, uncounted = _by_operator(mode.events)
    total = by_module[""]
    return Counts(
        params=total.params,
        macs=total.macs,
        activations=total.activations,
        memory_bytes=total.memory_bytes,
        by_module=by_module,
        by_operator=by_operator,
        uncounted=uncounted,
        output=_shapes(output),
        method=method,
    )


def _by_module(root: nn.Module, events: Sequence[Event], spans: Sequence[Span]) -> dict[str, ModuleCounts]:
    sums = [
        list(accumulate(map(attrgetter(what), events), initial=0)) for what in ("macs", "activations", "memory_bytes")
    ]
    called: dict[int, list[int]] = {}
    counted_from: dict[int, int] = {}
    for module, start, end in reversed(spans):
        if end > counted_from.get(id(module), end):
            continue  # a call of a module inside a call of the same module is counted with the outer one
        counted_from[id(module)] = start
        costs = [upto[end] - upto[start] for upto in sums]
        called[id(module)] = [a + b for a, b in zip(called.get(id(module), (0, 0, 0)), costs, strict=True)]
    called[id(root)] = [upto[-1] for upto in sums]

    params: dict[int, dict[int, int]] = {}
    counts: dict[str, ModuleCounts] = {}

    def visit(module: nn.Module, path: str) -> list[int]:
        own = {id(parameter): parameter.numel() for parameter in module._parameters.values() if parameter is not None}
        params[id(module)] = own
        counts[path] = ModuleCounts(0, 0, 0, 0)  # keeps the order of `named_modules`
        inside = [0, 0, 0]
        for name, child in module._modules.items():
            if child is not None and id(child) not in params:
                below = visit(child, f"{path}.{name}" if path else name)
                inside = [a + b for a, b in zip(inside, below, strict=True)]
            own.update(params[id(child)] if child is not None else ())
        inside = called.get(id(module), inside)
        counts[path] = ModuleCounts(sum(own.values()), *inside)
        return inside

    visit(root, "")
    return counts


def _by_operator(events: Sequence[Event]) -> tuple[dict[str, OperatorCounts], dict[str, int]]:
    calls: Counter[Cost] = Counter()
    for event, times in Counter(events).items():
        for cost in event.costs:
            calls[cost] += times
    by_operator: dict[str, OperatorCounts] = {}
    uncounted: Counter[str] = Counter()
    for cost, times in calls.items():
        so_far = by_operator.get(cost.operator, OperatorCounts(0, 0, 0))
        by_operator[cost.operator] = OperatorCounts(
            so_far.calls + times, so_far.macs + times * cost.macs, so_far.memory_bytes + times * cost.memory_bytes
        )
        if not cost.known:
            uncounted[cost.operator] += times
    return by_operator, dict(uncounted)


def _shapes(output: Any) -> Any:
    if isinstance(output, Tensor):
        return tuple(output.shape)
    if isinstance(output, Mapping):
        return {key: _shapes(value) for key, value in output.items()}
    if isinstance(output, (list, tuple)):
        return (list if isinstance(output, list) else tuple)(map(_shapes, output))
    return output


Make = Callable[[Tensor | tuple[int, ...], Tensor], Tensor]
"""(tensor or shape, a tensor of the module's type and on its device) -> the tensor that is passed to the module."""


def _materialise(value: Input, like: Tensor, make: Make) -> Any:
    if isinstance(value, Tensor):
        return make(value, like)
    if isinstance(value, dict):
        return {key: _materialise(item, like, make) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    if isinstance(value, tuple) and value and all(isinstance(size, int) for size in value):
        if min(value) < 0:
            raise ValueError(f"the sizes of a shape must not be negative, got {value}")
        return make(value, like)
    return (list if isinstance(value, list) else tuple)(_materialise(item, like, make) for item in value)


def _without_memory(given: Tensor | tuple[int, ...], like: Tensor) -> Tensor:
    if isinstance(given, Tensor):
        return torch.empty_strided(given.shape, given.stride(), dtype=given.dtype, device="meta")
    return torch.empty(given, dtype=like.dtype, device="meta")


def _with_memory(given: Tensor | tuple[int, ...], like: Tensor) -> Tensor:
    if not isinstance(given, Tensor):
        return torch.randn(given, generator=torch.Generator().manual_seed(0)).to(like)
    if given.is_meta:
        return torch.zeros_like(given, device=like.device)
    return given.detach().clone().to(like.device)


CONTAINERS = frozenset((dict, OrderedDict, defaultdict, list, set, deque))


@contextmanager
def _left_as_it_was(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Puts back the attributes of these modules, the containers among them, and the random number generators.

    A forward pass may assign to attributes, fill a list or rebind a buffer: what it leaves there has no values.
    """
    before = [
        (state, state.copy() if state else ())
        for attributes in map(vars, parts)
        for state in (attributes, *(value for value in attributes.values() if type(value) in CONTAINERS))
    ]
    # The generators that all share: also numpy's old one, since `forward` may use it.
    generators = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
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
def _attention_in_parts() -> Iterator[None]:
    """Without torch's fused transformer layers, which run products that no dispatch mode sees."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Without collections, one of which can take longer than the pass: a pass without memory leaves little garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
