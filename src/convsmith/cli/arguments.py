"""Arguments that several commands share."""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import Annotated

import typer

RUNS = Path("runs")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output, and nothing else.")]
Names = Annotated[
    list[str],
    typer.Argument(
        metavar="ARCH...",
        help="Zoo names, globs such as 'resnet*', .json files, timm:NAME, torchvision:NAME or FILE.py:NAME.",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A zoo name, a .json file, timm:NAME, torchvision:NAME or FILE.py:NAME."),
]
ImageSide = Annotated[
    int | None,
    typer.Option(
        "--input-size", min=1, help="Side of the images in pixels; the data's own by default.", show_default=False
    ),
]
DataName = Annotated[
    str, typer.Option(help="digits, cluttered_digits, a folder of images in class folders, or torchvision:NAME.")
]
Seed = Annotated[int, typer.Option(min=0, help="All randomness comes from it.")]
RunDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the run; by default one under runs/, named after the arguments.", show_default=False),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads that compute.")]
Batch = Annotated[int, typer.Option(min=1, help="Images in one forward pass.")]


def run_folder(run: str) -> Path:
    """The folder of a run: a path, or a name under `runs/`."""
    found = next((path for path in (Path(run), RUNS / run) if path.is_dir()), None)
    if found is None:
        known = sorted(path.name for path in RUNS.iterdir() if path.is_dir()) if RUNS.is_dir() else []
        close = difflib.get_close_matches(run, known, n=1)
        remedy = (
            f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}" if known else "there are none"
        )
        raise FileNotFoundError(f"there is no run {run}, neither a folder nor a name under {RUNS}/; {remedy}")
    return found


def positive(value: float | None) -> float | None:
    """Callback of options that must be finite and positive."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"must be a finite positive number, got {value}")
    return value


def run_name(*parts: object) -> Path:
    """The folder of a run that the command line does not name: the same command finds it again."""
    return RUNS / "-".join(
        re.sub(r"[^A-Za-z0-9_.]+", "_", Path(str(part)).name.removesuffix(".json")) for part in parts
    )
