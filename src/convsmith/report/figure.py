"""Parts of plotly figures as plain data: axes, traces, lines at limits, lanes for trials without a value.

Colours are names of CSS variables, which the page's script replaces by what the light or the dark style sheet gives
them. A point's `customdata` is the position of its trial in the page's list, from which the script makes its hover.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convsmith.report.units import Unit
from convsmith.search import Constraint, Trial

Figure = dict[str, Any]

MANY = 1000  # points, from which on they are drawn smaller and fainter
LOG_FROM = 30  # ratio of the largest to the smallest value, from which on an axis is logarithmic
LOGARITHMIC: Figure = {"type": "log", "dtick": "D2", "tickformat": "~g"}
LANES = ("failed", "infeasible")  # from the bottom


@dataclass(frozen=True)
class Axis:
    """A metric as an axis; `bounds` are the values that constraints draw lines at."""

    metric: str
    unit: Unit
    bounds: tuple[float, ...] = ()

    @property
    def lines(self) -> list[float]:
        """The bounds in the axis's unit."""
        return [bound * self.unit.factor for bound in self.bounds]

    def of(self, trial: Trial) -> float | None:
        """The value of a trial in the axis's unit."""
        value = trial.metrics.get(self.metric)
        return None if value is None else value * self.unit.factor


def bounds(constraints: Sequence[Constraint], metric: str) -> tuple[float, ...]:
    """Where constraints limit a metric."""
    found = [bound for c in constraints if c.metric == metric for bound in (c.minimum, c.maximum)]
    return tuple(bound for bound in found if bound is not None)


def trace(name: str, x: Sequence[Any], y: Sequence[Any], **more: Any) -> Figure:
    """Points, or with `mode="lines"` a line."""
    return {"type": "scatter", "mode": "markers", "name": plain(name), "x": x, "y": y, **more}


def marker(state: str, count: int) -> Figure:
    """How one of `count` trials is drawn: shape and colour tell the states apart."""
    size, opacity = (5, 0.4) if count > MANY else (7, 0.65)
    if state == "complete":
        return {"size": size, "opacity": opacity, "color": "var(--trial)"}
    symbol, color = {"failed": ("x-thin", "var(--failed)"), "infeasible": ("circle-open", "var(--infeasible)")}[state]
    return {"size": size, "symbol": symbol, "color": color, "line": {"width": 1.3, "color": color}}


def lanes(trials: Mapping[int, Trial], x: Callable[[Trial], float | None], count: int) -> list[Figure]:
    """Trials without a value of the objective, by position, in a lane for each state."""
    traces = []
    for state in LANES:
        chosen = {i: trial for i, trial in trials.items() if trial.state == state}
        at = [x(trial) for trial in chosen.values()]
        more = {"marker": marker(state, count), "customdata": list(chosen), "yaxis": "y2", "showlegend": False}
        traces.append(trace(state, at, [state] * len(chosen), **more))
    return traces


def figure(data: Sequence[Figure], x: Axis, y: Axis, *, xaxis: Figure | None = None) -> Figure:
    """Traces that hold something, with axes, the lanes where something is in them, and lines at the bounds."""
    drawn = [own for own in data if own["x"]]
    with_lanes = any(own.get("yaxis") == "y2" for own in drawn)
    line = {"gridcolor": "var(--line)", "linecolor": "var(--line)", "zeroline": False, "automargin": True}
    across, up = ({**line, "title": {"text": plain(axis.unit.label)}} for axis in (x, y))
    layout: Figure = {
        "xaxis": {**across, "anchor": "y2" if with_lanes else "y", **(xaxis or {})},
        "yaxis": {**up, "domain": [0.18 if with_lanes else 0.0, 1.0]},
        "shapes": [_limit(name, value, axis.unit) for name, axis in (("x", x), ("y", y)) for value in axis.lines],
        "showlegend": True,
    }
    if with_lanes:
        order = {"type": "category", "categoryorder": "array", "categoryarray": list(LANES), "range": [-0.6, 1.6]}
        layout["yaxis2"] = {**line, **order, "domain": [0.0, 0.12], "fixedrange": True}
    return {"data": drawn, "layout": layout}


def cost_axis(costs: Sequence[float], edge: float) -> Figure:
    """An axis over costs, logarithmic if they are of different orders; what is beyond the edge is out of the view."""
    low, high = min(costs, default=1.0), max(costs, default=1.0)
    if low > 0 and high > LOG_FROM * low:
        margin = 0.08 * math.log10(high / low)
        view = [math.log10(low) - margin, min(math.log10(high) + margin, math.log10(edge))]
        return {**LOGARITHMIC, "range": view, "tickformat": "~s" if high >= 1000 else "~g"}
    return {"range": [0.0, min(1.08 * high, edge)]}


def plain(text: str) -> str:
    """Text that plotly shows as it is: it reads tags, and the entities that stand for their brackets."""
    return html.escape(text, quote=False)


def _limit(axis: str, value: float, unit: Unit) -> Figure:
    """A dashed line across the plot at a value of the axis `x` or `y`."""
    other = "y" if axis == "x" else "x"
    label = {"text": f"limit {value:.4g} {unit.unit}".strip(), "padding": 4, "font": {"color": "var(--bound)"}}
    place = (
        {"textposition": "middle", "yanchor": "top"} if axis == "x" else {"textposition": "end", "yanchor": "bottom"}
    )
    return {
        "type": "line",
        f"{axis}ref": axis,
        f"{axis}0": value,
        f"{axis}1": value,
        f"{other}ref": f"{other} domain",
        f"{other}0": 0,
        f"{other}1": 1,
        "line": {"color": "var(--bound)", "width": 1.5, "dash": "dash"},
        "label": {**label, **place},
    }
