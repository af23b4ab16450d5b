"""The way to an Android device by the Android debug bridge's client."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from convsmith.measure.remote.target import Target
from convsmith.measure.remote.transport import Answer, RemoteError, execute, timed_out

EXIT = "CONVSMITH-EXIT"  # before Android 7 the client gave no exit code of the command

# What adb writes -> what it means, and the remedy.
FAILURES = (
    (r"no devices|device '.*' not found|device not found", "no such device is connected; `adb devices` lists them"),
    (r"more than one device", "several devices are connected; name one as adb:SERIAL (`adb devices` lists them)"),
    (r"unauthorized", "the device does not trust this machine; confirm its question about debugging"),
    (r"offline", "the device does not answer; connect it again"),
    (r"closed|protocol fault|connection reset|no longer", "the connection was lost; connect the device again"),
)


class Adb:
    """Commands are quoted word by word for the device's shell."""

    temporary = "/data/local/tmp"

    def __init__(self, target: Target):
        self.target = target

    def run(self, command: Sequence[str], *, seconds: float) -> Answer:
        """Run a command on the device."""
        answer = self._ask(["shell", f"{shlex.join(command)}; printf '\\n{EXIT} %d\\n' $?"], seconds=seconds)
        out, mark, code = answer.out.replace("\r\n", "\n").rpartition(f"\n{EXIT} ")
        if not mark or not code.strip().isdigit():
            raise RemoteError(f"{self.target}: {_meaning(answer, 'the connection was lost; connect the device again')}")
        return Answer(int(code), out, answer.err)

    def send(self, source: Path, path: str, *, seconds: float) -> None:
        """Copy a file to the device."""
        answer = self._ask(["push", str(source), path], seconds=seconds)
        if answer.code:
            stored = f"{self.target} could not store {source.name} ({answer.reason}); make room there"
            raise RemoteError(_meaning(answer, stored))

    def _ask(self, arguments: Sequence[str], *, seconds: float) -> Answer:
        serial = ["-s", self.target.host] if self.target.host else []
        try:
            return execute(["adb", *serial, *arguments], seconds=seconds)
        except TimeoutError:
            raise timed_out(seconds) from None


def _meaning(answer: Answer, otherwise: str) -> str:
    for pattern, meaning in FAILURES:
        if answer.code and re.search(pattern, answer.err):
            return f"{meaning} (adb: {answer.reason})"
    return otherwise
