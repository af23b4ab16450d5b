"""convsmith status: what a search has found so far."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Json, run_folder
from convsmith.cli.output import print_json, print_table, say


@app.command(epilog="Example: convsmith status search-digits-stages-regularized_evolution-0 --json")
def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name under runs/.")],
    json: Json = False,
) -> None:
    """Show the trials of a search, finished or still going on."""
    from convsmith.search import History

    history = History.open(run_folder(run))
    trials = sorted([*history, *history.running.values()], key=lambda trial: trial.number)
    keys = ("number", "state", "decisions", "metrics", "error")
    rows: list[dict[str, Any]] = [{key: getattr(trial, key) for key in keys} for trial in trials]
    best = None if history.best is None else {key: getattr(history.best, key) for key in keys}
    if json:
        print_json({"trials": rows, "best": best})
        return
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    print_table(
        (">trial", "state", *(f">{name}" for name in metrics), "error"),
        (
            (str(r["number"]), r["state"], *(_number(r["metrics"].get(name)) for name in metrics), r["error"] or "")
            for r in rows
        ),
    )
    counts = Counter(row["state"] for row in rows)
    say(", ".join(f"{count} {state}" for state, count in counts.items()) or "no trial yet")
    if best is not None:
        say(f"best: trial {best['number']}, {history.objective} {_number(history.score(history.best))}")  # type: ignore[arg-type]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:.4g}"
