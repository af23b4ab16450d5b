"""What the page of a search shows, as data for its template."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from convsmith.report import plots
from convsmith.report.figure import Axis, bounds
from convsmith.report.folder import RunFolder
from convsmith.report.plots import Marked
from convsmith.report.provenance import data_name, flat, provenance
from convsmith.report.results import comparison, networks, number, winner_tiles
from convsmith.report.search_run import SearchRun
from convsmith.report.section import architecture_section
from convsmith.report.units import shortened, unit_of
from convsmith.report.words import decided
from convsmith.search import Trial

LONGEST_FRONT = 100  # rows
LONGEST_ERROR = 200  # characters
NUMBERS_SHOWN = 8  # trials of one reason

Tile = tuple[str, str, str]  # label, figure, note


def context(folder: RunFolder) -> dict[str, Any]:
    """Everything that `search.html.j2` needs."""
    run = SearchRun(folder)
    cost = run.costs[0] if run.costs else None
    page = provenance(folder, _call(run))
    page["device"] += flat(run.results.get("device", {}), "measured")
    front = run.front(cost) if cost else []
    return {
        "title": f"Search of {_name(run)}",
        "running": "finished" not in folder.document,
        "tiles": tiles(run),
        "figures": figures(run),
        "hover": hover(run),
        "states": states(run),
        "reasons": reasons(run),
        "objective": run.units[run.metric].name,
        "cost": run.units[cost].name if cost else "",
        "front": front_table(run, front[:LONGEST_FRONT]),
        "front_size": len(front),
        "comparison": comparison(run.results),
        "export": list(flat(run.results.get("export", {}))),
        "architecture": architecture_section(run.best, folder.input_shape),
        **page,
    }


def tiles(run: SearchRun) -> list[Tile]:
    """The headline: the winner of results.json, or else the best trial so far; and how far the search is."""
    wanted = run.folder.settings.get("trials")
    count = ("complete trials", f"{len(run.history.complete):,}", f"of {wanted:,} asked for" if wanted else "")
    best, winner = run.history.best, run.results.get("winner")
    if winner:
        return [*winner_tiles(winner), count]
    if best is None:
        return [count]
    tiles = [
        (
            f"best {run.units[run.metric].name}",
            run.units[run.metric].phrase(best.metrics[run.metric]),
            f"trial {best.number}",
        )
    ]
    for name in dict.fromkeys([*run.costs, "params", "macs"]):
        value = best.metrics.get(name)
        if value is not None and name != run.metric:
            figure = shortened(value) if name in ("params", "macs") else run.units[name].phrase(value)
            tiles.append((run.units[name].name, figure, "; ".join(run.limits(name))))
    return [*tiles, count]


def figures(run: SearchRun) -> list[dict[str, Any]]:
    """The plots, each with its heading and what it says to those who do not see it."""
    if not run.finished:
        return []
    objective = _axis(run, run.metric)
    found: list[dict[str, Any]] = []
    for cost in run.costs:
        axis, front = _axis(run, cost), run.front(cost)
        heading = f"{objective.unit.name} against {axis.unit.name}"
        said = f"{heading} of {len(run.finished)} trials, {len(front)} of them on the Pareto front"
        marked = _marked(run, cost)
        figure = plots.pareto(run.finished, front, axis, objective, marked)
        beyond = _beyond(run, axis, plots.view_edge(run.finished, axis, marked))
        found.append(
            {"id": f"pareto-{len(found) + 1}", "heading": heading, "said": said, "figure": figure, "note": beyond}
        )
    larger = not run.history.objective.startswith("-")
    figure = plots.progress(run.finished, objective, larger_is_better=larger)
    best = run.history.best
    reached = "none of them complete" if best is None else f"the best of them trial {best.number}"
    heading = f"{objective.unit.name} over the search"
    said = f"{heading}: {len(run.finished)} trials in the order of their numbers, {reached}"
    return [*found, {"id": "history", "heading": heading, "said": said, "figure": figure, "note": ""}]


def hover(run: SearchRun) -> dict[str, Any]:
    """What the script makes hovers of: choices in words, and the head and the options of each trial."""
    return {
        "choices": [[choice.place, choice.what, choice.options] for choice in run.choices],
        "trials": [
            [_head(run, trial), [trial.decisions.get(choice.key, -1) for choice in run.choices]]
            for trial in run.finished
        ],
    }


def states(run: SearchRun) -> list[tuple[str, int]]:
    """How many trials are in each state that occurs."""
    counts = Counter(trial.state for trial in run.trials)
    return [(state, counts[state]) for state in ("complete", "infeasible", "failed", "running") if counts[state]]


def reasons(run: SearchRun) -> list[dict[str, Any]]:
    """Why trials failed or are infeasible, the most frequent reason first; errors that differ in numbers are one."""
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for trial in run.finished:
        if trial.state in ("failed", "infeasible"):
            text = _error(trial) if trial.state == "failed" else _violated(run, trial)
            groups.setdefault((trial.state, re.sub(r"\d[\d.,]*", "#", text)), []).append((trial.number, text))
    return [
        {
            "state": state,
            "count": len(members),
            "text": _shortened(members[0][1]),
            "numbers": ", ".join(str(n) for n, _ in members[:NUMBERS_SHOWN])
            + (", …" if len(members) > NUMBERS_SHOWN else ""),
        }
        for (state, _), members in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]


def front_table(run: SearchRun, front: Sequence[Trial]) -> dict[str, Any]:
    """The front: number, metrics, and decisions in words."""
    names = run.metrics
    units = [unit_of(name, [trial.metrics.get(name) for trial in front]) for name in names]
    rows = [
        {
            "number": trial.number,
            "figures": [unit.text(trial.metrics.get(name)) for name, unit in zip(names, units, strict=True)],
            "decisions": decided(run.choices, trial.decisions),
        }
        for trial in front
    ]
    return {"columns": [unit.label for unit in units], "rows": rows}


def _name(run: SearchRun) -> str:
    recorded = str(run.folder.settings.get("space", "networks")).partition(" ")[0]
    data = data_name(run.folder.settings)
    return f"{run.space.name if run.space else recorded} on {data}" if data else recorded


def _axis(run: SearchRun, metric: str) -> Axis:
    return Axis(metric, run.units[metric], bounds(run.constraints, metric))


def _beyond(run: SearchRun, axis: Axis, edge: float) -> str:
    """How many trials are out of the view of a plot, in words; "" for none."""
    beyond = sum((axis.of(trial) or 0.0) > edge for trial in run.finished)
    unit = f" {axis.unit.unit}" if axis.unit.unit else ""
    are = "trial is" if beyond == 1 else "trials are"
    return f"{beyond:,} {are} beyond {edge:.3g}{unit}, out of the view; a double click shows all." if beyond else ""


def _marked(run: SearchRun, cost: str) -> list[Marked]:
    """Winner and baselines where they have this cost; their accuracy is that on the test split."""
    x, y = run.units[cost].factor, run.units[run.metric].factor
    found = []
    for entry, is_winner in networks(run.results):
        at, height = number(entry, cost), number(entry, "test_accuracy")
        if run.metric == "accuracy" and at is not None and height is not None:
            found.append(Marked(str(entry.get("name", "")), at * x, height * y, is_winner))
    return found


def _head(run: SearchRun, trial: Trial) -> list[str]:
    """The first lines of a trial's hover: number, state, metrics, error."""
    copied = "" if trial.same_as is None else f", the network of trial {trial.same_as}"
    figures = [
        f"{run.units[name].name} {run.units[name].phrase(value)}"
        for name in run.metrics
        if (value := trial.metrics.get(name)) is not None
    ]
    error = [_shortened(_error(trial))] if trial.error else []
    return [f"trial {trial.number}, {trial.state}{copied}", ", ".join(figures), *error]


def _error(trial: Trial) -> str:
    return (trial.error or "no reason recorded").partition("\n")[0]


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR - 1]}…"


def _violated(run: SearchRun, trial: Trial) -> str:
    broken = [c for c in run.constraints if c.metric in trial.metrics and c.excess(trial.metrics[c.metric]) > 0]
    return "; ".join(f"{run.units[c.metric].name}: {' and '.join(run.limits(c.metric))}" for c in broken) or "a limit"


def _call(run: SearchRun) -> str:
    settings = run.folder.settings
    limits = ", ".join(map(repr, run.constraints))
    return (
        f"cs.search.search(\n    space, strategy, evaluate,\n    trials={settings.get('trials')}, "
        f"objective={run.history.objective!r}, constraints=[{limits}],\n    "
        f"seed={run.folder.document.get('seed')}, run_dir={str(run.folder.path)!r},\n)"
    )
