"""The page of a run: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from convsmith import __version__
from convsmith.arch import check_writable, write_whole
from convsmith.measure import Profile
from convsmith.report import profile_page, search_page, train_page
from convsmith.report.folder import RunFolder, open_run

PACKAGES = ("jinja2", "plotly.offline")
PAGES: dict[str, Callable[[RunFolder], dict[str, Any]]] = {
    "search": search_page.context,
    "train": train_page.context,
}


def write(run_dir: str | Path, path: str | Path | None = None) -> Path:
    """Write the page of a search or training run, finished or still going on, and return where it is.

    The page holds its plots, scripts and styles and fetches nothing. It is written whole; another process may be
    writing the run.

    Args:
        run_dir: The folder of the run.
        path: The page; `report.html` in the run's folder by default.

    Raises:
        FileNotFoundError: where `run_dir` is no folder of a run.
        ValueError: for a run of an unknown kind, and for a file of it that cannot be read.
        ImportError: without the extra `report`.
    """
    run = open_run(run_dir)
    kind = run.document.get("kind")
    if kind not in PAGES:
        raise ValueError(
            f"a page is made of a run of kind {' or '.join(PAGES)}, got {kind!r} in {run.path / 'run.json'}; "
            "name the folder of a search or a training"
        )
    target = check_page(Path(run_dir) / "report.html" if path is None else path)
    write_whole(target, _render(f"{kind}.html.j2", PAGES[kind](run)))
    return target


def write_profile(
    profile: Profile,
    path: str | Path,
    *,
    name: str,
    input_shape: Sequence[int],
    keeping_memory_ms: float | None = None,
    command: Sequence[str] | None = None,
) -> Path:
    """Write the page of a profile and return where it is: roofline, shares of the time, tables of operators and layers.

    The page holds its plots, scripts and styles and fetches nothing. It is written whole.

    Args:
        profile: What `measure.profile` gave.
        path: The page.
        name: What the network is called.
        input_shape: The shape that it was profiled at, batch included.
        keeping_memory_ms: A pass with freed memory kept, where that was measured too.
        command: What the page says to run to measure again; the call of `measure.profile` by default.

    Raises ValueError where the path is a folder, and ImportError without the extra `report`.
    """
    target = check_page(path)
    context = profile_page.context(
        profile, name=name, input_shape=input_shape, keeping_memory_ms=keeping_memory_ms, command=command
    )
    write_whole(target, _render("profile.html.j2", context))
    return target


def check_page(path: str | Path) -> Path:
    """Where a page is to be written; ValueError where none can be, ImportError where the extra `report` is missing."""
    target = Path(path)
    check_writable(target)
    _libraries()
    return target


def _libraries() -> list[Any]:
    """jinja2 and plotly's part that knows its script."""
    try:
        return [import_module(package) for package in PACKAGES]
    except ImportError as error:
        raise ImportError(
            f"a page needs {error.name}, which is not installed; pip install 'convsmith[report]'"
        ) from error


def _render(template: str, context: dict[str, Any]) -> str:
    jinja2, plotly = _libraries()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("convsmith.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = Path(__file__).parent / "templates"
    scripts = [plotly.get_plotlyjs(), (folder / "page.js").read_text(encoding="utf-8")]
    # Only these two may run in the page, whatever a name or an error message contains.
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    text: str = environment.get_template(template).render(
        context
        | {
            "scripts": scripts,
            "hashes": hashes,
            "style": (folder / "style.css").read_text(encoding="utf-8"),
            "version": __version__,
            "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        }
    )
    return text
