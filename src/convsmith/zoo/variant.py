"""What a zoo file ends with: its variants, each with the figures that a test recounts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from convsmith.arch import Architecture, Reference

TORCHVISION, TIMM, PYTORCHCV = "torchvision", "timm", "pytorchcv"
PAPER, REBUILT, INTERPRETATION = "paper", "rebuilt", "interpretation"


@dataclass(frozen=True)
class About:
    """What the lecture on CNN model design says of a family: each file of the zoo has one, named ABOUT.

    `row` is the family's row in docs/lecture.md, `topic` the idea that the lecture files it under, `use` when the
    lecture takes it (and what it warns of); empty where it says nothing.
    """

    row: int
    year: int
    topic: str
    use: str = ""


@dataclass(frozen=True)
class Variant:
    """One network of a family: its name, how to build it, and its reference figures.

    `params` and `macs` (of one image of side `input_size`) are exact. `source` says whose figures they are, or whose
    convention was used to count them where the source gives rounded ones; `peer` is that library's name for the
    network, None for the same name.
    """

    name: str
    build: Callable[..., Architecture]
    params: int
    macs: int
    input_size: int
    source: str
    peer: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    def architecture(
        self, *, num_classes: int | None = None, in_channels: int = 3, aux_heads: bool = False
    ) -> Architecture:
        """The architecture; `reference` is attached where it is the network of the reference figures."""
        accepted = inspect.signature(self.build).parameters
        options: dict[str, Any] = dict(self.arguments)
        if num_classes is not None:
            options["num_classes"] = num_classes
        if aux_heads:
            if "aux_heads" not in accepted:
                raise ValueError(f"{self.name} has no auxiliary heads; leave aux_heads out")
            options["aux_heads"] = True
        architecture = self.build(**options).replace(name=self.name, in_channels=in_channels)
        default = options.get("num_classes", accepted["num_classes"].default) == accepted["num_classes"].default
        if default and in_channels == 3 and not aux_heads:
            return architecture.replace(reference=Reference(self.params, self.macs, self.input_size))
        return architecture
