"""The plots of the pages: Pareto, progress of a search, curves of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from convsmith.report.figure import LOG_FROM, LOGARITHMIC, Axis, Figure, cost_axis, figure, lanes, marker, plain, trace
from convsmith.report.units import Unit
from convsmith.search import Trial

OUTLIER = 2  # times the largest cost that matters: what lies beyond is out of the view at first
MARKED_EPOCHS = 60  # up to as many, each epoch is a point on its curve
FEW = 10  # whole numbers on an axis
CURVES = (("var(--front)", "solid"), ("var(--trial)", "dot"), ("var(--failed)", "dash"))


@dataclass(frozen=True)
class Marked:
    """A network that was trained in full, to be marked among the trials, in the units of the axes."""

    name: str
    x: float
    y: float
    winner: bool = False


def pareto(trials: Sequence[Trial], front: Sequence[Trial], x: Axis, y: Axis, marked: Sequence[Marked] = ()) -> Figure:
    """Objective against cost: every trial that has the cost, the front joined, limits as lines."""
    on_front = {trial.number for trial in front}
    placed = {i: trial for i, trial in enumerate(trials) if x.of(trial) is not None}
    ends = sorted(
        (i for i, trial in placed.items() if trial.number in on_front),
        key=lambda i: (x.of(trials[i]) or 0.0, y.of(trials[i]) or 0.0),
    )
    joined = {
        "mode": "lines+markers",
        "line": {"shape": "hv", "width": 1.5, "color": "var(--front)"},
        "marker": {"size": 9, "color": "var(--front)"},
    }
    data = []
    for state in ("complete", "infeasible"):
        own = [i for i, trial in placed.items() if _has_height(trial, y, state) and trial.number not in on_front]
        data.append(_points(state, trials, own, x, y, marker=marker(state, len(trials))))
    data.append(_points("Pareto front", trials, ends, x, y, **joined))
    data += lanes({i: t for i, t in placed.items() if not _has_height(t, y)}, x.of, len(trials))
    data += [_label(own, x, y, below=i % 2 == 1) for i, own in enumerate(sorted(marked, key=lambda own: own.x))]
    edge = view_edge(trials, x, marked)
    costs = [cost for trial in placed.values() if (cost := x.of(trial)) is not None and cost <= edge]
    return figure(data, x, y, xaxis=cost_axis([*costs, *x.lines, *(own.x for own in marked)], edge))


def view_edge(trials: Sequence[Trial], x: Axis, marked: Sequence[Marked] = ()) -> float:
    """The cost up to which the plot shows trials at first: complete ones, limits and marked networks, and some beyond.

    Infinite where no trial is complete.
    """
    costs = [cost for trial in trials if trial.state == "complete" and (cost := x.of(trial)) is not None]
    return OUTLIER * max(*costs, *x.lines, *(own.x for own in marked), 0.0) if costs else math.inf


def progress(trials: Sequence[Trial], y: Axis, *, larger_is_better: bool) -> Figure:
    """Objective over trials, which are in the order of their numbers, with the best one so far."""
    x = Axis("trial", Unit("trial", "", 1.0, 0))
    data = []
    for state in ("complete", "infeasible"):
        own = [i for i, trial in enumerate(trials) if _has_height(trial, y, state)]
        points = _points(state, trials, own, x, y, marker=marker(state, len(trials)))
        data.append({**points, "x": [trials[i].number for i in own]})
    steps, heights = data[0]["x"], data[0]["y"]
    best = list(accumulate(heights, max if larger_is_better else min))
    if best:  # up to the last trial, whatever became of it
        steps, best = [*steps, trials[-1].number], [*best, best[-1]]
    line = {"shape": "hv", "width": 2, "color": "var(--front)"}
    data.append(trace("best so far", steps, best, mode="lines", line=line, hoverinfo="skip"))
    rest = {i: trial for i, trial in enumerate(trials) if not _has_height(trial, y)}
    data += lanes(rest, lambda trial: trial.number, len(trials))
    return figure(data, x, y, xaxis=_whole_numbers(trials[-1].number))


def curves(rows: Sequence[Mapping[str, float]], metrics: Sequence[str], unit: Unit) -> Figure:
    """Figures of a training over its epochs, a line for each metric."""
    epochs = [int(row["epoch"]) for row in rows]
    mode = "lines+markers" if len(epochs) <= MARKED_EPOCHS else "lines"
    data = []
    for i, metric in enumerate(metrics):
        color, dash = CURVES[i % len(CURVES)]
        values = [_finite(row.get(metric), unit.factor) for row in rows]
        looks = {"line": {"width": 2, "color": color, "dash": dash}, "marker": {"size": 4, "color": color}}
        hover = f"epoch %{{x}}<br>%{{y:.4~g}}<extra>{plain(metric)}</extra>"
        data.append(trace(metric, epochs, values, mode=mode, hovertemplate=hover, **looks))
    x = Axis("epoch", Unit("epoch", "", 1.0, 0))
    drawn = figure(data, x, Axis("", unit), xaxis=_whole_numbers(epochs[-1]))
    drawn["layout"]["showlegend"] = len(metrics) > 1
    known = [float(value) for own in data for value in own["y"] if value is not None]
    if unit.name == "loss" and known and min(known) > 0 and max(known) > LOG_FROM * min(known):
        drawn["layout"]["yaxis"] |= LOGARITHMIC
    return drawn


def _whole_numbers(last: int) -> Figure:
    """A tick at each number where there are few, so that none is at a half."""
    return {"dtick": 1} if last <= FEW else {}


def _points(name: str, trials: Sequence[Trial], chosen: Sequence[int], x: Axis, y: Axis, **looks: object) -> Figure:
    across, up = ([axis.of(trials[i]) for i in chosen] for axis in (x, y))
    return trace(name, across, up, customdata=chosen, **looks)


def _has_height(trial: Trial, y: Axis, state: str | None = None) -> bool:
    """Whether a trial has a place in the plot by its objective, and not in a lane below; a failed one has not."""
    return trial.state != "failed" and y.of(trial) is not None and state in (None, trial.state)


def _label(network: Marked, x: Axis, y: Axis, *, below: bool) -> Figure:
    name = plain(network.name)
    size, symbol = (16, "star") if network.winner else (10, "diamond")
    outline = {"color": "var(--page)", "width": 1.5}
    figures = f"{plain(y.unit.label)} %{{y:.4~g}}<br>{plain(x.unit.label)} %{{x:.4~g}}"
    return trace(
        network.name,
        [network.x],
        [network.y],
        mode="markers+text",
        marker={"size": size, "symbol": symbol, "color": "var(--text)", "line": outline},
        text=[f"<b>{name}</b>" if network.winner else name],
        textposition="bottom right" if network.winner else "bottom center" if below else "top center",
        cliponaxis=False,
        hovertemplate=f"<b>{name}</b>, trained in full<br>{figures}<extra></extra>",
        showlegend=False,
    )


def _finite(value: float | None, factor: float) -> float | None:
    return None if value is None or not math.isfinite(value) else value * factor
