"""Decisions of a search in words: where each is taken, and its options by value or block instead of by index."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from convsmith.arch import Architecture, BlockSpec, Choice, changed_arguments

NAME = re.compile(r"(stem|neck|head|stage\d+)(?:_(\w+))?")
PATH = re.compile(r"(stem|neck|head|stages\.\d+)((?:[.:].*)?)")


@dataclass(frozen=True)
class ChoiceWords:
    """A choice in words: the part of the network it stands in ("" for none), what is decided there, and its options."""

    key: str
    place: str
    what: str
    options: tuple[str, ...]

    def option(self, index: int) -> str:
        """The option in words."""
        return self.options[index] if 0 <= index < len(self.options) else f"option {index}"


def choices_in_words(space: Architecture) -> list[ChoiceWords]:
    """Every choice of a space, in order of the tree."""
    return [ChoiceWords(key, *_place(key), options=option_words(options)) for key, options in space.choices()]


def keys_in_words(keys: list[str]) -> list[ChoiceWords]:
    """The same for a space that cannot be read, as it has blocks that are not registered here: options by number."""
    return [ChoiceWords(key, *_place(key), options=()) for key in keys]


def decided(choices: list[ChoiceWords], decisions: Mapping[str, int]) -> list[tuple[str, str]]:
    """The decisions of one trial, a line for each part of the network: `("stage 1", "width 16, depth 2 blocks")`."""
    taken = [(c.place, f"{c.what} {c.option(decisions[c.key])}".strip()) for c in choices if c.key in decisions]
    return [(place, ", ".join(text for _, text in group)) for place, group in groupby(taken, key=lambda item: item[0])]


def option_words(options: tuple[Any, ...]) -> tuple[str, ...]:
    """Each option of a choice, as short as tells them apart."""
    described = (tuple(map(_short, options)), tuple(map(_names, options)), _differences(options))
    texts = next((texts for texts in described if len(set(texts)) == len(options)), tuple(map(_calls, options)))
    numbered = tuple(f"{text} (option {i})" for i, text in enumerate(texts))
    return texts if len(set(texts)) == len(options) else numbered


def _short(option: Any) -> str:
    if isinstance(option, BlockSpec):
        return option.block
    if _is_chain(option):
        return f"{len(option)} block{'' if len(option) == 1 else 's'}"
    return _value(option)


def _names(option: Any) -> str:
    return _chain(option, lambda item: item.block if isinstance(item, BlockSpec) else "block")


def _calls(option: Any) -> str:
    return _chain(option, _call)


def _differences(options: tuple[Any, ...]) -> tuple[str, ...]:
    """Of chains of the same blocks, the arguments that differ: `stride 2`; () for other options."""
    chains = [option if _is_chain(option) else (option,) for option in options]
    blocks = {tuple(item.block if isinstance(item, BlockSpec) else None for item in chain) for chain in chains}
    if len(blocks) > 1 or None in next(iter(blocks)):
        return ()
    texts: list[list[str]] = [[] for _ in chains]
    for items in zip(*chains, strict=True):
        for name, value in items[0].arguments:
            values = [item.get(name) for item in items]
            if not any(map(_is_open, values)) and any(other != value for other in values):
                for text, own in zip(texts, values, strict=True):
                    text.append(f"{name.replace('_', ' ')} {_value(own)}")
    return tuple(map(", ".join, texts))


def _chain(option: Any, describe: Callable[[Any], str]) -> str:
    if not _is_chain(option):
        return describe(option) if isinstance(option, BlockSpec) else _value(option)
    runs = ((name, len(list(run))) for name, run in groupby(map(describe, option)))
    return " + ".join(name if count == 1 else f"{count} × {name}" for name, count in runs) or "no block"


def _call(item: Any) -> str:
    if not isinstance(item, BlockSpec):
        return "block"
    # What is open in there is a decision of its own.
    arguments = [f"{name}={_value(value)}" for name, value in changed_arguments(item) if not _is_open(value)]
    return f"{item.block}({', '.join(arguments)})"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, BlockSpec):
        return _call(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_chain(option: Any) -> bool:
    return isinstance(option, tuple) and all(isinstance(item, BlockSpec | Choice) for item in option)


def _is_open(value: Any) -> bool:
    return isinstance(value, Choice) or (isinstance(value, tuple) and any(map(_is_open, value)))


def _place(key: str) -> tuple[str, str]:
    """Where a choice stands and what it decides; stages and blocks are counted from 1."""
    if named := NAME.fullmatch(key):
        return re.sub(r"(\d+)", r" \1", named[1]), (named[2] or "").replace("_", " ")
    path = PATH.fullmatch(key)
    if path is None:
        return "", re.sub(r"[._]", " ", key)
    part, _, stage = path[1].partition(".")
    counted = {".": "block", ":": "option"}
    words = []
    for separator, word in re.findall(r"([.:])([^.:]+)", path[2]):
        words.append(f"{counted[separator]} {int(word) + 1}" if word.isdecimal() else word.replace("_", " "))
    return f"stage {int(stage) + 1}" if stage else part, " ".join(words)
