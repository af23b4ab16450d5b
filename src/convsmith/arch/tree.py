"""The one traversal, `resolve`, and what it serves: sampling, counting, mutation, neighbours.

A decision is the index of an option. A choice is known by its name, or by its path: `stages.1.0.kernel_size`; a choice
inside option 2 of another one continues that path behind a colon: `stages.1.0:2.kernel_size`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, TypeAlias

from convsmith.arch.choice import Choice
from convsmith.arch.spec import BlockSpec, is_open

Decisions: TypeAlias = "dict[str, int]"
Decide: TypeAlias = Callable[[str, Choice], Any]


def resolve(node: Any, decide: Decide, path: str = "") -> Any:
    """Replace every choice of a tree by `decide(path, choice)`, and the choices inside of what it returns.

    The tree is made of specs, tuples and frozen dataclasses (an architecture, a recipe). `decide` returns one of the
    options, or anything else that may stand in their place (a supernet puts a mixed block there). A choice whose
    options are tuples of specs is spliced into the tuple it stands in.
    """
    if isinstance(node, Choice):
        key = node.name or path
        picked = decide(key, node)
        index = node.position(picked)
        return resolve(picked, decide, key if index is None else f"{key}:{index}")
    if not has_choice(node):
        return node
    if isinstance(node, BlockSpec):
        return BlockSpec(
            node.block, [(name, resolve(value, decide, _join(path, name))) for name, value in node.arguments]
        )
    if isinstance(node, tuple):
        items: list[Any] = []
        for i, item in enumerate(node):
            resolved = resolve(item, decide, _join(path, i))
            if isinstance(item, Choice) and splices(item) and isinstance(resolved, tuple):
                items.extend(resolved)
            else:
                items.append(resolved)
        return tuple(items)
    fields = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    return dataclasses.replace(
        node, **{name: resolve(value, decide, _join(path, name)) for name, value in fields.items() if has_choice(value)}
    )


def has_choice(node: Any) -> bool:
    """Whether anything is left open in the tree."""
    if dataclasses.is_dataclass(node):
        return any(has_choice(getattr(node, field.name)) for field in dataclasses.fields(node))
    if isinstance(node, tuple):
        return any(map(has_choice, node))
    return is_open(node)


def splices(choice: Choice) -> bool:
    """Whether an option is a tuple of specs, to be spliced into the chain where the choice stands."""
    specs = (BlockSpec, Choice)
    return any(isinstance(o, tuple) and all(isinstance(item, specs) for item in o) for o in choice.options) and all(
        isinstance(o, BlockSpec) or (isinstance(o, tuple) and all(isinstance(item, specs) for item in o))
        for o in choice.options
    )


def all_choices(space: Any) -> dict[str, Choice]:
    """Every choice of a tree by its path or name, those inside of options included, in order of the tree."""
    found: dict[str, Choice] = {}

    def visit(node: Any, path: str) -> None:
        if isinstance(node, Choice):
            key = node.name or path
            known = found.setdefault(key, node)
            if known != node:
                raise ValueError(f"choices of one name must have the same options; {key!r} has {known!r} and {node!r}")
            for i, option in enumerate(node.options):
                visit(option, f"{key}:{i}")
        elif isinstance(node, BlockSpec):
            for name, value in node.arguments:
                visit(value, _join(path, name))
        elif isinstance(node, tuple):
            for i, item in enumerate(node):
                visit(item, _join(path, i))
        elif dataclasses.is_dataclass(node):
            for field in dataclasses.fields(node):
                visit(getattr(node, field.name), _join(path, field.name))

    visit(space, "")
    return found


def apply(space: Any, decisions: Mapping[str, int]) -> Any:
    """The tree with every open choice decided.

    Raises ValueError for a missing decision, one outside of its options, and one whose choice is closed or unknown.
    """
    used = set()

    def decide(key: str, choice: Choice) -> Any:
        if key not in decisions:
            raise ValueError(f"no decision for the choice {key!r}; give an index below {len(choice.options)}")
        index = decisions[key]
        if not 0 <= index < len(choice.options):
            raise ValueError(f"the decision for {key!r} must be an index below {len(choice.options)}, got {index}")
        used.add(key)
        return choice.options[index]

    tree = resolve(space, decide)
    closed = [key for key in decisions if key not in used]
    if closed:
        raise ValueError(f"the decision for {closed[0]!r} belongs to no open choice; leave it out")
    return tree


def complete(space: Any, decisions: Mapping[str, int], rng: Random) -> Decisions:
    """Decisions for every open choice: those given where they fit, the others drawn uniformly from the options."""
    completed: Decisions = {}

    def decide(key: str, choice: Choice) -> Any:
        if key not in completed:
            given = decisions.get(key, -1)
            completed[key] = given if 0 <= given < len(choice.options) else rng.randrange(len(choice.options))
        return choice.options[completed[key]]

    resolve(space, decide)
    return completed


def random_decisions(space: Any, rng: Random) -> Decisions:
    """Each open choice decided uniformly over its options."""
    return complete(space, {}, rng)


def open_choices(space: Any, decisions: Mapping[str, int]) -> dict[str, Choice]:
    """The choices that these decisions leave open to be decided, by path or name."""
    found: dict[str, Choice] = {}

    def decide(key: str, choice: Choice) -> Any:
        found[key] = choice
        return choice.options[decisions[key]]

    resolve(space, decide)
    return found


def mutate(space: Any, decisions: Mapping[str, int], rng: Random) -> Decisions:
    """Another option for one open choice, drawn uniformly; choices that this opens are drawn, closed ones dropped."""
    movable = {key: choice for key, choice in open_choices(space, decisions).items() if len(choice.options) > 1}
    if not movable:
        return dict(decisions)
    key = rng.choice(list(movable))
    other = rng.randrange(len(movable[key].options) - 1)
    return complete(space, {**decisions, key: other + (other >= decisions[key])}, rng)


def neighbours(space: Any, decisions: Mapping[str, int], rng: Random) -> list[Decisions]:
    """All decisions that differ in one open choice (and in what that opens, which is drawn), in order of the tree."""
    return [
        complete(space, {**decisions, key: index}, rng)
        for key, choice in open_choices(space, decisions).items()
        for index in range(len(choice.options))
        if index != decisions[key]
    ]


def size(space: Any) -> int:
    """The number of different decisions that a space admits; choices of one name count once, closed ones not at all."""
    named = {key: choice for key, choice in all_choices(space).items() if choice.name}

    # A polynomial: for each set of open names, the number of ways to decide the nameless choices.
    def ways(node: Any) -> dict[frozenset[str], int]:
        if isinstance(node, Choice):
            return {frozenset({node.name}): 1} if node.name else _sum(map(ways, node.options))
        if isinstance(node, BlockSpec):
            return _product(ways(value) for _, value in node.arguments) if is_open(node) else {frozenset(): 1}
        if isinstance(node, tuple):
            return _product(map(ways, node))
        if dataclasses.is_dataclass(node):
            return _product(ways(getattr(node, field.name)) for field in dataclasses.fields(node))
        return {frozenset(): 1}

    def total(terms: dict[frozenset[str], int], decided: frozenset[str]) -> int:
        result = 0
        for names, count in terms.items():
            undecided = sorted(names - decided)
            if undecided:
                inside = _sum(map(ways, named[undecided[0]].options))
                rest = _product([{frozenset(undecided[1:]): 1}, inside])
                count *= total(rest, decided | {undecided[0]})
            result += count
        return result

    return total(ways(space), frozenset())


def _sum(terms: Any) -> dict[frozenset[str], int]:
    result: dict[frozenset[str], int] = {}
    for term in terms:
        for names, count in term.items():
            result[names] = result.get(names, 0) + count
    return result


def _product(factors: Any) -> dict[frozenset[str], int]:
    result: dict[frozenset[str], int] = {frozenset(): 1}
    for factor in factors:
        result = _sum({a | b: m * n} for a, m in result.items() for b, n in factor.items())
    return result


def _join(path: str, part: object) -> str:
    return f"{path}.{part}" if path else str(part)
