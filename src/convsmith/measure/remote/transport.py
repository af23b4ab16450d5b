"""Commands and files sent to another device by a client program of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class RemoteError(RuntimeError):
    """A device that cannot be reached, or did not do what it was asked: one line with reason and remedy."""


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code, and its standard output and error."""

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """The last line that it said, on standard error if there is one."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1].strip()[:300] if lines else f"exit code {self.code}, no message"


class Transport(Protocol):
    """A way to a device. All methods raise RemoteError when the device is out of reach or the time is over."""

    @property
    def temporary(self) -> str:
        """The folder for temporary files there, as its shell expands it."""
        ...

    def run(self, command: Sequence[str], *, seconds: float) -> Answer:
        """Run a command there; no shell reads its words."""
        ...

    def send(self, source: Path, path: str, *, seconds: float) -> None:
        """Copy a file of this machine to a path there."""
        ...


class Deadline:
    """The time that is left for all steps together."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the end; RemoteError once there are none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise timed_out(self.seconds)
        return left


def timed_out(seconds: float) -> RemoteError:
    """The error of a device that took too long."""
    return RemoteError(f"the device did not finish within {seconds:.0f} s; allow more time, or see whether it hangs")


def execute(command: Sequence[str], *, seconds: float, source: Path | None = None) -> Answer:
    """Run a client program of this machine, a file as its standard input; whatever it started ends with it.

    Raises RemoteError when the program is not here, and TimeoutError when it takes longer.
    """
    with open(source or os.devnull, "rb") as stdin:
        try:
            # A session of its own: programs that the client starts (a proxy) are ended with it. Messages in English.
            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C"},
            )
        except FileNotFoundError as error:
            raise RemoteError(f"the program {command[0]} is needed on this machine and not on its PATH") from error
        with process:
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired as error:
                raise TimeoutError(f"{command[0]} took longer than {seconds:.0f} s") from error
            finally:
                with suppress(ProcessLookupError):
                    if process.poll() is None:
                        os.killpg(process.pid, signal.SIGKILL)
    return Answer(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
