"""The final figures that a demonstration leaves beside its search: winner and baselines, all trained in full."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from convsmith.report.units import shortened, unit_of

FIGURES = ("test_accuracy", "latency_ms", "params", "macs")

Results = Mapping[str, Any]


def networks(results: Results) -> list[tuple[Mapping[str, Any], bool]]:
    """Baselines and then the winner, each with whether it is the winner."""
    winner = results.get("winner")
    return [*((entry, False) for entry in results.get("baselines", [])), *([(winner, True)] if winner else [])]


def comparison(results: Results) -> dict[str, Any] | None:
    """Winner and baselines as a table, the winner first; None where there are no results."""
    entries = sorted(networks(results), key=lambda entry: not entry[1])
    if not entries:
        return None
    units = {name: unit_of(name, [number(entry, name) for entry, _ in entries]) for name in FIGURES}
    rows = []
    for entry, is_winner in entries:
        error = number(entry, "test_accuracy_error")
        shown = {name: units[name].text(number(entry, name)) for name in FIGURES}
        if error is not None:
            shown["test_accuracy"] += f" ± {units['test_accuracy'].text(error)}"
        rows.append((str(entry.get("name", "")), is_winner, list(shown.values())))
    images = number(results, "test_images")
    return {"columns": [units[name].label for name in FIGURES], "rows": rows, "images": f"{images:,}" if images else ""}


def winner_tiles(winner: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """`(label, figure, note)` of the winner for the headline."""
    figures = {name: number(winner, name) for name in (*FIGURES, "budget_ms", "test_accuracy_error")}
    accuracy, latency = (unit_of(name, [figures[name]]) for name in ("test_accuracy", "latency_ms"))
    error, budget = figures["test_accuracy_error"], figures["budget_ms"]
    shown = {
        "test_accuracy": (accuracy.phrase, f"± {accuracy.text(error)}" if error is not None else ""),
        "latency_ms": (latency.phrase, f"budget {latency.phrase(budget)}" if budget is not None else ""),
        "params": (shortened, ""),
        "macs": (shortened, ""),
    }
    known = [(name, value) for name in FIGURES if (value := figures[name]) is not None]
    return [(unit_of(name, []).name, shown[name][0](value), shown[name][1]) for name, value in known]


def number(entry: Mapping[str, Any], name: str) -> float | None:
    """A finite number of an entry; None for anything else."""
    value = entry.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None
