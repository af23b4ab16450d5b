"""How names on the command line become networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convsmith.cli.foreign import foreign
from convsmith.cli.own_files import OF_FILE, from_file
from convsmith.cli.sizes import Size

if TYPE_CHECKING:
    from torch import nn

    from convsmith.arch import Architecture
    from convsmith.data import DataSet


@dataclass(frozen=True)
class Subject:
    """A network that a command line names: ours as an architecture, another library's or the user's own as a module."""

    name: str
    in_channels: int
    input_size: int
    architecture: Architecture | None
    build: Callable[[], nn.Module]

    def shape(self, batch: int = 1, input_size: Size | None = None) -> tuple[int, ...]:
        """The input's shape: its own size, or the one asked for; ValueError where an architecture gets no image."""
        found = (input_size or Size((self.input_size,))).shape(batch, self.in_channels)
        if self.architecture is not None and len(found) != 4:
            size = "x".join(map(str, found[1:]))
            raise ValueError(f"an architecture takes images, and --input-size is {size}; give SIDE, HxW or CxHxW")
        return found


def subjects(names: list[str]) -> list[Subject]:
    """The networks of zoo names, globs, files, other libraries' names and a user's own, in order, each once."""
    from convsmith import zoo

    found: dict[str, Subject] = {}
    for name in names:
        if OF_FILE in name:
            found[name] = Subject(name, *from_file(name))
        elif ":" in name:
            channels, size, build = foreign(name)
            found[name] = Subject(name, channels, size, None, build)
        elif name.endswith(".json"):
            found[name] = _own(name)
        elif any(character in name for character in "*?["):
            matching = zoo.names(name)
            if not matching:
                raise ValueError(f"no architecture matches {name!r}; `convsmith list` shows them all")
            found.update((match, _own(match)) for match in matching)
        else:
            found[name] = _own(name)
    return list(found.values())


def one_subject(name: str) -> Subject:
    """The network of a name that stands for one; a glob that matches several raises ValueError."""
    found = subjects([name])
    if len(found) != 1:
        names = ", ".join(subject.name for subject in found[:3])
        raise ValueError(f"this command takes one network, got {name!r}, which is {names}, ...; give one of them")
    return found[0]


def architecture_for(name: str, data: DataSet) -> Architecture:
    """A zoo name with the classes and channels of the data, at the size of its images; a file's as it is."""
    from convsmith import zoo

    if name.endswith(".json"):
        return zoo.find(name)
    own = from_file(name)[2] if OF_FILE in name else None
    if own is not None:
        return own
    if ":" in name:
        raise ValueError(
            f"a zoo name or a .json file is asked for, and {name} is a module; in Python "
            "cs.train.fit trains any module, and cs.deploy.quantize quantises it"
        )
    channels, side, _ = data.input_shape
    classic = zoo.get(name, num_classes=data.num_classes, in_channels=channels)
    return zoo.for_small_inputs(classic, side)


def _own(name: str) -> Subject:
    from convsmith import zoo

    architecture = zoo.find(name)
    size = architecture.reference.input_size if architecture.reference else 224
    return Subject(name, architecture.in_channels, size, architecture, lambda: zoo.create_model(architecture).eval())
