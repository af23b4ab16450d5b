"""Operators of `convsmith.nn.native`: with and without them, and who is called."""

import os
import shutil

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from convsmith.nn import native

needs_a_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")


def without_operators(monkeypatch):
    """As on a machine without a compiler."""
    for name in ("_load", "_build"):
        monkeypatch.setattr(native, name, lambda: False)


def called(module, x, *, follows_values=False):
    """The names of the operators that one pass calls, under a mode that follows values or not."""

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(func._schema.name)
            return func(*args, **(kwargs or {}))

    names = []
    Mode.follows_values = follows_values
    with Mode():
        module(x)
    return names
