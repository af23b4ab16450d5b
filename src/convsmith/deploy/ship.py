"""The folder that is shipped: the files of the fastest back end, a loader that needs no convsmith, and a README."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor, nn

import convsmith
from convsmith.arch import check_takes_files
from convsmith.deploy import backends
from convsmith.deploy.agreement import check_example
from convsmith.deploy.backends.registry import Artefact
from convsmith.deploy.comparison import Candidate, Comparison, compare
from convsmith.deploy.precision import precision_of, without_autocast
from convsmith.deploy.snapshot import snapshot

LOADER, README = "loader.py", "README.md"
CALL = """
import sys
import numpy
import loader
run = loader.load(threads=int(sys.argv[1]))
for path in sys.argv[2:]:
    numpy.save(path, run(numpy.load(path)))
"""


@dataclass(frozen=True)
class Shipment:
    """What was written to a folder, what it was chosen from, and how far the loader's outputs are from eager's."""

    folder: Path
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    files: tuple[str, ...]
    packages: tuple[str, ...]
    loader_difference: float


@without_autocast
def ship(
    module: nn.Module,
    folder: str | os.PathLike[str],
    example: Tensor,
    *,
    backend: str = "auto",
    precisions: Iterable[str] = (),
    threads: int | None = None,
    thorough: bool = False,
) -> Shipment:
    """Write the network, in eval mode, as the files of the fastest back end that agrees with eager.

    The loader is run in a Python of its own and compared with eager before the folder gets its name. The arguments are
    those of `compare`; eager has no files, and is passed over.

    Args:
        module: A network that takes and returns one tensor; it is left untouched.
        folder: It must not exist, or be empty; an empty one stays what it is, and gets the files.
        example: An input as the network will get them; its sizes but for the batch are fixed in the files.
        backend: One of `backends.names()`, or `auto` for all that are installed.
        precisions: Which ones, as words (default: the network's own).
        threads: How many threads compute (default: as many as torch uses now).
        thorough: Let `auto` try those back ends too that take many seconds to prepare.

    Warns, and says in the README, where outputs depend on the input so little that their agreement shows nothing.
    Raises ValueError for wrong arguments, and when no back end with files can run the network; then nothing is left.
    """
    check_example(example)
    if example.dtype == torch.bfloat16:
        raise ValueError(
            "a loader takes NumPy arrays, which have no bfloat16, and the example is torch.bfloat16; ship the network "
            "in float32, with precisions=['bfloat16']"
        )
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"the folder of an export must be new or empty, got {folder}; give another name or remove it")
    check_takes_files(folder)
    if backend != "auto" and backends.get(backend).write is None:
        raise ValueError(f"the back end {backend} has no files to ship; choose {', '.join(_with_files())} or auto")
    if not _with_files():
        raise ImportError(
            "an export for a back end needs one with files, and none is installed; pip install 'convsmith[onnx]' or "
            "'convsmith[openvino]'"
        )
    found = compare(module, example, backend=backend, precisions=precisions, threads=threads, thorough=thorough)
    candidates = tuple(found.candidates.values())
    timed = [(c.median_ms, c) for c in candidates if c.median_ms is not None and c.backend in _with_files()]
    if not timed:
        reasons = "; ".join(f"{c.backend} in {c.precision}: {c.rejected}" for c in candidates if c.rejected)
        raise ValueError(f"no back end with files can run {type(module).__name__}: {reasons or 'none is installed'}")
    chosen = min(timed, key=lambda pair: pair[0])[1]
    write = backends.get(chosen.backend).write
    assert write is not None
    # On its file system, so that the files need no copying.
    place = folder if folder.exists() else folder.parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=place) as scratch:
        made = Path(scratch) / "artefact"
        made.mkdir()
        artefact = write(snapshot(found.network), example, made, chosen.precision)
        (made / LOADER).write_text(artefact.loader, encoding="utf-8")
        difference = _loader_difference(found, made, chosen)
        unseen = found.unseen(chosen)
        (made / README).write_text(_readme(found, chosen, artefact, difference, unseen), encoding="utf-8")
        _move(made, folder)
    if unseen:
        warnings.warn(unseen, stacklevel=3)
    return Shipment(folder, chosen, candidates, artefact.files, artefact.packages, difference)


def table(candidates: Sequence[Candidate]) -> list[tuple[str, ...]]:
    """Rows of the `COLUMNS`; in the last one stands the reason instead where a candidate was rejected."""
    eager = next((c.median_ms for c in candidates if c.backend == "eager" and c.median_ms), None)
    return [
        (
            c.backend,
            c.precision,
            "" if c.median_ms is None else f"{c.median_ms:.3f}",
            "" if c.low_ms is None or c.high_ms is None else f"{c.low_ms:.3f} - {c.high_ms:.3f}",
            "" if c.median_ms is None or eager is None else f"{c.median_ms / eager:.2f}",
            "" if c.prepare_seconds is None else f"{c.prepare_seconds:.1f}",
            c.rejected or ("" if c.difference is None else f"{c.difference:.1e}"),
        )
        for c in candidates
    ]


COLUMNS = ("back end", "precision", "ms", "interval", "of eager", "s to prepare", "difference from eager")


def doubts(candidates: Sequence[Candidate], chosen: Candidate) -> list[str]:
    """Why the choice among candidates is in doubt: intervals that overlap, and what disturbed the measurement."""
    fastest_ms = chosen.high_ms or 0.0
    others = [own for own in candidates if own != chosen and own.backend in _with_files()]
    found = [
        f"{_named(own)} may be as fast as {_named(chosen)}: their intervals overlap"
        for own in others
        if own.low_ms is not None and own.low_ms <= fastest_ms
    ]
    causes: dict[str, list[str]] = {}
    for own in candidates:
        for warning in own.warnings:
            causes.setdefault(warning, []).append(_named(own))
    return [*found, *(f"{', '.join(names)}: {warning}" for warning, names in causes.items())]


def _named(candidate: Candidate) -> str:
    return f"{candidate.backend} in {candidate.precision}"


def _move(made: Path, folder: Path) -> None:
    """Give the folder that was made its name; one that is there may be where somebody works, and gets the files."""
    if not folder.exists():
        made.rename(folder)
        return
    for path in made.iterdir():
        path.rename(folder / path.name)


def _with_files() -> list[str]:
    return [name for name in backends.installed() if backends.get(name).write is not None]


def _loader_difference(found: Comparison, folder: Path, chosen: Candidate) -> float:
    import numpy

    paths = [folder.parent / f"{i}.npy" for i in range(len(found.reference.pairs))]
    for path, (x, _) in zip(paths, found.reference.pairs, strict=True):
        numpy.save(path, x.cpu().numpy())
    command = [sys.executable, "-c", CALL, str(found.threads), *map(str, paths)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    if done.returncode:
        raise ValueError(
            f"the loader of {chosen.backend} must run in a Python of its own, and fails "
            f"({(done.stderr.strip() or 'no message').splitlines()[-1]}); nothing was written; choose another back end"
        )
    outputs = iter([torch.from_numpy(numpy.load(path)) for path in paths])
    difference = found.reference.difference(lambda _: next(outputs))
    tolerance = found.tolerance(chosen.precision)
    if not difference <= tolerance:
        raise ValueError(
            f"the files of {chosen.backend} may differ from eager by {tolerance:g} of the largest output, and differ "
            f"by {difference:.2g}; nothing was written; choose another back end or precision"
        )
    return difference


def _readme(found: Comparison, chosen: Candidate, artefact: Artefact, difference: float, unseen: str) -> str:
    shape = ", ".join(map(str, found.example.shape[1:]))
    rows = [COLUMNS, ("---",) * len(COLUMNS), *table(tuple(found.candidates.values()))]
    packages = [f"{name}=={_version(name)}" if _version(name) else name for name in artefact.packages]
    title = getattr(getattr(found.network, "architecture", None), "name", "") or type(found.network).__name__
    note = f"\n\n{unseen[0].upper()}{unseen[1:]}." if unseen else ""
    doubted = [f"- {doubt}" for doubt in doubts(tuple(found.candidates.values()), chosen)]
    below = "\n".join(["", *doubted, ""]) if doubted else ""
    return f"""# {title} for {chosen.backend} in {chosen.precision}

    pip install {" ".join(packages)}

    import loader
    run = loader.load(threads={found.threads})
    y = run(x)  # x: a NumPy array of type {precision_of(found.example)} and shape (N, {shape}), for any N

Files: {", ".join((*artefact.files, LOADER))}. Run by the loader in a Python of its own, the outputs differed from
those of the network in PyTorch by at most {difference:.1e} of the largest output.{note}

Chosen among these, measured in turns on {found.threads} thread{"s" if found.threads > 1 else ""} with a batch of
{len(found.example)} by convsmith {convsmith.__version__}:

{chr(10).join("| " + " | ".join(row) + " |" for row in rows)}
{below}"""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
