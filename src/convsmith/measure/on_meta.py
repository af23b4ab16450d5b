"""A forward pass of shapes alone: every operator answered on the meta device, those met before from a memo."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator

from convsmith.measure.forms import map_tensors, result_form, tensors_in
from convsmith.measure.observe import Event, Observer
from convsmith.measure.operators import Operator, operator_of

MEMO_SIZE = 8192
CONSTANT_SIZE = 256


class _Fresh(NamedTuple):
    """A new tensor among the results of an operator."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def make(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


class _Given(NamedTuple):
    """A result that is one of the operator's tensor arguments itself."""

    position: int


_MEMOS: dict[torch.dtype, dict[Any, Event]] = {}


class OnMeta(Observer):  # type: ignore[no-untyped-call]
    """Answers every operator with tensors on the meta device, wherever its arguments are, and writes to none of them.

    An operator met before with the same shapes, strides, types and numbers is answered from a memo. What the pass
    computes from small tensors of the module alone (a buffer with a rate, compared with 0) is computed for real, so
    that it can decide a branch; a value that was to be overwritten in the pass cannot be had.
    """

    def __init__(self) -> None:
        super().__init__()
        self._memo = _MEMOS.setdefault(torch.get_default_dtype(), {})
        self._stand_ins: dict[int, tuple[Tensor, Tensor]] = {}
        self._overwritten: set[int] = set()
        self._values_used = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator):
            return self.in_plain_operators(func, args, kwargs)
        operator = operator_of(func)
        if operator.view:
            return func(*args, **kwargs or {})
        if operator.view_in_parts and not args[0].is_inference():
            with self:  # torch insists that the view of a tensor from outside the pass really is one
                return func.decompose(*args, **kwargs or {})
        tensors: list[Tensor] = []
        signature = _signature(args, tensors)
        if kwargs:
            signature += _signature(kwargs.items(), tensors)
        if operator.special and (answer := self._special(operator, tensors, args, kwargs or {})) is not None:
            return answer
        if operator.writes:
            self._overwritten.update(_storage(tensor) for tensor in tensors if not tensor.is_meta)
        event = self._memo.get((id(func), signature))
        if event is None:
            return self._first_call(operator, args, kwargs or {}, tensors, (id(func), signature))
        if event.costs:
            self.events.append(event)
        if operator.pure and tensors and not tensors[0].is_meta and self._have_values(tensors):
            return func(*args, **kwargs or {})
        if type(event.returns) is _Fresh:
            return event.returns.make()
        return _returned(event.returns, tensors)

    def _first_call(self, operator: Operator, args: Any, kwargs: Any, tensors: list[Tensor], key: Any) -> Any:
        if operator.composite:
            start, values_used = len(self.events), self._values_used
            with self:
                result = operator.in_parts(args, kwargs)
            costs = [cost for event in self.events[start:] for cost in event.costs]
            del self.events[start:]
            event = Event(costs, _form(result, tensors))
            if self._values_used != values_used:
                self.events.append(event)
                return result
        else:
            stand_ins = map_tensors(args, self._stand_in)
            options = {name: map_tensors(value, self._stand_in) for name, value in kwargs.items()}
            if options.get("device") is not None:
                options["device"] = torch.device("meta")
            result = _by_rule(operator, stand_ins, options)
            if result is None:
                result = operator.func(*stand_ins, **options)
            event = Event([operator.cost(stand_ins, result)], _form(result, [self._stand_in(x) for x in tensors]))
        if event.costs:
            self.events.append(event)
        if not operator.writes_out:
            if len(self._memo) >= MEMO_SIZE:
                self._memo.clear()
            self._memo[key] = event
        if operator.pure and self._have_values(tensors):
            return operator.func(*args, **kwargs)
        return _returned(event.returns, tensors)

    def _special(self, operator: Operator, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """The answer of an operator that reads a value, reshapes in place or moves to a device; None if it is usual."""
        if operator.name == "to_copy":
            moved_only = kwargs.get("dtype") in (None, tensors[0].dtype) and kwargs.get("memory_format") is None
            return tensors[0] if moved_only else None
        if operator.reshapes and args[0].is_inference():
            return operator.func(*args, **kwargs)
        if not operator.reshapes and self._have_values(tensors):
            return operator.func(*args)
        raise RuntimeError(f"{operator.func} needs values, or would reshape a tensor from outside the pass")

    def _have_values(self, tensors: Sequence[Tensor]) -> bool:
        """Whether all are small tensors of the module, or constants of its code, as they would be in a real pass."""
        if (
            not tensors
            or any(tensor.is_meta for tensor in tensors)
            or sum(tensor.numel() for tensor in tensors) > CONSTANT_SIZE
            or any(_storage(tensor) in self._overwritten for tensor in tensors)
        ):
            return False
        self._values_used += 1
        return True

    def _stand_in(self, tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            return tensor
        if id(tensor) not in self._stand_ins:
            # The tensor is kept too: its id must not be used again in this pass.
            self._stand_ins[id(tensor)] = (tensor, _Fresh(tensor.shape, tensor.stride(), tensor.dtype).make())
        return self._stand_ins[id(tensor)][1]


def _signature(values: Iterable[Any], tensors: list[Tensor]) -> tuple[Any, ...]:
    """All that the form of the result depends on; the tensors met are appended to `tensors`."""
    parts: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
            parts += (value.shape, value.stride(), value.dtype)
        elif isinstance(value, (list, tuple)):
            parts.append(_signature(value, tensors))
        else:
            parts += (type(value), value)  # 1, 1.0 and True are equal but give results of different types
    return tuple(parts)


def _by_rule(operator: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    form = None if kwargs.keys() - {"alpha", "approximate"} else result_form(operator.aten_name, args)
    if form is None:
        return None
    first = next(tensors_in(args))
    if operator.writes:
        return first if tuple(form.shape) == first.shape else None
    return torch.empty(form.shape, dtype=first.dtype, device="meta", memory_format=form.memory_format)


def _form(result: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(result, Tensor):
        given = (index for index, tensor in enumerate(tensors) if tensor is result)
        return next(map(_Given, given), _Fresh(result.shape, result.stride(), result.dtype))
    if isinstance(result, (list, tuple)):
        return type(result)(_form(item, tensors) for item in result)
    return result


def _returned(form: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(form, _Given):
        return tensors[form.position]
    if isinstance(form, _Fresh):
        return form.make()
    if isinstance(form, (list, tuple)):
        return type(form)(_returned(item, tensors) for item in form)
    return form


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
