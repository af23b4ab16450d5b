"""What the folder of a run holds at this moment; another process may be writing it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convsmith.arch import Architecture
from convsmith.train.run_folder import FORMAT

Shape = tuple[int, int, int]

FILES = {  # what a run may leave to be used, in the order in which the page lists it
    "best.json": "best architecture of the search",
    "winner.json": "architecture of the winner",
    "weights.safetensors": "weights",
    "model.onnx": "ONNX",
    "history.sqlite": "history",
    "metrics.csv": "metrics of each epoch",
}


@dataclass(frozen=True)
class RunFolder:
    """A run's folder and its `run.json`."""

    path: Path
    document: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was started with."""
        settings: dict[str, Any] = self.document.get("settings", {})
        return settings

    def read(self, name: str) -> dict[str, Any] | None:
        """An optional JSON object in the folder; None where it is not there. ValueError for anything else in it."""
        path = self.path / name
        return _read_object(path) if path.is_file() else None

    def architecture(self, name: str) -> Architecture | None:
        """The architecture in a file of the folder; None where it is not there, ValueError where it is unreadable."""
        path = self.path / name
        return Architecture.load(path) if path.is_file() else None

    def files(self) -> list[tuple[str, str, int]]:
        """`(name, what it is, bytes)` of what the run has left so far."""
        found = ((name, what, self.path / name) for name, what in FILES.items())
        return [(name, what, path.stat().st_size) for name, what, path in found if path.is_file()]

    def input_shape(self, architecture: Architecture) -> Shape | None:
        """The shape (C, H, W) of one image of the run's data; None where run.json does not say it."""
        data = self.settings.get("data")
        places = [self.settings, data if isinstance(data, dict) else {}]
        for place in places:
            shape = place.get("input_shape")
            if isinstance(shape, list) and len(shape) == 3:
                return shape[0], shape[1], shape[2]
        reference = architecture.reference.input_size if architecture.reference else None
        side = next((place["input_size"] for place in places if place.get("input_size")), reference)
        return None if side is None else (architecture.in_channels, side, side)


def open_run(path: str | Path) -> RunFolder:
    """The run in a folder.

    Raises FileNotFoundError where there is none, ValueError where run.json is not what a run writes.
    """
    path = Path(path)
    file = path / "run.json"
    if not path.is_dir():
        raise FileNotFoundError(f"a run is a folder, and {path} is none; name the folder of a search or a training")
    if not file.is_file():
        raise FileNotFoundError(
            f"the folder of a run has a run.json, and {path} has none; name the folder of a search or a training"
        )
    document = _read_object(file)
    if document.get("format") != FORMAT:
        raise ValueError(
            f"{file} must have the format {FORMAT!r}, got {document.get('format')!r}; name the folder of a run"
        )
    for key in ("settings", "device", "versions"):
        if not isinstance(document.get(key, {}), dict):
            raise ValueError(f"{key} in {file} must be an object, got {document[key]!r}; start the run again")
    return RunFolder(path, document)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} must be JSON, and is not ({error}); start the run again, or remove the file"
        ) from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} must hold a JSON object, got a {type(document).__name__}; remove the file")
    return document
