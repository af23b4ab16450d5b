"""Params, MACs, activations and memory traffic of one forward pass of any module, by module and by operator.

The pass runs on the meta device under a dispatch mode that sees every operator below autograd (`on_meta.py`) and adds
up what each costs (`formulas.py`). A pass that needs values (`.item()`, a branch on data) is repeated for real, on a
copy of the module.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convsmith.deploy.rounds import no_garbage_collection
from convsmith.deploy.snapshot import module_of
from convsmith.measure.observe import Event, ForReal, Span, module_calls, shapes_of
from convsmith.measure.on_meta import OnMeta
from convsmith.measure.operators import Cost
from convsmith.measure.untouched import attention_in_parts, left_as_it_was, twin, uncompiled_attention

Input = Any
"""A shape (tuple of integers), a tensor, or a tuple, list or dict of inputs; any other value is passed as it is."""

Method = Literal["meta", "run"]
T = TypeVar("T")
Observe = Callable[[nn.Module, Sequence[Any], Method], T]


@dataclass(frozen=True)
class ModuleCounts:
    """What was called inside one module; a module called three times counts its MACs three times, its params once.

    `output` is what its last call returned, with the shape (a tuple) in the place of each tensor.
    """

    params: int
    macs: int
    activations: int
    memory_bytes: int
    calls: int
    output: Any

    @property
    def macs_per_byte(self) -> float:
        """Arithmetic intensity: multiply-accumulates for each byte that is read or written; 0 where none is."""
        return self.macs / self.memory_bytes if self.memory_bytes else 0.0


@dataclass(frozen=True)
class OperatorCounts:
    """All calls of one operator."""

    calls: int
    macs: int
    memory_bytes: int

    @property
    def macs_per_byte(self) -> float:
        """Arithmetic intensity: multiply-accumulates for each byte that is read or written; 0 where none is."""
        return self.macs / self.memory_bytes if self.memory_bytes else 0.0


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
    method: Method


def count(module: nn.Module, *inputs: Input) -> Counts:
    """Count what `module(*inputs)` costs, without data and without touching the module.

    Training flags are respected, gradients are not tracked. Buffers, hooks, attributes and random number generators are
    afterwards what they were, also when `forward` raises; its exception is passed on.

    Args:
        module: Any module, on any device.
        *inputs: One for each positional argument of `forward`: a shape such as (1, 3, 224, 224), a tensor, or a tuple,
            list or dict of these. A shape stands for a tensor of the dtype of the first floating-point parameter.

    Raises:
        ValueError: A shape has a negative size, the first one is a list or empty, or the module has parameters that
            only its first forward pass makes.
    """
    return either_way(module_of(module), inputs, _observe)


def either_way(module: nn.Module, inputs: Sequence[Input], observe: Observe[T]) -> T:
    """What `observe` finds in a pass on the meta device; of one that needs values in a real one, on a copy.

    Both leave the module as it was. `observe` is given the module that runs, what is passed to it, and how it runs; it
    may be called twice.
    """
    _check_first(inputs)
    parts = list(module.modules())
    held = [tensor for part in parts for tensor in (*part._parameters.values(), *part._buffers.values())]
    tensors = [tensor for tensor in held if tensor is not None]
    if any(map(is_lazy, tensors)):
        raise ValueError("only a module that has all its parameters is counted, got a lazy one; call it once on data")
    like = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    try:
        with no_garbage_collection(), left_as_it_was(parts), uncompiled_attention(), torch.inference_mode():
            return observe(module, _materialise(inputs, like, _without_memory), "meta")
    except Exception as error:
        failure = error
    try:
        copied = twin(module)
    except Exception:
        raise failure from None
    gpus = sorted({tensor.get_device() for tensor in tensors if tensor.is_cuda})
    whole = attention_in_parts(), uncompiled_attention()
    with left_as_it_was([]), torch.random.fork_rng(gpus), torch.no_grad(), whole[0], whole[1]:
        return observe(copied, _materialise(inputs, like, _with_memory), "run")


def _observe(module: nn.Module, inputs: Sequence[Any], method: Method) -> Counts:
    mode = OnMeta() if method == "meta" else ForReal()
    with module_calls(mode.events) as spans, mode:
        output = module(*inputs)
    by_module = _by_module(module, mode.events, spans, shapes_of(output))
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
        output=total.output,
        method=method,
    )


def _by_module(root: nn.Module, events: Sequence[Event], spans: Sequence[Span], output: Any) -> dict[str, ModuleCounts]:
    sums = [
        list(accumulate(map(attrgetter(what), events), initial=0)) for what in ("macs", "activations", "memory_bytes")
    ]
    called: dict[int, list[int]] = {}
    counted_from: dict[int, int] = {}
    calls = Counter(id(span.module) for span in spans)
    outputs = {id(span.module): span.output for span in spans}
    calls[id(root)] = max(1, calls[id(root)])  # no hook sees the call of a root that is traced
    outputs[id(root)] = output
    for module, start, end, _ in reversed(spans):
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
        counts[path] = ModuleCounts(0, 0, 0, 0, 0, None)  # keeps the order of `named_modules`
        inside = [0, 0, 0]
        for name, child in module._modules.items():
            if child is not None and id(child) not in params:
                below = visit(child, f"{path}.{name}" if path else name)
                inside = [a + b for a, b in zip(inside, below, strict=True)]
            own.update(params[id(child)] if child is not None else ())
        inside = called.get(id(module), inside)
        counts[path] = ModuleCounts(
            sum(own.values()), inside[0], inside[1], inside[2], calls[id(module)], outputs.get(id(module))
        )
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


def _check_first(inputs: Sequence[Any]) -> None:
    """ValueError for a list of sizes in the place of the input's shape, and for a shape without any."""
    first = inputs[0] if inputs else None
    sizes = isinstance(first, (list, tuple)) and all(type(size) is int for size in first)
    if sizes and not (first and isinstance(first, tuple)):
        example = tuple(first) if first else (1, 3, 224, 224)
        raise ValueError(f"the shape of an input is a tuple of sizes, got {first}; give it as one such as {example}")


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
