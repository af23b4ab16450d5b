"""Libraries kept quiet that print pages beside raising, and the one line of an error that says what there is to say."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silent(*, native: bool = False) -> Iterator[None]:
    """Let nothing be logged, warned of or printed inside the block; `native` reaches what C++ writes too."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            _native_errors_dropped() if native else contextlib.nullcontext(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def reason(error: BaseException) -> str:
    """The first line of what an error was raised from at the root."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


def raised_by_torch(error: BaseException) -> bool:
    """Whether the code that raised it is torch's own, such as a norm's look at the rank of its input."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == "torch"


@contextlib.contextmanager
def _native_errors_dropped() -> Iterator[None]:
    if sys.__stderr__ is not None:
        sys.__stderr__.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
