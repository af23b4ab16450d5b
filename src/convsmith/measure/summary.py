"""A network as a table, module by module: what each returns and what happens inside it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from convsmith.arch import Architecture
from convsmith.deploy.snapshot import module_of
from convsmith.measure.cost import cost
from convsmith.network import Network
from convsmith.network.shapes import Shape

COLUMNS = ("layer", "output", "params", "MACs", "memory / kB", "MACs / byte", "note")


@dataclass(frozen=True)
class Layer:
    """One module: its path, the name of its class, what its last call returned, and what is inside it.

    Figures include the modules inside it. Where a module stands under a second path, the row of that path names the
    first one in `note` and holds no figures, as they are counted there; so is a parameter that an earlier row holds.
    """

    path: str
    kind: str
    output: Any
    params: int
    macs: int
    memory_bytes: int
    macs_per_byte: float
    calls: int
    note: str


@dataclass(frozen=True)
class Summary:
    """The rows of a table, in the order of `named_modules`, and the whole; `str` of it is the table as text."""

    layers: tuple[Layer, ...]
    total: Layer
    uncounted: Mapping[str, int]

    def __str__(self) -> str:
        rows = [COLUMNS, *map(cells, self.layers), cells(self.total)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if 2 <= i <= 5 else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        rule = "-" * max(map(len, lines))
        told = [f"no formula for {dict(self.uncounted)}; its MACs are a lower bound"] if self.uncounted else []
        return "\n".join((lines[0], rule, *lines[1:-1], rule, lines[-1], *told))


def summary(
    network: nn.Module | Architecture, input_shape: Shape = (1, 3, 224, 224), *, depth: int | None = None
) -> Summary:
    """The table of a network for a batch of `input_shape` (N, C, H, W), in eval mode; the network stays untouched.

    `depth` is how many levels of modules have rows, None all: what is deeper is counted in the row that it is part of.
    Figures are those of `cost`. ValueError for a depth below 1, and where the input does not fit.
    """
    if depth is not None and depth < 1:
        raise ValueError(f"depth counts levels of modules from 1, got {depth}; None shows them all")
    if isinstance(network, Architecture):
        cost(network, input_shape)  # tells an input that does not fit
        with torch.device("meta"):
            network = Network(network)
    network = module_of(network)
    counted = cost(network, input_shape)
    layers: list[Layer] = []
    seen: dict[int, str] = {}
    owners: dict[int, str] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        if id(module) in seen:
            if _shown(path, depth):
                layers.append(Layer(path, type(module).__name__, None, 0, 0, 0, 0.0, 0, f"is {seen[id(module)]}"))
            continue
        seen[id(module)] = path
        note = _note(module, path, counted.by_module[path].calls, owners)
        if path and not counted.by_module[path].memory_bytes and not counted.by_module[path].calls:
            note = "not called"
        empty = isinstance(module, nn.ModuleList) and not len(module)
        if _shown(path, depth) and not empty:
            layers.append(_layer(counted.by_module[path], path, type(module).__name__, note))
    total = _layer(counted.by_module[""], "", type(network).__name__, "")
    return Summary(tuple(layers), total, counted.uncounted)


def cells(layer: Layer) -> tuple[str, ...]:
    """A row as it is printed: the path, or `total`, with the class; what is inside a module stands further right."""
    name = f"{'  ' * layer.path.count('.')}{layer.path.rpartition('.')[2]}" if layer.path else "total"
    figures = (
        f"{layer.params:,}",
        f"{layer.macs:,}",
        f"{layer.memory_bytes / 1e3:,.1f}",
        f"{layer.macs_per_byte:.2f}",
    )
    empty = layer.note.startswith("is ")
    return f"{name} ({layer.kind})", _text(layer.output), *(("",) * 4 if empty else figures), layer.note


def _layer(counts: Any, path: str, kind: str, note: str) -> Layer:
    return Layer(
        path,
        kind,
        counts.output,
        counts.params,
        counts.macs,
        counts.memory_bytes,
        counts.macs_per_byte,
        counts.calls,
        note,
    )


def _shown(path: str, depth: int | None) -> bool:
    return bool(path) and (depth is None or path.count(".") < depth)


def _note(module: nn.Module, path: str, calls: int, owners: dict[int, str]) -> str:
    """What the figures of a row do not say: several calls, and parameters that an earlier row holds too."""
    notes = [f"called {calls} times"] if calls > 1 else []
    for name, parameter in module._parameters.items():
        if parameter is not None:
            own = f"{path}.{name}" if path else name
            first = owners.setdefault(id(parameter), own)
            notes += [f"{name} is {first}"] if first != own else []
    return ", ".join(notes)


def _text(output: Any) -> str:
    """Shapes as people write them: 1 × 64 × 56 × 56."""
    if isinstance(output, tuple) and output and all(isinstance(size, int) for size in output):
        return " × ".join(map(str, output))
    if isinstance(output, Mapping):
        return ", ".join(f"{key}: {_text(value)}" for key, value in output.items())
    if isinstance(output, (list, tuple)):
        return ", ".join(map(_text, output))
    return "" if output is None else str(output)
