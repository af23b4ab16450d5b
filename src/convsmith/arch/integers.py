"""Whether the integers that a block is built with are integers, asked before the block is built."""

from __future__ import annotations

import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., None])


def checking(construct: F, signature: Callable[[], inspect.Signature], name: str) -> F:
    """The constructor, which raises TypeError for a float or a bool where its signature, without `self`, has integers.

    Else 2.0 groups would be built with, and fail, or compute something else, in the middle of a forward pass.
    """
    known: list[_Integers | None] = []  # evaluated at the first call, when all annotations are defined

    @functools.wraps(construct)
    def constructed(self: Any, *args: Any, **kwargs: Any) -> None:
        if not known:
            known.append(_evaluated(signature))
        if known[0] is not None:
            _check(known[0], name, args, kwargs)
        construct(self, *args, **kwargs)

    return typing.cast(F, constructed)


def is_integral(annotation: Any) -> bool:
    """Whether an annotation is made of `int`, tuples of it and None."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):
        members = [m for m in typing.get_args(annotation) if m not in (None, type(None), Ellipsis)]
        return bool(members) and all(map(is_integral, members))
    return annotation is int


@dataclass(frozen=True)
class _Integers:
    """Which parameters are integers, sorted out once: a search builds many blocks.

    `places` are the names of positional parameters; `annotations` those that have integers, and whether one will do.
    """

    signature: inspect.Signature
    places: tuple[str, ...]
    annotations: dict[str, tuple[Any, bool]]

    @classmethod
    def of(cls, signature: inspect.Signature) -> _Integers:
        """Those of a signature."""
        parameters = signature.parameters.values()
        places = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
        integral = [p for p in parameters if is_integral(p.annotation)]
        return cls(signature, places, {p.name: (p.annotation, _fits(1, p.annotation)) for p in integral})


def _evaluated(signature: Callable[[], inspect.Signature]) -> _Integers | None:
    try:
        return _Integers.of(signature())
    except NameError:  # an annotation that is imported for type checkers only
        return None


def _check(given: _Integers, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for key, value in (*zip(given.places, args, strict=False), *kwargs.items()):
        annotation, is_one = given.annotations.get(key, (None, False))
        if annotation is None or (is_one and type(value) is int) or _fits(value, annotation):
            continue
        try:
            given.signature.bind(*args, **kwargs)
        except TypeError:  # the constructor says it itself
            return
        shown = annotation.__name__ if annotation is int else str(annotation)
        raise TypeError(f"{name}.{key} must be {shown}, got {value!r}")


def _fits(value: Any, annotation: Any) -> bool:
    kind = typing.get_origin(annotation)
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, member) for member in typing.get_args(annotation))
    if kind is tuple:
        members = typing.get_args(annotation)
        if not isinstance(value, tuple | list):
            return False
        if members[-1] is Ellipsis:
            members = members[:1] * len(value)
        return len(members) == len(value) and all(map(_fits, value, members))
    return _is_integer(value) if annotation is int else value is None


def _is_integer(value: Any) -> bool:
    """NumPy's are welcome; arrays and tensors can be asked whether they are one, whatever they hold."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return False
    try:
        operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True
