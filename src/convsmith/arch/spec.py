"""A recorded call: a block's name and every argument but `in_channels`, checked when it is made."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Concatenate, Literal, ParamSpec, TypeAlias

from convsmith.arch.choice import Choice, freeze, key_of
from convsmith.arch.registry import RegisteredBlock, registered, registered_class

P = ParamSpec("P")
Argument: TypeAlias = "int | float | bool | str | tuple[Argument, ...] | BlockSpec | Choice | None"


class BlockSpec:
    """A recorded call of a registered block: its name and all arguments but `in_channels`, defaults included.

    Frozen and hashable. `spec(InvertedResidual, 16, stride=2)` makes one; `replace` makes another from it.
    """

    __slots__ = ("_hash", "_key", "_open", "arguments", "block")
    block: str
    arguments: tuple[tuple[str, Argument], ...]
    _key: tuple[Any, ...]
    _hash: int
    _open: bool

    def __init__(self, block: str, arguments: Iterable[tuple[str, Argument]]):
        arguments = tuple(arguments)
        key = (block, tuple((name, key_of(value)) for name, value in arguments))
        for name, value in (
            ("block", block),
            ("arguments", arguments),
            ("_key", key),
            ("_hash", hash(key)),
            ("_open", any(is_open(value) for _, value in arguments)),
        ):
            object.__setattr__(self, name, value)

    def build(self, in_channels: int | tuple[int, ...]) -> Any:
        """The module that the recorded call makes behind `in_channels` channels."""
        return registered(self.block).constructor(in_channels, **dict(self.arguments))

    @property
    def carries(self) -> int:
        """How many maps flow through the block: 1, or 2 for a cell."""
        return registered(self.block).carries

    def get(self, name: str, default: Any = None) -> Any:
        """The argument of that name, or `default` where the block has none."""
        return next((value for own, value in self.arguments if own == name), default)

    def has(self, name: str) -> bool:
        """Whether the block takes an argument of that name."""
        return any(own == name for own, _ in self.arguments)

    def replace(self, **changes: Any) -> BlockSpec:
        """The same call with other arguments, checked as `spec` checks them."""
        return record(registered(self.block), {**dict(self.arguments), **changes})

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, BlockSpec) and self._hash == other._hash and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __deepcopy__(self, memo: dict[int, Any]) -> BlockSpec:
        return self  # frozen, as all that it holds is

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockSpec, (self.block, self.arguments)  # not the hash: strings hash differently in each process

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a spec is frozen; use replace({name}=...)")

    def __repr__(self) -> str:
        return f"{self.block}({', '.join(f'{name}={value!r}' for name, value in changed_arguments(self))})"


def spec(block: Callable[Concatenate[Any, P], Any], *args: P.args, **kwargs: P.kwargs) -> BlockSpec:
    """Record a call of a block without its `in_channels`, which the builder threads through.

    Raises TypeError in the line that wrote a wrong argument, naming the block and what it accepts.
    """
    entry = registered_class(block)
    try:
        bound = entry.signature.bind(0, *args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{entry.name}: {error}; it accepts {accepted(entry)}") from None
    return record(entry, dict(list(bound.arguments.items())[1:]))


def record(entry: RegisteredBlock, arguments: Mapping[str, Any]) -> BlockSpec:
    """A spec of a registered block from named arguments: defaults written out, values checked and coerced."""
    parameters = list(entry.signature.parameters.values())[1:]
    unknown = [name for name in arguments if name not in {p.name for p in parameters}]
    if unknown:
        raise TypeError(f"{entry.name}: unknown argument {unknown[0]!r}; it accepts {accepted(entry)}")
    values = []
    for parameter in parameters:
        value = arguments.get(parameter.name, parameter.default)
        if value is inspect.Parameter.empty:
            raise TypeError(f"{entry.name}: argument {parameter.name!r} is missing; it accepts {accepted(entry)}")
        values.append((parameter.name, coerce(freeze(value), parameter.annotation, f"{entry.name}.{parameter.name}")))
    return BlockSpec(entry.name, values)


def changed_arguments(spec: BlockSpec) -> list[tuple[str, Argument]]:
    """The arguments that differ from the block's defaults, in order."""
    parameters = registered(spec.block).signature.parameters
    return [
        (name, value)
        for name, value in spec.arguments
        if name not in parameters
        or (default := parameters[name].default) is inspect.Parameter.empty
        or key_of(freeze(default)) != key_of(value)
    ]


def accepted(entry: RegisteredBlock) -> str:
    """The signature as an error shows it, e.g. `(out_channels: int, stride: int = 1)`."""
    parameters = list(entry.signature.parameters.values())[1:]
    return "(" + ", ".join(str(p).replace("convsmith.arch.spec.", "") for p in parameters) + ")"


def is_open(node: Any) -> bool:
    """Whether a choice stands anywhere in the node."""
    if isinstance(node, BlockSpec):
        return node._open
    return isinstance(node, Choice) or (isinstance(node, tuple) and any(map(is_open, node)))


def coerce(value: Any, annotation: Any, where: str) -> Any:
    """The value as its annotation has it, so that equal trees hash equally: 6 becomes 6.0 for a float.

    Raises TypeError for a value of another type (a bool is no int) and ValueError for NaN and infinity.
    """
    if isinstance(value, Choice):
        return Choice(tuple(coerce(option, annotation, where) for option in value.options), value.name)
    kind = typing.get_origin(annotation)
    if kind in (typing.Union, types.UnionType):
        return _coerce_union(value, typing.get_args(annotation), annotation, where)
    if kind is tuple and isinstance(value, tuple):
        return _coerce_tuple(value, typing.get_args(annotation), annotation, where)
    if kind is Literal and any(
        value == option and type(value) is type(option) for option in typing.get_args(annotation)
    ):
        return value
    if annotation is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{where} must be finite, got {value!r}")
        return float(value)
    if annotation in (int, str, bool) and type(value) is annotation:
        return value
    if annotation in (None, type(None)) and value is None:
        return None
    if annotation is BlockSpec and isinstance(value, BlockSpec):
        return value
    expected = (
        getattr(annotation, "__name__", str(annotation)) if kind is None else str(annotation).replace("typing.", "")
    )
    remedy = "; record it with spec(...)" if annotation is BlockSpec and isinstance(value, type) else ""
    raise TypeError(f"{where} must be {expected}, got {value!r}{remedy}")


def _coerce_union(value: Any, members: tuple[Any, ...], annotation: Any, where: str) -> Any:
    # The exact type first: of `int | float`, 6 stays an int.
    for member in sorted(members, key=lambda member: member is not type(value)):
        try:
            return coerce(value, member, where)
        except TypeError:
            continue
    shown = str(annotation).replace("convsmith.arch.spec.", "").replace("typing.", "")
    raise TypeError(f"{where} must be {shown}, got {value!r}")


def _coerce_tuple(value: tuple[Any, ...], members: tuple[Any, ...], annotation: Any, where: str) -> tuple[Any, ...]:
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise TypeError(f"{where} must be {annotation}, got {len(value)} values: {value!r}")
    return tuple(
        _coerce_item(item, member, f"{where}[{i}]") for i, (item, member) in enumerate(zip(value, members, strict=True))
    )


def _coerce_item(item: Any, member: Any, where: str) -> Any:
    if member is BlockSpec and isinstance(item, Choice):  # its options may be tuples of specs, which are spliced in
        return Choice(
            tuple(coerce(o, tuple[BlockSpec, ...] if isinstance(o, tuple) else member, where) for o in item.options),
            item.name,
        )
    return coerce(item, member, where)
