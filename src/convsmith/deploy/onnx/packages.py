"""What both ways to a model share: names of input and output, packages imported where used, errors in one line."""

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


def reason(error: Exception) -> str:
    """The first line of the error that an error was raised from."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return (str(cause).strip() or type(cause).__name__).partition("\n")[0]
