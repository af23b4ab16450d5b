"""What both ways to a model share: names of input and output, and packages imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

INPUT, OUTPUT = "input", "output"


def imported(name: str) -> Any:
    """The package; ImportError naming the extra where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is needed and not installed; pip install 'convsmith[onnx]'") from error
