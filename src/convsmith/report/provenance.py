"""Where a result comes from: settings, device, versions, dates, and how to obtain it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from convsmith.report.folder import RunFolder

SHOWN_ELSEWHERE = ("architecture", "constraints")
LONGEST = 160  # characters of a setting


def provenance(run: RunFolder, call: str) -> dict[str, Any]:
    """What every page ends with; `call` is the Python call that stands where run.json has no command."""
    document = run.document
    command = document.get("command")
    return {
        "command": shlex.join(map(str, command)) if isinstance(command, list) else command,
        "call": call,
        "settings": list(flat({k: v for k, v in run.settings.items() if k not in SHOWN_ELSEWHERE})),
        "device": list(flat(document.get("device", {}))),
        "versions": list(flat(document.get("versions", {}))),
        "seed": document.get("seed"),
        "started": _date(document.get("started")),
        "finished": _date(document.get("finished")),
        "folder": run.path.resolve().name,
        "files": [(name, what, f"{size:,}") for name, what, size in run.files()],
    }


def arguments(values: Mapping[str, Any]) -> str:
    """Keyword arguments as they are written in a call: `epochs=3, lr=0.05`."""
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def data_name(settings: Mapping[str, Any]) -> str:
    """The name of the run's data set, "" where it is not known: `{"name", "fingerprint"}`, or both in one string."""
    data = settings.get("data", "")
    return str(data.get("name", "")) if isinstance(data, dict) else str(data).rpartition(" ")[0] or str(data)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested objects as text, each under its path: `recipe.lr`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else key)
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield name, text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _date(text: str | None) -> str | None:
    """`2026-01-31 14:05 UTC` of an ISO date; anything else as it is."""
    try:
        return None if text is None else datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text
