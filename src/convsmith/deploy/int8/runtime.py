"""What a runtime must be able to do to quantise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from convsmith.deploy.agreement import Run
from convsmith.deploy.backends import Artefact


@dataclass(frozen=True)
class Int8Model:
    """A quantised model: how it runs, how many of its convolutions and matrix products do so in int8, how it ships."""

    run: Run
    int8_layers: int
    layers: int
    write: Callable[[Path], Artefact]


@dataclass(frozen=True)
class Runtime:
    """Runs an ONNX model in float32, and makes an int8 one of it from batches of inputs; both with given threads."""

    requires: tuple[str, ...]
    extra: str
    load: Callable[[bytes, int], Run]
    quantize: Callable[[bytes, Sequence[Tensor], int], Int8Model]

    @property
    def installed(self) -> bool:
        """Whether everything that it imports is there."""
        return all(find_spec(name) is not None for name in self.requires)
