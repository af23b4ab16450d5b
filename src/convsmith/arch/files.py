"""The architecture file, format `convsmith/architecture/1`: JSON that names registered blocks and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from convsmith.arch.choice import Choice
from convsmith.arch.registry import registered
from convsmith.arch.spec import BlockSpec, record

if TYPE_CHECKING:
    from convsmith.arch.architecture import Architecture

FORMAT = "convsmith/architecture/1"
UPGRADES: dict[
    str, Callable[[dict[str, Any]], dict[str, Any]]
] = {}  # old format -> function of plain dicts to the next
KEYS = ("format", "name", "in_channels", "stem", "stages", "neck", "head", "aux", "reference", "found_by")


def dumps(architecture: Architecture) -> str:
    """The file's text, one block a line."""
    document = {
        "format": FORMAT,
        "name": architecture.name,
        "in_channels": architecture.in_channels,
        "stem": _dump(architecture.stem),
        "stages": _dump(architecture.stages),
        "neck": _dump(architecture.neck),
        "head": _dump(architecture.head),
        "aux": _dump(architecture.aux),
    }
    if architecture.reference is not None:
        document["reference"] = vars(architecture.reference)
    if architecture.found_by is not None:
        document["found_by"] = architecture.found_by
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {_lines(value, 1)}" for key, value in document.items()) + "\n}\n"


def loads(text: str) -> Architecture:
    """The architecture of a file's text; ValueError names the place and what is wrong there."""
    from convsmith.arch.architecture import Architecture, Reference  # it imports this module

    document = _document(text)
    unknown = [key for key in document if key not in KEYS]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; an architecture file has {', '.join(KEYS)}")
    for key in ("name", "stages"):
        if key not in document:
            raise ValueError(f"the key {key!r} is missing; an architecture file has {', '.join(KEYS)}")
    try:
        reference = document.get("reference")
        return Architecture(
            name=document["name"],
            in_channels=document.get("in_channels", 3),
            stem=_load_list(document.get("stem", []), "stem"),
            stages=[_load_list(s, f"stages[{i}]") for i, s in enumerate(_a_list(document["stages"], "stages"))],
            neck=_load_list(document.get("neck", []), "neck"),
            head=None if document.get("head") is None else _load(document["head"], "head"),
            aux=[tuple(_load_list(a, f"aux[{i}]")) for i, a in enumerate(_a_list(document.get("aux", []), "aux"))],
            reference=None if reference is None else Reference(**_integers(reference)),
            found_by=_text(document.get("found_by"), "found_by"),
        )
    except TypeError as error:
        raise ValueError(str(error)) from None


def load(path: Path) -> Architecture:
    """The architecture in a file; errors name the file."""
    try:
        return loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path} is no architecture file: {reason}") from None


def dump_spec(node: Any) -> Any:
    """A spec, choice or argument as plain JSON data."""
    return _dump(node)


def _dump(node: Any) -> Any:
    if isinstance(node, BlockSpec):
        return {"block": node.block, "args": {name: _dump(value) for name, value in node.arguments}}
    if isinstance(node, Choice):
        return {"choice": [_dump(option) for option in node.options]} | ({"name": node.name} if node.name else {})
    return [_dump(item) for item in node] if isinstance(node, tuple) else node


def _load(node: Any, where: str) -> Any:
    if isinstance(node, list):
        return tuple(_load_list(node, where))
    if not isinstance(node, dict):
        return node
    if "choice" in node:
        _only(node, ("choice", "name"), where)
        options = tuple(_load_list(node["choice"], f"{where}.choice"))
        return Choice(options, _text(node.get("name"), f"{where}.name"))
    if not isinstance(node.get("block"), str):
        raise ValueError(f'{where} must be {{"block": NAME, "args": {{...}}}}, got {_shown(node)}')
    _only(node, ("block", "args"), where)
    arguments = node.get("args", {})
    if not isinstance(arguments, dict):
        raise ValueError(f"{where}.args must be an object, got {_shown(arguments)}")
    try:
        return record(
            registered(node["block"]), {name: _load(value, f"{where}.{name}") for name, value in arguments.items()}
        )
    except (TypeError, ValueError) as error:
        message = str(error)
        raise ValueError(message if message.startswith(where) else f"{where}: {message}") from None


def _load_list(nodes: Any, where: str) -> list[Any]:
    return [_load(node, f"{where}[{i}]") for i, node in enumerate(_a_list(nodes, where))]


def _a_list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list, got {_shown(value)}")
    return value


def _only(node: dict[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown = [key for key in node if key not in keys]
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; it may have {' and '.join(keys)}")


def _text(value: Any, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{where} must be a string, got {_shown(value)}")
    return value


def _integers(reference: Any) -> dict[str, int]:
    keys = {"params", "macs", "input_size"}
    if isinstance(reference, dict) and set(reference) == keys and all(type(v) is int for v in reference.values()):
        return dict(reference)
    raise ValueError(f"reference must give the integers {', '.join(sorted(keys))}, got {_shown(reference)}")


def _document(text: str) -> dict[str, Any]:
    try:
        document: Any = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg} in line {error.lineno}, column {error.colno})") from None
    if not isinstance(document, dict):
        raise ValueError(f"the file must hold an object, got {_shown(document)}")
    seen = document.get("format")
    while isinstance(seen, str) and seen in UPGRADES:
        document = UPGRADES[seen](document)
        seen = document["format"]
    if seen != FORMAT:
        raise ValueError(f"format must be {FORMAT!r}, got {seen!r}; a newer file needs a newer convsmith")
    return dict(document)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"numbers must be finite, got {name}")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _lines(value: Any, depth: int) -> str:
    # A list of blocks, or of lists of blocks, is broken into lines; everything else stays in one.
    if depth <= 2 and isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        indent = " " * (depth + 1)
        return "[\n" + ",\n".join(indent + _lines(item, depth + 1) for item in value) + "\n" + " " * depth + "]"
    return json.dumps(value)
