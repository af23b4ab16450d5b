"""Which operator of a forward pass reads the results of which: the network as it is executed, whatever wrote it.

The pass runs below autograd, as for the cost (`measure.count`): on the meta device, or for real where it needs values.
So it follows every network that can be counted, functions as well as modules, and each call of a shared module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.utils.weak import WeakTensorKeyDictionary

from convsmith.measure.count import Method, either_way
from convsmith.measure.forms import tensors_in
from convsmith.measure.formulas import operator_name
from convsmith.measure.observe import ForReal, module_calls
from convsmith.measure.on_meta import OnMeta
from convsmith.measure.untouched import in_eval_mode
from convsmith.network.shapes import Shape

PRODUCTS = frozenset(("linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "einsum"))


@dataclass(frozen=True)
class Operation:
    """One call of an operator that depends on the input.

    Attributes:
        name: Under which it stands in the tables of `formulas.py`.
        module: Path of the innermost module in whose `forward` it runs, "" where that is the network's own.
        reads: The operations, by position, whose results it reads; the first of all is the input itself.
        read_shapes: The shapes of what it reads.
        shape: Of its first result.
        memory_bytes: What it reads and writes, as `Counts` has it.
        groups: Of a convolution, else 0.
        is_view: Whether it moves nothing.
    """

    name: str
    module: str
    reads: tuple[int, ...]
    read_shapes: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    memory_bytes: int
    groups: int = 0
    is_view: bool = False

    @property
    def is_convolution(self) -> bool:
        """Whether it convolves a map."""
        return self.groups > 0

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel is convolved alone."""
        return 1 < self.groups == self.read_shapes[0][1]

    @property
    def is_layer(self) -> bool:
        """Whether it mixes values by weights: a convolution, or a product of matrices."""
        return self.is_convolution or self.name in PRODUCTS


def follow(network: nn.Module, input_shape: Shape) -> tuple[Operation, ...]:
    """The operations of one pass in eval mode, in the order of execution."""
    with in_eval_mode(network):
        return either_way(network, (input_shape,), _observed)


def longest(flow: Sequence[Operation], own: Callable[[int, Operation], int]) -> list[int]:
    """For each operation the sum of `own` over the operations of the longest way to it, itself included."""
    found: list[int] = []
    for i, operation in enumerate(flow):
        found.append(own(i, operation) + max((found[read] for read in operation.reads), default=0))
    return found


def _observed(module: nn.Module, inputs: Sequence[Any], method: Method) -> tuple[Operation, ...]:
    notes = _Notes(inputs)
    mode = _FollowedOnMeta(notes) if method == "meta" else _FollowedForReal(notes)
    with module_calls(notes.operations) as spans, mode:
        module(*inputs)
    paths = {id(part): path for path, part in module.named_modules()}
    innermost = [""] * len(notes.operations)
    for span in reversed(spans):  # in the order of return, so that the outer ones come first
        innermost[span.start : span.end] = [paths.get(id(span.module), "")] * (span.end - span.start)
    return tuple(replace(own, module=path) for own, path in zip(notes.operations, innermost, strict=True))


class _Notes:
    """The operations so far, and which of them made each tensor."""

    def __init__(self, inputs: Sequence[Any]) -> None:
        (given,) = inputs
        self.operations = [Operation("input", "", (), (), tuple(given.shape), 0)]
        self.inside = False  # an operator that consists of others
        self._makers: Any = WeakTensorKeyDictionary()
        self._makers[given] = 0
        self._writers: dict[int, dict[int, int]] = {}

    def add(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any, memory_bytes: int) -> None:
        """Note a call, unless nothing that it reads depends on the input."""
        given = list(tensors_in((*args, *kwargs.values())))[: _values_read(func)]
        read = [(maker, tuple(tensor.shape)) for tensor in given for maker in self._makers_of(tensor)]
        results = list(tensors_in((result,)))
        if not read:
            for tensor in results:
                self._makers.pop(tensor, None)
                if not func._schema.is_mutable and not func.is_view:
                    self._writers.pop(_storage(tensor), None)
            return
        operation = Operation(
            operator_name(func),
            "",
            tuple(maker for maker, _ in read),
            tuple(shape for _, shape in read),
            tuple(results[0].shape) if results else (),
            memory_bytes,
            _groups(func, args, kwargs),
            is_view=func.is_view,
        )
        self.operations.append(operation)
        position = len(self.operations) - 1
        for tensor in results:
            self._makers[tensor] = position
            if func._schema.is_mutable:
                self._writers.setdefault(_storage(tensor), {})[position] = tensor.numel()
            elif not func.is_view:
                self._writers.pop(_storage(tensor), None)  # the memory of a tensor that is gone

    def _makers_of(self, tensor: Tensor) -> list[int]:
        """What made it, and what wrote to parts of it afterwards."""
        made = self._makers.get(tensor)
        writers = self._writers.get(_storage(tensor), {})
        parts = [by for by, size in writers.items() if size < tensor.numel() and by > (-1 if made is None else made)]
        found = [*([] if made is None else [made]), *parts]
        if len(found) < 2:
            return found
        shape = tuple(tensor.shape)
        shapes = tuple(self.operations[by].shape for by in found)
        self.operations.append(Operation("cat", "", tuple(found), shapes, shape, 0))
        self._makers[tensor] = len(self.operations) - 1
        return [len(self.operations) - 1]


class _FollowedOnMeta(OnMeta):  # type: ignore[no-untyped-call]
    def __init__(self, notes: _Notes) -> None:
        super().__init__()
        self.notes = notes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _noted(self, super().__torch_dispatch__, func, types, args, kwargs)


class _FollowedForReal(ForReal):  # type: ignore[no-untyped-call]
    def __init__(self, notes: _Notes) -> None:
        super().__init__()
        self.notes = notes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _noted(self, super().__torch_dispatch__, func, types, args, kwargs)


def _noted(mode: _FollowedOnMeta | _FollowedForReal, call: Any, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    notes, start = mode.notes, len(mode.events)
    if notes.inside or isinstance(func, HigherOrderOperator):
        return call(func, types, args, kwargs)
    notes.inside = True
    try:
        result = call(func, types, args, kwargs)
    finally:
        notes.inside = False
    notes.add(func, args, kwargs or {}, result, sum(event.memory_bytes for event in mode.events[start:]))
    return result


def _groups(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """Of a convolution: an operator by that name, or of another library, that has a weight; 0 of others."""
    if "conv" not in func._schema.name.rpartition("::")[2]:
        return 0
    names = [argument.name for argument in func._schema.arguments]
    named = {**dict(zip(names, args, strict=False)), **kwargs}
    if "weight" not in names:
        return 0
    return int(named.get("groups", named.get("n_weight_grps", 1)))


def _values_read(func: Any) -> int | None:
    """How many of the tensors it is given are read for their values; of the others the shape alone counts."""
    name = operator_name(func)
    if name.endswith("_like") or name.startswith("new_"):
        return 0
    return 1 if name.endswith("_as") else None


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
