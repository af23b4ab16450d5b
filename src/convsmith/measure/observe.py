"""Watching one forward pass below autograd: which operators ran, what each costs, and inside which modules."""

import threading
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from convsmith.measure.operators import Cost, operator_of


class Event:
    """What one call below autograd did: the costs of the operators it consists of, and the form of what it returns."""

    __slots__ = ("activations", "costs", "macs", "memory_bytes", "returns")

    def __init__(self, costs: Sequence[Cost], returns: Any = None) -> None:
        self.costs = costs
        self.macs = sum(cost.macs for cost in costs)
        self.activations = sum(cost.activations for cost in costs)
        self.memory_bytes = sum(cost.memory_bytes for cost in costs)
        self.returns = returns


class Span(NamedTuple):
    """One call of a module: the events from `start` up to `end` happened inside it."""

    module: nn.Module
    start: int
    end: int
    output: Any  # what it returned, with the shape in the place of each tensor


class Observer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that sees every operator below autograd; `events` are those it met."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events: list[Event] = []

    def in_plain_operators(self, func: HigherOrderOperator, args: Any, kwargs: Any) -> Any:
        """The answer of an operator on functions, `flex_attention` say, from the plain ones that it consists of."""
        with self:
            return func.py_kernels[DispatchKey.CompositeExplicitAutograd](*args, **kwargs or {})

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the default wraps the mode in a function whose first call imports the compiler: seconds


class ForReal(Observer):  # type: ignore[no-untyped-call]
    """Lets every operator run and notes its cost."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator):
            return self.in_plain_operators(func, args, kwargs)
        operator = operator_of(func)
        if operator.composite:
            with self:
                return operator.in_parts(args, kwargs or {})
        result = func(*args, **kwargs or {})
        if not operator.view:
            self.events.append(Event((operator.cost(args, result),)))
        return result


@contextmanager
def module_calls(events: Sized) -> Iterator[list[Span]]:
    """Inside the context, every module call of this thread becomes a span of `events`, in the order of return."""
    spans: list[Span] = []
    open_calls: list[tuple[nn.Module, int]] = []
    thread = threading.get_ident()

    def enter(module: nn.Module, args: Any) -> None:
        if threading.get_ident() == thread:
            open_calls.append((module, len(events)))

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        if threading.get_ident() == thread and open_calls and open_calls[-1][0] is module:
            spans.append(Span(*open_calls.pop(), len(events), shapes_of(result)))

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield spans
    finally:
        for hook in hooks:
            hook.remove()


def shapes_of(output: Any) -> Any:
    """What a forward pass returned, with the shape (a tuple) in the place of each tensor."""
    if isinstance(output, Tensor):
        return tuple(output.shape)
    if isinstance(output, Mapping):
        return {key: shapes_of(value) for key, value in output.items()}
    if isinstance(output, (list, tuple)):
        return (list if isinstance(output, list) else tuple)(map(shapes_of, output))
    return output
