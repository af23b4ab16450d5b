"""The registry of back ends: what each needs, and how it makes a network run."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeAlias

from torch import Tensor, nn

from convsmith.deploy.agreement import Run

Prepare: TypeAlias = Callable[[nn.Module, Tensor, int], Run]

_BACKENDS: dict[str, Backend] = {}


@dataclass(frozen=True)
class Backend:
    """A way to run a network.

    `prepare(network, example, threads)` gets a network of its own, in eval mode, on the example's device and of its
    type, and returns a function from tensor to tensor that computes with that many threads, at any batch size.
    `requires` are the modules that it imports; `extra` is the extra of convsmith that installs them.
    """

    name: str
    prepare: Prepare
    requires: tuple[str, ...] = ()
    extra: str = ""

    @property
    def installed(self) -> bool:
        """Whether everything that it imports is there."""
        return all(find_spec(name) is not None for name in self.requires)


def register(entry: Backend) -> Backend:
    """Make a back end known under its name."""
    known = _BACKENDS.setdefault(entry.name, entry)
    if known is not entry:
        raise ValueError(f"the back end's name {entry.name!r} is taken; choose another name")
    return entry


def names() -> list[str]:
    """All known back ends, installed or not."""
    return list(_BACKENDS)


def installed() -> list[str]:
    """The back ends whose packages are installed."""
    return [name for name, entry in _BACKENDS.items() if entry.installed]


def get(name: str) -> Backend:
    """The back end of that name.

    Raises ValueError with close matches for an unknown name, and ImportError naming the extra for one whose packages
    are missing.
    """
    if name not in _BACKENDS:
        close = difflib.get_close_matches(str(name), _BACKENDS, n=3)
        remedy = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {', '.join(_BACKENDS)}"
        raise ValueError(f"unknown back end {name!r}; {remedy}")
    entry = _BACKENDS[name]
    if not entry.installed:
        raise ImportError(f"the back end {name!r} is not installed; pip install 'convsmith[{entry.extra}]'")
    return entry
