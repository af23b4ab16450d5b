"""The table of measured times, and below it whatever makes them doubtful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convsmith.cli.output import print_table, say

ALIGNED_RIGHT = ("batch", "threads", "input_size")


def print_times(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> None:
    """One row per network: its time, interval and ratio, then the settings; warnings go to standard error.

    Args:
        rows: `name` and the fields of a `deploy.timed.Timed`, as plain data.
        settings: Further fields to show.
    """
    ratios = any(row["ratio"] for row in rows)
    columns = ["name", ">latency / ms", ">interval / ms", ">spread / ms", *([">ratio", ">its interval"] * ratios)]
    columns += [f"{'>' * (name in ALIGNED_RIGHT)}{name.removesuffix('_size')}" for name in settings]
    print_table(columns, ([*_figures(row, ratios), *(str(row[name]) for name in settings)] for row in rows))
    coverages = sorted({row["coverage"] for row in rows})
    firsts = sorted({row["ratio"]["to"] for row in rows if row["ratio"]})
    say(
        f"an interval holds the true median with {' or '.join(f'{coverage:.0%}' for coverage in coverages)} probability"
        + f"; ratios are to {' or '.join(firsts)}" * bool(firsts)
    )
    doubted: dict[str, list[str]] = {}
    for row in rows:
        for warning in row["warnings"]:
            doubted.setdefault(warning, []).append(row["name"])
    for warning, names in doubted.items():
        say(f"{'all' if len(names) == len(rows) > 1 else ', '.join(names)}: {warning}")


def tried(row: Mapping[str, Any]) -> str:
    """What `auto` chose from: the time of each back end when they took turns, and why others were left out."""
    times = ", ".join(f"{name} {ms:.3f} ms" for name, ms in sorted(row["tried_ms"].items(), key=lambda pair: pair[1]))
    left = "".join(f"; not {name}: {why}" for name, why in row["passed_over"].items())
    return f"{row['name']}: {row['backend']} of {times}{left}"


def _figures(row: Mapping[str, Any], ratios: bool) -> list[str]:
    own = [row["name"], f"{row['median_ms']:.3f}", f"{row['low_ms']:.3f} - {row['high_ms']:.3f}"]
    own.append(f"{row['spread_ms']:.3f}")
    if not ratios:
        return own
    ratio = row["ratio"]
    return [*own, *((f"{ratio['median']:.3f}", f"{ratio['low']:.3f} - {ratio['high']:.3f}") if ratio else ("1", ""))]
