"""What each operator below autograd costs: one call of it, from its arguments and its result."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch._ops import OpOverload

from convsmith.measure.forms import tensors_in
from convsmith.measure.formulas import (
    CONVOLUTIONS,
    FORMULAS,
    LOOK_UPS,
    MAC_FREE,
    NO_TRAFFIC,
    RESULT_FIRST,
    SHOWN_AS,
    WRITE_ONLY,
    operator_name,
)


class Cost(NamedTuple):
    """One call of one operator; `known` says that it has a formula or is free of MACs."""

    operator: str
    macs: int
    activations: int
    memory_bytes: int
    known: bool


class Operator:
    """What is known of an operator before its arguments."""

    def __init__(self, func: OpOverload[..., Any]) -> None:
        self.func = func  # kept alive: operators are found by id, since their hash is slow
        name = operator_name(func)
        tags = {tag.name for tag in func.tags}
        self.aten_name = name
        self.name = SHOWN_AS.get(name, name)
        self.formula = FORMULAS[name][1] if name in FORMULAS else None
        self.known = self.formula is not None or self.name in MAC_FREE or "pointwise" in tags
        self.composite = not self.known and func._can_decompose()
        self.view = func.is_view and not self.composite
        self.view_in_parts = func.is_view and self.composite
        self.writes = func._schema.is_mutable
        self.writes_out = any(argument.is_out for argument in func._schema.arguments)
        self.pure = not self.writes and bool(tags & {"pointwise", "reduction"})
        self.reshapes = "inplace_view" in tags
        self.special = self.reshapes or self.name in ("local_scalar_dense", "to_copy")

    def in_parts(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the operators that a composite one consists of."""
        if self.aten_name == "dropout" and not (args[1] and args[2]):  # its probability, and whether it trains
            return args[0]  # as eager does; the parts that torch 2.11 names are a copy
        return self.func.decompose(*args, **kwargs)

    def cost(self, args: Sequence[Any], result: Any) -> Cost:
        """The cost of a call with these positional arguments and this result, of which only shapes and types count."""
        read, written = list(tensors_in(args)), list(tensors_in((result,)))
        if self.name in RESULT_FIRST:
            written = written[:1]
        if self.name in LOOK_UPS:
            read[:1] = written
        if self.name in WRITE_ONLY and self.writes:
            read = read[1:]
        return Cost(
            self.name,
            macs=self.formula(written[0], *args) if self.formula else 0,
            activations=written[0].numel() if self.name in CONVOLUTIONS else 0,
            memory_bytes=0 if self.name in NO_TRAFFIC else sum(map(_memory_bytes, read + written)),
            known=self.known,
        )


_OPERATORS: dict[int, Operator] = {}


def operator_of(func: OpOverload[..., Any]) -> Operator:
    """What is known of an operator, remembered."""
    return _OPERATORS.get(id(func)) or _OPERATORS.setdefault(id(func), Operator(func))


def _memory_bytes(tensor: Tensor) -> int:
    """The bytes of a tensor's elements; those that `expand` repeats are there once."""
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not size)
    return math.prod(sizes) * tensor.element_size()
