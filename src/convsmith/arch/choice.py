"""A hole in an architecture: `choice(3, 5, 7)` may stand wherever a value or a block may stand."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar, cast

T = TypeVar("T")


class Choice:
    """Options of which a search picks one; identified by its path in the tree, or by `name` where places must agree.

    In a stem, stage or neck an option may be a tuple of specs, which is spliced in: so depth is searched.
    """

    __slots__ = ("_key", "name", "options")
    options: tuple[Any, ...]
    name: str | None

    def __init__(self, options: tuple[Any, ...], name: str | None = None):
        options = tuple(freeze(option) for option in options)
        if not options:
            raise ValueError("a choice needs at least one option, got none")
        if name is not None and (not name or any(c in name for c in ".:")):
            raise ValueError(f"a choice's name must be non-empty and free of '.' and ':', got {name=}")
        keys = tuple(key_of(option) for option in options)
        if len(set(keys)) < len(keys):
            raise ValueError(f"the options of a choice must differ, got {options!r}")
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "_key", ("choice", name, keys))

    @property
    def key(self) -> tuple[Any, ...]:
        """What equality and hash are made of."""
        return cast("tuple[Any, ...]", self._key)  # type: ignore[attr-defined]

    def position(self, option: object) -> int | None:
        """The index of an option, by identity; None for anything else."""
        return next((i for i, own in enumerate(self.options) if own is option), None)

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        return f"choice({', '.join(map(repr, self.options))}{name})"

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Choice) else self._refuse()

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return Choice, (self.options, self.name)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a choice is frozen; cannot set {name!r}")

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(
            f"{self!r} has no value yet; compare, test or compute with it only after space.sample(rng) or "
            "space.resolve(decisions)"
        )

    __bool__ = __int__ = __float__ = __index__ = __len__ = __iter__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = __abs__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = _refuse


def choice(*options: T, name: str | None = None) -> T:
    """Leave a value or a block open, to be decided by a search.

    Typed as its options, so that a choice passes wherever one of its options would. `name` ties several places
    together: choices of one name take one decision.
    """
    return cast(T, Choice(options, name))


def freeze(node: Any) -> Any:
    """Lists become tuples, recursively."""
    return tuple(freeze(item) for item in node) if isinstance(node, list | tuple) else node


def key_of(node: Any) -> Any:
    """A hashable stand-in that tells 1, 1.0 and True apart and compares choices without asking for their value."""
    if isinstance(node, tuple):
        return tuple(map(key_of, node))
    if isinstance(node, Choice):
        return node.key
    return (node.__class__.__name__, node)
