"""Networks of a user's own Python files, by `FILE.py:NAME`: for measuring and deploying."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from torch import nn

    from convsmith.arch import Architecture

OF_FILE = ".py:"  # stands between a file's stem and a name
SIDE = 224


def from_file(name: str) -> tuple[int, int, Architecture | None, Callable[[], nn.Module]]:
    """Channels and side of the input of a network named `FILE.py:NAME`, its architecture if it is one, and its builder.

    NAME stands for an architecture, a module, or what gives one when it is called without arguments. The channels of a
    module's input are those of its first convolution, or 3.

    Raises FileNotFoundError without the file, and ValueError for a name that is not in it or stands for something else.
    """
    from torch import nn

    from convsmith import zoo
    from convsmith.arch import Architecture

    file, _, attribute = name.rpartition(":")
    named = _run(Path(file))
    if attribute not in named:
        close = difflib.get_close_matches(attribute, named, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(_defined(named)) or 'none'}"
        raise ValueError(f"a name of {file} must stand behind the colon, and {attribute!r} is none; {remedy}")
    value = named[attribute]
    if not isinstance(value, nn.Module | Architecture):
        value = _called(name, value)
    if isinstance(value, Architecture):
        side = value.reference.input_size if value.reference else SIDE
        return value.in_channels, side, value, lambda: zoo.create_model(value).eval()
    if isinstance(value, nn.Module):
        return _in_channels(value), SIDE, None, value.eval
    raise ValueError(
        f"{name} must be an architecture, a module, or a function that makes one, got {type(value).__name__}; name one"
    )


def _run(file: Path) -> dict[str, Any]:
    """What a file defines; it may import its neighbours."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}; look at the path")
    module = f"{file.stem}_{crc32(str(file.resolve()).encode()):x}"  # no other file's, nor a package's
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(file.resolve().parent))
        sys.modules[module] = made  # dataclasses and pickles look themselves up
        try:
            spec.loader.exec_module(made)
        except BaseException:
            del sys.modules[module]
            raise
    return vars(sys.modules[module])


def _defined(named: dict[str, Any]) -> list[str]:
    """The functions and classes that a file defines itself."""
    return [name for name, value in named.items() if getattr(value, "__module__", None) == named["__name__"]]


def _called(name: str, value: Any) -> Any:
    """What a function or class gives that is called without arguments."""
    from inspect import signature

    if not callable(value):
        return value
    try:
        signature(value).bind()
    except TypeError as error:
        raise ValueError(
            f"{name} is called without arguments, and it needs some ({error}); name a function that gives them"
        ) from None
    return value()


def _in_channels(module: nn.Module) -> int:
    known = (getattr(own, "in_channels", None) for own in module.modules())
    return next((channels for channels in known if isinstance(channels, int)), 3)
