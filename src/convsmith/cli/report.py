"""convsmith report: one self-contained page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convsmith.cli.app import app
from convsmith.cli.arguments import Json, run_folder
from convsmith.cli.output import print_json, say


@app.command(epilog="Example: convsmith report search-digits-stages-regularized_evolution-0")
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name under runs/.")],
    out: Annotated[Path | None, typer.Option(help="The page; report.html in the run's folder by default.")] = None,
    json: Json = False,
) -> None:
    """Write the page of a search or training run, finished or still going on."""
    from convsmith import report as pages

    path = pages.write(run_folder(run), out)
    print_json({"report": str(path)}) if json else say(f"wrote {path}")
