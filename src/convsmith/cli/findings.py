"""How findings are shown, and their edited architectures kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convsmith.cli.output import print_table

if TYPE_CHECKING:
    from convsmith.measure import Finding

COLUMNS = ("rule", "~where", "~figure", ">time in eager", ">edited latency", ">MACs", ">memory", "~edit")
# Columns that are left out where nothing is in them.
OPTIONAL = (">time in eager", ">edited latency", ">MACs", ">memory")


def print_findings(found: Sequence[Finding], *, title: str) -> None:
    """A row for each that is no note, without the columns in which nothing stands."""
    found = [finding for finding in found if not finding.is_note]
    rows = [(f.rule, _where(f.where), _figure(f), _share(f.time_share), *_gains(f), f.edit) for f in found]
    filled = [i for i, name in enumerate(COLUMNS) if name not in OPTIONAL or any(row[i] for row in rows)]
    print_table([COLUMNS[i] for i in filled], ([row[i] for i in filled] for row in rows), title=title)


def saved(found: Sequence[Finding], folder: Path) -> dict[str, str]:
    """Write the edited architectures; the file of each rule that has one."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for finding in found:
        if finding.architecture is not None:
            path = folder / f"{finding.rule.replace(' ', '_').lower()}.json"
            finding.architecture.save(path)
            files[finding.rule] = str(path)
    return files


def document(finding: Finding) -> dict[str, Any]:
    """A finding as plain data, without its architecture."""
    fields = {f.name: getattr(finding, f.name) for f in dataclasses.fields(finding) if f.name != "architecture"}
    return {**fields, "gain": None if finding.gain is None else dataclasses.asdict(finding.gain)}


def _where(paths: tuple[str, ...]) -> str:
    return ", ".join(paths[:2]) + (f" and {len(paths) - 2} more" if len(paths) > 2 else "")


def _figure(finding: Finding) -> str:
    return "" if finding.value is None else f"{finding.value:.3g} {finding.unit}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _gains(finding: Finding) -> tuple[str, str, str]:
    gain = finding.gain
    if gain is None:
        return "", "", ""
    latency = "" if gain.latency_ratio is None else f"x {gain.latency_ratio:.2f} {gain.how}"
    return latency, f"x {gain.macs_ratio:.2f}", f"x {gain.memory_ratio:.2f}"
