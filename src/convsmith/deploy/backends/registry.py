"""The registry of back ends: what each needs, how it makes a network run, and which files it ships."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from torch import Tensor, nn

from convsmith.deploy.agreement import Run


@dataclass(frozen=True)
class Artefact:
    """The files of a network that a user ships.

    `files` are their names in the folder. `loader` is the text of a Python module of about ten lines that is written
    beside them: its `load(threads=1)` gives a function from a NumPy array, of the example's type and shape but for the
    batch size, to one. It imports neither convsmith nor, where the runtime allows, torch, and finds the files beside
    itself. `packages` are what it needs installed, as pip names it.
    """

    files: tuple[str, ...]
    loader: str
    packages: tuple[str, ...]


Prepare: TypeAlias = Callable[..., Run]
Write: TypeAlias = Callable[[nn.Module, Tensor, Path, str], Artefact]

_BACKENDS: dict[str, Backend] = {}


@dataclass(frozen=True)
class Backend:
    """A way to run a network.

    `prepare(network, example, threads, precision)` gets a network of its own, in eval mode, on the example's device
    and of its type, and one of the `precisions`. It returns a function from tensor to tensor, both of the example's
    type, that computes in that precision with that many threads, at any batch size; several threads may call it at a
    time, and the outputs are theirs to change. It raises ValueError for a network that it cannot run, and need not
    check what it computes: who calls it compares with eager.
    `requires` are the modules that it imports; `extra` is the extra of convsmith that installs them.
    `devices` are the types of the devices that it computes on.
    `thorough` says that it takes many seconds to prepare: `auto` tries it only where asked to be thorough.
    `rewrites` says that `prepare` makes the network leaner first and takes as `rewrite` what does so: `lean` with
    eager's output for the example, which spares a pass, or without a comparison with eager of its own: more passes.
    `write(network, example, folder, precision)` gets the like, and writes into an empty folder what a user ships; None:
    there is nothing to ship.
    """

    name: str
    prepare: Prepare
    requires: tuple[str, ...] = ()
    extra: str = ""
    precisions: tuple[str, ...] = ("float32",)
    devices: tuple[str, ...] = ("cpu",)
    thorough: bool = False
    write: Write | None = None
    rewrites: bool = False

    @property
    def installed(self) -> bool:
        """Whether everything that it imports is there."""
        return all(find_spec(name) is not None for name in self.requires)

    def check(self, example: Tensor, precision: str) -> None:
        """Raise ValueError when it computes neither in that precision nor where the example is."""
        if precision not in self.precisions:
            raise ValueError(
                f"the back end {self.name} computes in {' or '.join(self.precisions)}, and {precision} is asked for; "
                "choose another back end or precision"
            )
        if example.device.type not in self.devices:
            raise ValueError(
                f"the back end {self.name} computes on {' or '.join(self.devices)}, and the example is on "
                f"{example.device}; move it, or choose another back end"
            )


def register(entry: Backend) -> Backend:
    """Make a back end known under its name."""
    known = _BACKENDS.setdefault(entry.name, entry)
    if known is not entry:
        raise ValueError(f"the back end's name {entry.name!r} is taken; choose another name")
    return entry


def names() -> list[str]:
    """All known back ends, installed or not, by the alphabet."""
    return sorted(_BACKENDS)


def installed(*, thorough: bool = True) -> list[str]:
    """The back ends whose packages are installed; without `thorough`, only those that prepare in a few seconds."""
    return [name for name in names() if _BACKENDS[name].installed and (thorough or not _BACKENDS[name].thorough)]


def get(name: str) -> Backend:
    """The back end of that name.

    Raises ValueError with close matches for an unknown name, and ImportError naming the extra for one whose packages
    are missing.
    """
    if name not in _BACKENDS:
        close = difflib.get_close_matches(str(name), _BACKENDS, n=3)
        remedy = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {', '.join(names())}"
        raise ValueError(f"unknown back end {name!r}; {remedy}")
    entry = _BACKENDS[name]
    if not entry.installed:
        raise ImportError(f"the back end {name!r} is not installed; pip install 'convsmith[{entry.extra}]'")
    return entry
