"""What the page of a profile shows, as data for its template."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from convsmith.measure import Profile
from convsmith.measure.device import processor_name
from convsmith.report import roofline

# Of each view: heading of a column, key of a row, format; "" for words.
TIMES = (("calls", "calls", ","), ("time (ms)", "ms", ".3f"), ("share", "share", ".1%"))
COLUMNS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "category": (("category", "category", ""), *TIMES),
    "operator": (("operator", "operator", ""), *TIMES),
    "layer": (
        *((name, name, "") for name in ("module", "operator", "kernel", "category")),
        *(("time (ms)", "ms", ".3f"), ("share", "share", ".1%"), ("MACs", "macs", ","), ("bytes", "memory_bytes", ",")),
        *(("MAC/byte", "intensity", ".1f"), ("GMAC/s", "gmacs_per_s", ".1f"), ("of the peak", "of_peak", ".0%")),
        *(("GB/s", "gbytes_per_s", ".1f"), ("of its roof", "of_roof", ".0%"), ("roof", "roof", "")),
    ),
}


def context(
    profile: Profile,
    *,
    name: str,
    input_shape: Sequence[int],
    keeping_memory_ms: float | None = None,
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Everything that `profile.html.j2` needs."""
    where = "" if profile.device == "cpu" else f" on {profile.device}"
    size = " × ".join(map(str, input_shape))
    threads = f"{profile.threads} thread" + "s" * (profile.threads > 1)
    notes = [(slowdown.name, slowdown.message) for slowdown in profile.slowdowns]
    if keeping_memory_ms is not None:
        notes.append(("with freed memory kept", f"{keeping_memory_ms:.3f} ms, measured after it"))
    call = f"measure.profile(network, {tuple(input_shape)}, backend={profile.backend!r}, threads={profile.threads})"
    return {
        "title": f"Where the time of {name} goes in {profile.backend}{where}",
        "running": False,
        "tiles": _tiles(profile),
        "figures": _figures(profile),
        "slowdowns": notes,
        "tables": [_table(profile, view) for view in COLUMNS],
        "command": None if command is None else shlex.join(command),
        "call": call,
        "settings": [
            ("network", name),
            ("input", size),
            ("back end", profile.backend),
            ("threads", threads),
            ("watched passes", str(profile.passes)),
        ],
        "device": [
            ("device", profile.device),
            ("processor", processor_name()),
            ("peak reached by", profile.roofs.source),
        ],
        "versions": [("torch", profile.torch_version), *_runtime(profile.backend)],
        "files": [],
    }


def _runtime(backend: str) -> list[tuple[str, str]]:
    """The version of a back end that is a package of its own."""
    try:
        return [(backend, version(backend))]
    except PackageNotFoundError:
        return []


def _tiles(profile: Profile) -> list[tuple[str, str, str]]:
    macs = sum(step.macs for step in profile.steps)
    rate = macs / profile.latency_ms / 1e6
    peak = profile.roofs.gmacs_per_s
    largest = max(profile.by_category.items(), key=lambda item: item[1].ms)
    return [
        ("one pass", f"{profile.latency_ms:.3g} ms", f"{profile.profiled_ms:.3g} ms while watched"),
        ("rate", f"{rate:.3g} GMAC/s", f"{rate / peak:.0%} of the peak"),
        ("peak of the device", f"{peak:.3g} GMAC/s", "measured"),
        ("most time in", largest[0], f"{largest[1].share:.0%}"),
    ]


def _figures(profile: Profile) -> list[dict[str, Any]]:
    """The roofline, the traffic of layers without arithmetic, the pie and the operators; those that hold something."""
    multiplying, moving = len(roofline.multiplying(profile)), len(roofline.moving(profile))
    peak = profile.roofs.gmacs_per_s
    found: list[dict[str, Any]] = []

    def add(identifier: str, heading: str, said: str, figure: dict[str, Any], note: str) -> None:
        found.append({"id": identifier, "heading": heading, "said": said, "figure": figure, "note": note})

    if multiplying:
        add(
            "roofline",
            "Roofline",
            f"rate over arithmetic intensity of {multiplying} layers, under a peak of {peak:.3g} GMAC/s; "
            "the figures are in the table of layers below",
            roofline.roofline(profile),
            "A point is a layer that multiplies, the larger the longer it takes. Lines are what this device reached "
            "when it was measured: the peak, and its bandwidth over working sets of several sizes.",
        )
    if moving:
        add(
            "traffic",
            "Layers without multiplications",
            f"bytes per second over bytes of {moving} layers; the figures are in the table of layers",
            roofline.traffic(profile),
            "They only move values. A runtime that fuses them with a convolution has none.",
        )
    shares = ", ".join(f"{name} {share.share:.0%}" for name, share in profile.by_category.items() if share.ms)
    add("pie", "Time by category", f"shares of the pass: {shares}", roofline.pie(profile), "")
    operators = "the time of each operator; the figures are in the table below"
    add("operators", "Time by operator", operators, roofline.bars(profile), "")
    return found


def _table(profile: Profile, view: str) -> dict[str, Any]:
    plural = {"category": "categories", "operator": "operators", "layer": "layers"}[view]
    columns = COLUMNS[view]
    order = " in the order of execution" if view == "layer" else ""
    return {
        "id": f"by-{view}",
        "heading": plural.capitalize(),
        "caption": f"Time of one pass by {view}{order}",
        "columns": [(title, bool(how)) for title, _, how in columns],
        "rows": [[format(row[key], how) for _, key, how in columns] for row in profile.rows(view)],
    }
