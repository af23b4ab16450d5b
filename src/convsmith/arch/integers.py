"""Whether the integers that a block is built with are integers, asked before the block is built."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., None])


def checking(construct: F, signature: Callable[[], inspect.Signature], name: str) -> F:
    """The constructor, which raises TypeError for a float or a bool where its signature, without `self`, has integers.

    Else 2.0 groups would be built with, and fail, or compute something else, in the middle of a forward pass.
    """
    known: list[inspect.Signature | None] = []  # evaluated at the first call, when all annotations are defined

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


def _evaluated(signature: Callable[[], inspect.Signature]) -> inspect.Signature | None:
    try:
        return signature()
    except NameError:  # an annotation that is imported for type checkers only
        return None


def _check(signature: inspect.Signature, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:  # the constructor says it itself
        return
    for key, value in given.items():
        annotation = signature.parameters[key].annotation
        if is_integral(annotation) and not _fits(value, annotation):
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
    if annotation is int:  # NumPy's are welcome
        return not isinstance(value, bool) and hasattr(value, "__index__")
    return value is None
