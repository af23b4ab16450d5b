"""Spaces by name, as commands and run files have them."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from convsmith.arch import Architecture
from convsmith.search.spaces.mobile import mobile
from convsmith.search.spaces.stages import stages

SPACES: dict[str, Callable[..., Architecture]] = {"stages": stages, "mobile": mobile}


def names() -> list[str]:
    """The names that `get` takes."""
    return list(SPACES)


def get(name: str, *, num_classes: int, in_channels: int, input_size: int) -> Architecture:
    """The space of a name for images of a data set; an unknown name raises ValueError with those there are."""
    if name not in SPACES:
        close = difflib.get_close_matches(name, SPACES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown space {name!r}; {hint}there are {', '.join(SPACES)}")
    return SPACES[name](num_classes=num_classes, in_channels=in_channels, input_size=input_size)
