"""The entry point: errors become one line and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TextIO

from convsmith.cli.app import app

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
PATHS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
GO_ON = ("calibrate", "search", "train", "demo")  # where they were stopped
OTHER_INPUTS = (
    "a command gives a batch of images, or of what --input-size says (SIDE, HxW, CxHxW, CxDxHxW); measure networks of "
    "other inputs by cs.measure.count in Python"
)
COMMANDS = (
    "list",
    "show",
    "diff",
    "cost",
    "latency",
    "profile",
    "receptive-field",
    "advise",
    "calibrate",
    "predict",
    "search",
    "status",
    "train",
    "export",
    "quantize",
    "report",
    "demo",
)


def main() -> None:
    """Run the command line of this process.

    Wrong input (ValueError, a path that is no good, a missing extra) ends with one line and exit code 2, Ctrl-C with
    130, a failure at run time with one line and exit code 1, its traceback only where CONVSMITH_TRACEBACK is set.
    """
    for command in COMMANDS:
        import_module(f"convsmith.cli.{command.replace('-', '_')}")
    shown = warnings.showwarning
    try:
        warnings.showwarning = _in_one_line
        app()
    except (ValueError, ImportError) as error:
        wrong = getattr(error, "wrong", None)  # of an input: its remedy is a line of Python
        _end(error, f"{wrong}; {OTHER_INPUTS}" if wrong else f"{error}", 2)
    except PATHS as error:
        # The system's own words know neither rule nor remedy.
        words = f"{error.filename} cannot be used ({error.strerror}); look at the path" if error.errno else f"{error}"
        _end(error, words, 2)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C
            goes_on = "; the same command goes on where it was" if set(sys.argv[1:2]) & set(GO_ON) else ""
            _end(None, f"stopped{goes_on}", INTERRUPTED)
        raise
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        own = type(error).__module__.startswith("convsmith.")  # says in one line what is wrong
        _end(error, f"{error}" if own else f"{type(error).__name__}: {error} (CONVSMITH_TRACEBACK=1 shows where)", 1)
    finally:
        warnings.showwarning = shown


def _in_one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our own warnings as lines for the person at the terminal; others with the place that they come from."""
    says = category is UserWarning or category.__module__.startswith("convsmith.")
    own = says and Path(filename).is_relative_to(Path(__file__).parent.parent)
    words = f"convsmith: {message}\n" if own else warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(words)


def _end(error: Exception | None, message: str, code: int) -> None:
    if error is not None and os.environ.get("CONVSMITH_TRACEBACK"):
        raise error
    sys.stderr.write(f"convsmith: {' '.join(message.split())}\n")
    sys.exit(code)
