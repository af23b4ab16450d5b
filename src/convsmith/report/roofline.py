"""The plots of a profile: layers under the device's roofs, and what the time goes to.

The roofline (Williams et al. 2009, doi:10.1145/1498765.1498785) holds the layers that multiply: how much arithmetic
each byte brings, and how fast it is done. A layer that only moves values has no arithmetic to place; it stands in a
plot of its own, by what it moves and how fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from convsmith.measure import Profile
from convsmith.measure.profile import CATEGORIES, UNATTRIBUTED
from convsmith.measure.roofs import Roofs
from convsmith.report.figure import Axis, Figure, figure, plain, trace
from convsmith.report.units import Unit

Row = dict[str, Any]

COLOURS = {
    "convolution": "var(--trial)",
    "elementwise": "var(--front)",
    "data": "var(--failed)",
    "shuffle": "var(--moved)",
    "other": "var(--rest)",
    UNATTRIBUTED: "var(--infeasible)",
}
SYMBOLS = dict(zip(COLOURS, ("circle", "square", "diamond", "triangle-up", "pentagon"), strict=False))
LOGARITHMIC: Figure = {"type": "log", "tickformat": "~g"}
SMALLEST, LARGEST = 6.0, 34.0  # diameters in pixels of a point without time, and of one that is the whole pass
MOST_BARS = 16
MARGIN = 1.5  # the lines of the roofs go beyond the outermost points by this factor


def multiplying(profile: Profile) -> list[Row]:
    """The layers that stand in the roofline."""
    return [row for row in _placed(profile) if row["macs"]]


def moving(profile: Profile) -> list[Row]:
    """The layers that stand in the plot of traffic."""
    return [row for row in _placed(profile) if not row["macs"]]


def roofline(profile: Profile) -> Figure:
    """GMAC/s over MAC per byte: a point for each layer that multiplies, the peak and the bandwidths as lines."""
    rows = multiplying(profile)
    data = [*_roofs(profile.roofs, [row["intensity"] for row in rows]), *_points(rows, "intensity", "gmacs_per_s")]
    return _logarithmic(data, ("arithmetic intensity", "MAC/byte"), ("rate", "GMAC/s"))


def traffic(profile: Profile) -> Figure:
    """GB/s over the bytes that are read and written: layers that only move values, and the device's best as a line."""
    rows = moving(profile)
    sizes = [size for size, _ in profile.roofs.copies]
    best = [profile.roofs.gbytes_per_s(size) for size in sizes]
    roof = _line(f"best on this device, up to {max(best):.3g} GB/s", sizes, best)
    drawn = _logarithmic([roof, *_points(rows, "memory_bytes", "gbytes_per_s")], ("traffic", "bytes"), ("rate", "GB/s"))
    drawn["layout"]["xaxis"] |= {"tickformat": "~s", "dtick": 1}
    return drawn


def pie(profile: Profile) -> Figure:
    """The lecture's pie: the share of the pass in each category, and in none."""
    shares = {name: share for name, share in profile.by_category.items() if share.ms > 0}
    slices: Figure = {
        "type": "pie",
        "labels": list(shares),
        "values": [share.ms for share in shares.values()],
        "marker": {"colors": [COLOURS[name] for name in shares], "line": {"color": "var(--page)", "width": 1.5}},
        "sort": False,
        "direction": "clockwise",
        "hole": 0.4,
        "textinfo": "label+percent",
        "texttemplate": "%{label} %{percent:.1%}",
        "hovertemplate": "%{label}: %{value:.3~g} ms, %{percent:.1%}<extra></extra>",
    }
    return {"data": [slices], "layout": {"showlegend": False}}


def bars(profile: Profile) -> Figure:
    """The operators that take the most time, the longest on top, and all others in one bar."""
    rows = [(name, share.ms, share.share, share.calls) for name, share in profile.by_operator.items()]
    shown, rest = rows[:MOST_BARS], rows[MOST_BARS:]
    if rest:
        shown.append((f"{len(rest)} others", sum(r[1] for r in rest), sum(r[2] for r in rest), sum(r[3] for r in rest)))
    shown.reverse()  # plotly draws from the bottom
    bar: Figure = {
        "type": "bar",
        "orientation": "h",
        "x": [ms for _, ms, _, _ in shown],
        "y": [plain(name) for name, _, _, _ in shown],
        "marker": {"color": "var(--trial)"},
        "hovertext": [
            f"<b>{plain(name)}</b><br>{ms:.3g} ms, {share:.1%} of the pass, {calls} calls"
            for name, ms, share, calls in shown
        ],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    line = {"gridcolor": "var(--line)", "linecolor": "var(--line)", "zeroline": False, "automargin": True}
    across = {**line, "title": {"text": "time (ms)"}, "rangemode": "tozero"}
    return {"data": [bar], "layout": {"xaxis": across, "yaxis": {**line, "type": "category"}, "showlegend": False}}


def hover(row: Row) -> str:
    """What a layer's point says: where it is, its time, and how near it is to the roofs."""
    lines = [
        f"<b>{plain(row['module'] or '(no module)')}</b>",
        plain(f"{row['operator']} {row['kernel']}".strip()),
        f"{' × '.join(map(str, row['shape']))}, {row['category']}",
        f"{row['ms']:.3g} ms, {row['share']:.1%} of the pass",
    ]
    if row["macs"]:
        lines.append(f"{row['gmacs_per_s']:.3g} GMAC/s, {row['of_peak']:.0%} of the peak")
    lines.append(f"{row['gbytes_per_s']:.3g} GB/s, {row['of_roof']:.0%} of its roof ({row['roof']})")
    return "<br>".join(lines)


def _placed(profile: Profile) -> list[Row]:
    """The layers with a place in a plot: of some, back ends tell no bytes, or no time."""
    return [row for row in profile.rows("layer") if row["memory_bytes"] and row["ms"]]


def _roofs(roofs: Roofs, intensities: Sequence[float]) -> list[Figure]:
    """Of each working set a line that rises with its bandwidth up to the peak; one for sets that are equally fast."""
    rates = {roofs.gbytes_per_s(size): size for size, _ in roofs.copies[::2]}
    ridges = [roofs.gmacs_per_s / rate for rate in rates]
    left = min([*intensities, *ridges]) / MARGIN
    right = max([*intensities, *ridges]) * MARGIN
    lines = []
    for (rate, size), ridge in zip(rates.items(), ridges, strict=True):
        name = f"{rate:.3g} GB/s in {size / 2**20:g} MiB"
        lines.append(_line(name, [left, ridge], [left * rate, roofs.gmacs_per_s], dash="dot"))
    peak = [roofs.gmacs_per_s] * 2
    return [*lines, _line(f"peak {roofs.gmacs_per_s:.3g} GMAC/s", [min(ridges), right], peak)]


def _line(name: str, x: Sequence[float], y: Sequence[float], *, dash: str = "solid") -> Figure:
    line = {"color": "var(--bound)", "width": 1.5, "dash": dash}
    return trace(name, list(x), list(y), mode="lines", line=line, hovertemplate=f"{plain(name)}<extra></extra>")


def _points(rows: Sequence[Row], x: str, y: str) -> list[Figure]:
    """A trace for each category; the area of a point grows with its share of the time."""
    traces = []
    for category in CATEGORIES:
        own = [row for row in rows if row["category"] == category]
        sizes = [math.sqrt(SMALLEST**2 + (LARGEST**2 - SMALLEST**2) * row["share"]) for row in own]
        looks = {"size": sizes, "symbol": SYMBOLS[category], "color": COLOURS[category], "opacity": 0.65}
        said = {"hovertext": [hover(row) for row in own], "hovertemplate": "%{hovertext}<extra></extra>"}
        traces.append(trace(category, [row[x] for row in own], [row[y] for row in own], marker=looks, **said))
    return traces


def _logarithmic(data: Sequence[Figure], x: tuple[str, str], y: tuple[str, str]) -> Figure:
    across, up = (Axis("", Unit(name, unit, 1.0, None)) for name, unit in (x, y))
    drawn = figure(data, across, up, xaxis=LOGARITHMIC)
    drawn["layout"]["yaxis"] |= LOGARITHMIC
    return drawn
