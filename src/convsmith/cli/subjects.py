"""How names on the command line become networks."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from convsmith.arch import Architecture
    from convsmith.data import DataSet


@dataclass(frozen=True)
class Subject:
    """A network that a command line names: ours as an architecture, another library's as a module."""

    name: str
    in_channels: int
    input_size: int
    architecture: Architecture | None
    build: Callable[[], nn.Module]

    def shape(self, batch: int = 1, input_size: int | None = None) -> tuple[int, int, int, int]:
        """The input's shape: its own size, or the one asked for."""
        side = input_size or self.input_size
        return batch, self.in_channels, side, side


def subjects(names: list[str]) -> list[Subject]:
    """The networks of zoo names, globs, files and other libraries' names, in order, each once."""
    from convsmith import zoo

    found: dict[str, Subject] = {}
    for name in names:
        if ":" in name:
            found[name] = _foreign(name)
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
    """A zoo name with the classes and channels of the data, at the size of its images; a file as it is."""
    from convsmith import zoo

    if name.endswith(".json"):
        return zoo.find(name)
    channels, side, _ = data.input_shape
    classic = zoo.get(name, num_classes=data.num_classes, in_channels=channels)
    return zoo.for_small_inputs(classic, side)


def _own(name: str) -> Subject:
    from convsmith import zoo

    architecture = zoo.find(name)
    size = architecture.reference.input_size if architecture.reference else 224
    return Subject(name, architecture.in_channels, size, architecture, lambda: zoo.create_model(architecture).eval())


def _foreign(name: str) -> Subject:
    library, _, model = name.partition(":")
    if library == "torchvision":
        import torchvision

        known = torchvision.models.list_models()
        return Subject(name, 3, 224, None, _checked(name, model, known, lambda: _of_torchvision(model)))
    if library == "timm":
        try:
            import timm
        except ImportError:
            raise ImportError(f"{name} needs timm; pip install timm") from None
        build = _checked(name, model, timm.list_models(), lambda: timm.create_model(model).eval())
        config = timm.get_pretrained_cfg(model)
        channels, size, _ = config.input_size if config else (3, 224, 224)
        return Subject(name, channels, size, None, build)
    raise ValueError(f"unknown library {library!r} in {name!r}; other libraries are timm:NAME and torchvision:NAME")


def _of_torchvision(model: str) -> nn.Module:
    """A network of torchvision, without its warnings that a default will change, which is its own affair.

    Those of detection and segmentation would fetch weights of their backbone.
    """
    import torchvision

    builder = torchvision.models.get_model_builder(model)
    options = {"weights_backbone": None} if "weights_backbone" in signature(builder).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        network: nn.Module = builder(**options).eval()
    return network


def _checked(name: str, model: str, known: list[str], build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    if model not in known:
        close = difflib.get_close_matches(model, known, n=3)
        library = name.partition(":")[0]
        lists = "timm.list_models()" if library == "timm" else "torchvision.models.list_models()"
        remedy = f"; did you mean {' or '.join(close)}?" if close else f"; {lists} names them all"
        raise ValueError(f"unknown network {name!r}{remedy}")
    return build
