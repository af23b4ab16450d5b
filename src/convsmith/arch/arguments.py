"""Whether the integers and options that a block is built with are such, asked before the block is built."""

from __future__ import annotations

import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

F = TypeVar("F", bound=Callable[..., None])


def checking(construct: F, signature: Callable[[], inspect.Signature], name: str) -> F:
    """The constructor, which first checks what its signature, without `self`, says of integers and options.

    A float or a bool in place of an integer raises TypeError: else 2.0 groups would be built with, and fail, or compute
    something else, in the middle of a forward pass. What is none of a `Literal`'s options raises ValueError: else it
    would be taken for one of them.
    """
    known: list[_Checked | None] = []  # evaluated at the first call, when all annotations are defined

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
    return set(_leaves(annotation)) == {int}


def has_options(annotation: Any) -> bool:
    """Whether an annotation is made of a `Literal`, and otherwise of `int`, `bool`, tuples of these and None."""
    leaves = list(_leaves(annotation))
    return any(map(_is_literal, leaves)) and all(_is_literal(leaf) or leaf in (int, bool) for leaf in leaves)


@dataclass(frozen=True)
class _Checked:
    """Which parameters are checked, sorted out once: a search builds many blocks.

    `places` are the names of positional parameters; `annotations` those that are checked, and whether one integer fits.
    """

    signature: inspect.Signature
    places: tuple[str, ...]
    annotations: dict[str, tuple[Any, bool]]

    @classmethod
    def of(cls, signature: inspect.Signature) -> _Checked:
        """Those of a signature."""
        parameters = signature.parameters.values()
        places = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
        checked = [p for p in parameters if is_integral(p.annotation) or has_options(p.annotation)]
        annotations = {p.name: (p.annotation, is_integral(p.annotation) and _fits(1, p.annotation)) for p in checked}
        return cls(signature, places, annotations)


def _evaluated(signature: Callable[[], inspect.Signature]) -> _Checked | None:
    try:
        return _Checked.of(signature())
    except NameError:  # an annotation that is imported for type checkers only
        return None


def _check(given: _Checked, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for key, value in (*zip(given.places, args, strict=False), *kwargs.items()):
        annotation, takes_one = given.annotations.get(key, (None, False))
        if annotation is None or (takes_one and type(value) is int) or _fits(value, annotation):
            continue
        try:
            given.signature.bind(*args, **kwargs)
        except TypeError:  # the constructor says it itself
            return
        error = ValueError if has_options(annotation) else TypeError
        raise error(f"{name}.{key} must be {_shown(annotation)}, got {value!r}")


def _leaves(annotation: Any) -> Iterator[Any]:
    """What an annotation is made of inside of unions and tuples, but for None."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):
        for member in typing.get_args(annotation):
            yield from _leaves(member)
    elif annotation not in (None, type(None), Ellipsis):
        yield annotation


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Literal


def _shown(annotation: Any) -> str:
    if _is_literal(annotation):
        return f"one of {', '.join(map(repr, typing.get_args(annotation)))}"
    return annotation.__name__ if annotation is int else str(annotation).replace("typing.", "")


def _fits(value: Any, annotation: Any) -> bool:
    kind = typing.get_origin(annotation)
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, member) for member in typing.get_args(annotation))
    if kind is Literal:
        return any(_is_option(value, option) for option in typing.get_args(annotation))
    if kind is tuple:
        members = typing.get_args(annotation)
        if not isinstance(value, tuple | list):
            return False
        if members[-1] is Ellipsis:
            members = members[:1] * len(value)
        return len(members) == len(value) and all(map(_fits, value, members))
    if annotation is int:
        return _is_integer(value)
    return isinstance(value, bool) if annotation is bool else value is None


def _is_option(value: Any, option: Any) -> bool:
    """As types differ, 1 is neither 1.0 nor True."""
    alike = _is_integer(value) if type(option) is int else isinstance(value, type(option))
    return alike and bool(value == option)


def _is_integer(value: Any) -> bool:
    """NumPy's are welcome; arrays and tensors can be asked whether they are one, whatever they hold."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return False
    try:
        operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True
