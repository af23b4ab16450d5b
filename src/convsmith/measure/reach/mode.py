"""Which input pixels a value can depend on: one pass in which every number is the least of its pixels' numbers.

The input holds, instead of an image, a number for each pixel: its row, say. Every operator is answered by the least
number among the elements that each result reads: a convolution by a minimum over its window, a sum of branches by the
smaller one, a concatenation by itself. So a map's value is the first row of the input that it depends on, for any
control flow, exactly; with the negated row it is the last one. What depends on no pixel (weights, padding) is infinity.

The pass runs below autograd (`rules.py`), where views and writes in place are what they are, so any module will
do. A boolean mask passed backwards from one output would give holes too, but of this output alone; a gradient of
positive weights underflows in deep networks and needs every non-linearity replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from convsmith.measure.forms import map_tensors, tensors_in
from convsmith.measure.formulas import POINTWISE_WITHOUT_TAG, operator_name

Rule = Callable[..., Any]
NOTHING, EVERYTHING = math.inf, -math.inf
LIMIT, LEAST_LIMIT = 1024, 1 << 22  # elements for each of the input, and those that are always computed
NO_RULE = "has no rule: what it returns is taken to depend on the whole input"


class ReadsValuesError(ValueError):
    """The forward pass asks for a value of a map, which this pass does not have."""


class TooLargeError(ValueError):
    """A value of a local pass that has far more elements than the input, as the weights of attention have."""


class Reach(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The pass; tensors that depend on the input are known by the memory that they share.

    Attributes:
        local: Whether what reads a whole map at once (global pooling, norms over a map, adaptive pooling) is left out,
            as for the size of a field that does not grow with the input.
        assumptions: What had to be assumed, by operator.
    """

    follows_values = True  # a module with a quicker form that computes with the bits of numbers takes another one

    def __init__(self, numbers: Tensor, *, local: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.local = local
        self.assumptions: dict[str, str] = {}
        self._reached = {_storage(numbers)}
        self._most = max(LEAST_LIMIT, LIMIT * numbers.numel()) if local else math.inf

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the default wraps the mode in a function whose first call imports the compiler: seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(tensors_in((*args, *kwargs.values())))
        if not any(map(self.reaches, given)):
            result = func(*args, **kwargs)
            if not func.is_view or "lift_fresh" in func._schema.name:
                self._reached.difference_update(map(_storage, tensors_in((result,))))
            return result
        if func.is_view or torch.Tag.inplace_view in func.tags:
            return func(*args, **kwargs)
        named = _by_name(func, args, kwargs)
        name = operator_name(func)
        result = self._answer(func, name, named)
        return self._written(func, named, result) if func._schema.is_mutable else self._new(func, result)

    def reaches(self, value: Any) -> bool:
        """Whether it is a tensor that depends on the input."""
        return isinstance(value, Tensor) and _storage(value) in self._reached

    def least(self, value: Tensor) -> Tensor:
        """The numbers of a tensor; infinity where it does not depend on the input."""
        if self.reaches(value):
            return value
        return torch.full((), NOTHING, device=value.device if not value.is_meta else "cpu").expand(value.shape)

    def check_size(self, shape: Sequence[int]) -> None:
        """TooLargeError for a value that a local pass does not compute."""
        if math.prod(shape) > self._most:
            raise TooLargeError(f"a value of shape {tuple(shape)} is too large for a field that needs no border")

    def assume(self, name: str, what: str) -> None:
        """Note what is assumed of an operator."""
        self.assumptions[name] = what

    def everything(self, func: Any, named: Mapping[str, Any], what: str = NO_RULE) -> Any:
        """The answer that is safe: each result depends on the whole input."""
        self.assume(operator_name(func), what)
        result = func(**named) if not func._schema.is_mutable else named["self"]
        return map_tensors(result, lambda tensor: torch.full(tensor.shape, EVERYTHING))

    def _answer(self, func: Any, name: str, named: dict[str, Any]) -> Any:
        from convsmith.measure.reach.rules import RULES, elementwise

        if name in ("local_scalar_dense", "is_nonzero", "equal", "nonzero"):
            raise ReadsValuesError(
                "a receptive field is that of one computation, and this forward pass decides by values of a map "
                f"({func}); give a part of the module without the branch"
            )
        rule = RULES.get(name)
        if rule is not None:
            return rule(self, func, named)
        if "pointwise" in {tag.name for tag in func.tags} or name in POINTWISE_WITHOUT_TAG:
            return elementwise(self, func, named)
        return self.everything(func, named)

    def _new(self, func: Any, result: Any) -> Any:
        result = map_tensors(result, Tensor.contiguous)  # not the same memory under two indices
        results = list(tensors_in((result,)))
        for each in results:
            self.check_size(each.shape)
        self._reached.update(map(_storage, results))
        missing = len(func._schema.returns) - 1
        if missing > 0 and isinstance(result, Tensor):  # values that serve the backward pass, or indices of them
            return (result, *[result] * missing)
        return result

    def _written(self, func: Any, named: Mapping[str, Any], result: Any) -> Any:
        """Write into the tensor that the operator changes; of one without pixels, no other element has any."""
        targets = [named[a.name] for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
        for target, value in zip(targets, tensors_in((result,)), strict=False):
            if not target.is_floating_point():
                raise TypeError(f"numbers of pixels cannot be written into {target.dtype}")
            if not self.reaches(target):
                whole = torch.empty(0, dtype=target.dtype, device=target.device).set_(target.untyped_storage())
                whole.fill_(NOTHING)
                self._reached.add(_storage(target))
            target.copy_(value)
        return targets[0] if len(targets) == 1 else tuple(targets)


def _by_name(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    arguments = func._schema.arguments
    named = {argument.name: value for argument, value in zip(arguments, args, strict=False)}
    for argument in arguments:
        if argument.name in kwargs:
            named[argument.name] = kwargs[argument.name]
        elif argument.name not in named and argument.has_default_value():
            named[argument.name] = argument.default_value
    return named


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def maps_in(output: Any, axes: int = 4) -> Iterator[Tensor]:
    """All maps (N, C, H, W), or other tensors of so many axes, among what a module returned."""
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, Tensor):
        if output.dim() == axes:
            yield output
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from maps_in(item, axes)
