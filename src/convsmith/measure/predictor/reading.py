"""A calibration's file read again, each value held against what it must be: a file may come from anyone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convsmith.measure.predictor.checked import (
    DamagedError,
    array,
    calibration,
    check,
    is_number,
    mapping,
    number,
    of,
    texts,
)
from convsmith.measure.predictor.engines import ENGINES
from convsmith.measure.predictor.kernels import LAW, Kernel
from convsmith.measure.predictor.speed import REFERENCES
from convsmith.measure.predictor.table import FORMAT, KEY, About, Table
from convsmith.measure.predictor.trees import Array

TEXTS = ("device", "processor", "backend", "runtime", "begun")
WHOLE = {"threads": (1, 65536), "block": (0, 64)}  # the least and the most
LARGEST_SIDE = 2**31 - 1


def load(path: Path) -> tuple[Table, dict[str, Array], dict[str, Any]]:
    """A table, and the arrays and notes that were saved with it.

    Raises FileNotFoundError where no file is, ValueError for one that is no table of this version, or not a whole one.
    """
    if path.is_dir():
        raise ValueError(f"a calibration is a file, and {path} is a folder; name the file in it")
    if not path.is_file():
        raise FileNotFoundError(f"there is no calibration {path}; make one with `convsmith calibrate`")
    with calibration(path):
        document, arrays = _read(path)
        _check_version(document, path)
        own = {name.removeprefix("table."): arrays.pop(name) for name in list(arrays) if name.startswith("table.")}
        table = Table(_about(mapping(of(document, "about"), "about")))
        _fill(table, document, own)
        notes = dict(mapping(of(document, "notes"), "notes"))
        if "seconds" in notes:
            number(notes, "seconds", lowest=0)
    return table, arrays, notes


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, Array]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            document = json.loads(of(file.metadata() or {}, KEY))
            # A type that numpy lacks is a TypeError, or what the library makes of it.
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(str(error)) from None
    return mapping(document, "its description"), arrays


def _check_version(document: Mapping[str, Any], path: Path) -> None:
    about = document.get("about")
    backend = about.get("backend") if isinstance(about, dict) else None
    engine = ENGINES.get(backend) if isinstance(backend, str) else None
    if document.get("format") != FORMAT:
        raise ValueError(
            f"{path} must hold a calibration in the format {FORMAT}, and its format is {document.get('format')!r}; "
            "calibrate again"
        )
    if engine is None:
        raise ValueError(
            f"{path} must hold a calibration in the format {FORMAT} of {' or '.join(ENGINES)}, got one of {backend!r}; "
            "calibrate again"
        )
    if document.get("numbers") != engine.numbers:
        raise ValueError(
            f"{path} must hold a calibration in the format {FORMAT} by version {engine.numbers} of the rules for "
            f"{backend}, got one by version {document.get('numbers')!r}; calibrate again"
        )


def _about(document: Mapping[str, Any]) -> About:
    for name in TEXTS:
        check(isinstance(of(document, name), str), f"{name} must be a text", document[name])
    for name, (least, most) in WHOLE.items():
        whole = type(of(document, name)) is int and least <= document[name] <= most
        check(whole, f"{name} must be a whole number from {least} to {most}", document[name])
    reference_ms = of(document, "reference_ms")
    several = isinstance(reference_ms, list) and len(reference_ms) == REFERENCES
    positive = several and all(is_number(own) and own > 0 for own in reference_ms)
    check(positive, f"reference_ms must be {REFERENCES} positive numbers", reference_ms)
    known = {name: document[name] for name in (*TEXTS, *WHOLE)}
    check(len(document) == len(known) + 1, "about must say nothing else", sorted(document))
    return About(**known, reference_ms=tuple(map(float, reference_ms)))


def _fill(table: Table, document: Mapping[str, Any], own: Mapping[str, Array]) -> None:
    """The networks, each a row, and their kernels behind each other."""
    table.names = texts(document, "networks")
    groups, variants = texts(document, "groups"), texts(document, "variants")
    networks, width = len(table.names), ENGINES[table.about.backend].width
    shapes = array(own, "input_shape", (networks, 4), "i", lowest=1, highest=LARGEST_SIDE)
    latencies = array(own, "latency_ms", (networks,), lowest=0)
    counts = array(own, "count", (networks,), "i", lowest=0, highest=LARGEST_SIDE).tolist()
    rows = sum(counts)
    times = array(own, "time_us", (rows,), lowest=0).tolist()
    columns = [
        array(own, "group", (rows,), "i", lowest=0, highest=len(groups) - 1).tolist(),
        array(own, "variant", (rows,), "i", lowest=0, highest=len(variants) - 1).tolist(),
        array(own, "law", (rows, len(LAW) if rows else None), lowest=0).tolist(),
        array(own, "numbers", (rows, width if rows else None)).tolist(),
    ]
    table.input_shapes = [tuple(shape) for shape in shapes.tolist()]
    table.latencies_ms = np.where(latencies > 0, latencies, np.nan).tolist()
    kernels = [
        Kernel(groups[group], variants[variant], tuple(law), tuple(numbers))
        for group, variant, law, numbers in zip(*columns, strict=True)
    ]
    end = 0
    for count in counts:
        start, end = end, end + count
        table.kernels.append(tuple(kernels[start:end]))
        table.times_us.append(tuple(times[start:end]))
