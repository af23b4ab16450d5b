"""The registry of blocks: permanent snake_case names, and the constructor's signature as the only schema."""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from convsmith.arch.arguments import checking

C = TypeVar("C", bound=type[Any])

_BLOCKS: dict[str, RegisteredBlock] = {}
_FORGET: list[Callable[[], object]] = []  # what knows results of blocks by name


@dataclass(frozen=True)
class RegisteredBlock:
    """A block class under its permanent name.

    `carries` is the number of maps that flow through it: 1 for an ordinary block, 2 for a cell that reads the two
    latest maps and returns a tuple of which the last is the current one.
    """

    name: str
    constructor: type[Any]
    carries: int

    @cached_property
    def signature(self) -> inspect.Signature:
        """The constructor's parameters, `in_channels` first, without `self`; annotations evaluated."""
        hints = typing.get_type_hints(self.constructor.__init__)
        parameters = list(inspect.signature(self.constructor.__init__).parameters.values())[1:]
        return inspect.Signature([p.replace(annotation=hints.get(p.name, Any)) for p in parameters])


def block(name: str, *, carries: int = 1) -> Callable[[C], C]:
    """Register a block class under a permanent snake_case name.

    The class takes `in_channels` first (a tuple of channels when `carries > 1`), has serialisable arguments and an
    attribute `out_channels`. The same class defined again, as in a notebook, takes the place of the one before.
    Built with a float or a bool where its signature has an integer, the class raises TypeError, with what is none of
    the options of a `Literal` there, ValueError.
    """
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"a block's name must be snake_case, got {name=}")

    def register(cls: C) -> C:
        known = _BLOCKS.get(name)
        if known is not None and known.constructor.__qualname__ != cls.__qualname__:
            raise ValueError(
                f"the block name {name!r} is taken by {known.constructor.__module__}.{known.constructor.__qualname__}; "
                "choose another name"
            )
        first = next(iter(list(inspect.signature(cls.__init__).parameters)[1:]), None)
        if first != "in_channels":
            raise TypeError(f"the first argument of a block must be in_channels, got {first!r} in {cls.__qualname__}")
        cls.block_name = name
        cls.carries = carries
        entry = _BLOCKS[name] = RegisteredBlock(name, cls, carries)
        cls.__init__ = checking(cls.__init__, lambda: entry.signature, name)
        if known is not None:
            for forget in _FORGET:
                forget()
        return cls

    return register


def when_redefined(forget: Callable[[], object]) -> None:
    """Have a function called whenever a name gets another constructor: what is known of blocks by name is outdated."""
    _FORGET.append(forget)


def block_names() -> list[str]:
    """All registered names, sorted."""
    _fill()
    return sorted(_BLOCKS)


def registered(name: str) -> RegisteredBlock:
    """The registered block of that name; an unknown name raises ValueError with close matches."""
    if name not in _BLOCKS:
        _fill()
    try:
        return _BLOCKS[name]
    except KeyError:
        close = difflib.get_close_matches(str(name), _BLOCKS, n=3)
        remedy = f"did you mean {' or '.join(map(repr, close))}?" if close else "register it with @convsmith.block(...)"
        raise ValueError(f"unknown block {name!r}; {remedy}") from None


def registered_class(constructor: object) -> RegisteredBlock:
    """The entry of a block class; a class that is not registered itself (a subclass, say) raises TypeError."""
    name = vars(constructor).get("block_name") if isinstance(constructor, type) else None
    if name is None:
        shown = getattr(constructor, "__qualname__", repr(constructor))
        raise TypeError(f"only registered blocks can be recorded, got {shown}; decorate the class with @block('name')")
    return registered(name)


def _fill() -> None:
    # By name, not by an import statement: arch stays free of torch, and `import convsmith` stays quick.
    importlib.import_module("convsmith.nn")
