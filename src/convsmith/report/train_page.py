"""What the page of a training shows, as data for its template."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from convsmith.arch import Architecture
from convsmith.report import plots
from convsmith.report.folder import RunFolder
from convsmith.report.provenance import arguments, data_name, provenance
from convsmith.report.section import architecture_section
from convsmith.report.units import unit_of

Row = dict[str, float]

NOT_OF_THE_TASK = ("epoch", "lr", "train_loss", "seconds")


def context(folder: RunFolder) -> dict[str, Any]:
    """Everything that `train.html.j2` needs."""
    rows = _rows(folder)
    document = folder.settings.get("architecture", {})
    name = document.get("name") or document.get("module") or "a network"
    data = data_name(folder.settings)
    return {
        "title": f"Training of {name} on {data}" if data else f"Training of {name}",
        "running": "finished" not in folder.document,
        "tiles": tiles(folder, rows),
        "figures": figures(rows),
        "epochs": table(rows),
        "architecture": architecture_section(lambda: _architecture(document), folder.input_shape),
        **provenance(folder, _call(folder)),
    }


def tiles(folder: RunFolder, rows: list[Row]) -> list[tuple[str, str, str]]:
    """The headline: the final metrics, or those of the latest epoch; epochs, and the time that they took."""
    asked = folder.settings.get("recipe", {}).get("epochs")
    epochs = ("epochs", f"{len(rows)}", f"of {asked}" if asked else "")
    if not rows:
        return [epochs]
    final = (folder.read("metrics.json") or {}).get("validation")
    note = "at the end" if final else f"after epoch {len(rows)}"
    metrics = final or {name: value for name, value in rows[-1].items() if name not in NOT_OF_THE_TASK}
    shown = [(f"validation {u.name}", u.phrase(v), note) for n, v in metrics.items() for u in [unit_of(n, [v])]]
    seconds = sum(row.get("seconds", 0.0) for row in rows)
    return [*shown, epochs, ("time", _duration(seconds), f"{seconds / len(rows):.3g} s an epoch")]


def figures(rows: list[Row]) -> list[dict[str, Any]]:
    """A plot of the losses, one of each other metric, and one of the learning rate."""
    if not rows:
        return []
    metrics = [name for name in rows[0] if name not in NOT_OF_THE_TASK]
    losses = [name for name in ("train_loss", *metrics) if name in rows[0] and name.endswith("loss")]
    groups = [("loss", losses), *((name, [name]) for name in metrics if name not in losses)]
    if "lr" in rows[0]:
        groups.append(("lr", ["lr"]))
    found: list[dict[str, Any]] = []
    for first, names in groups:
        unit = unit_of(first, [row.get(name) for row in rows for name in names])
        labels = {name: "train loss" if name == "train_loss" else f"validation {name}" for name in names}
        renamed = [{"epoch": row["epoch"], **{labels[n]: row[n] for n in names if n in row}} for row in rows]
        heading = unit.name if first in ("loss", "lr") else f"validation {unit.name}"
        said = f"{heading} over {len(rows)} epochs; the latest values are in the table below"
        figure = plots.curves(renamed, list(labels.values()), unit)
        found.append({"id": f"curve-{len(found) + 1}", "heading": heading, "said": said, "figure": figure, "note": ""})
    return found


def table(rows: list[Row]) -> dict[str, Any]:
    """The figures of each epoch."""
    names = [name for name in rows[0] if name != "epoch"] if rows else []
    units = [unit_of(name, [row.get(name) for row in rows]) for name in names]
    shown = [[unit.text(row.get(name)) for name, unit in zip(names, units, strict=True)] for row in rows]
    return {"columns": [unit.label for unit in units], "rows": shown}


def _rows(folder: RunFolder) -> list[Row]:
    """The figures of each epoch so far: those of metrics.json where the training is finished, or metrics.csv."""
    history: list[Row] | None = (folder.read("metrics.json") or {}).get("history")
    path = folder.path / "metrics.csv"
    if history is None and path.is_file():
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        try:
            history = [{name: float(value) for name, value in row.items()} for row in reader]
        except (TypeError, ValueError):
            raise ValueError(
                f"{path} must hold a number in each cell, and does not in line {reader.line_num}; "
                "the same training writes it anew when it goes on"
            ) from None
    return history or []


def _architecture(document: dict[str, Any]) -> Architecture | None:
    """None for a module of the user's own, of which a run records the class and the weights' shapes."""
    return Architecture.from_json(json.dumps(document)) if "stages" in document else None


def _call(folder: RunFolder) -> str:
    recipe = {name: value for name, value in folder.settings.get("recipe", {}).items() if name != "format"}
    return (
        f"cs.train.fit(\n    network, task, data,\n    cs.train.Recipe({arguments(recipe)}),\n"
        f"    run_dir={str(folder.path)!r},\n)"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"
