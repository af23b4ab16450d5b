"""The way to a device by OpenSSH's client, never asking anybody for anything."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from convsmith.measure.remote.target import Target
from convsmith.measure.remote.transport import Answer, RemoteError, execute, timed_out

CONNECT_SECONDS = 10
OPTIONS = (
    "BatchMode=yes",  # no question: neither for a password nor about a host key, which is then refused
    f"ConnectTimeout={CONNECT_SECONDS}",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",  # those of the user's configuration may be taken by another session
)
FAILED = 255  # ssh's own failures; commands are run by a shell of their own, which gives no such code for a signal

# What ssh writes -> what it means, and the remedy; {host} is as the user would name it to ssh.
FAILURES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one known: it is another machine, or was set up anew; if that is expected, "
        "`ssh-keygen -R` removes the old one",
    ),
    (
        r"Host key verification failed|host key is known",
        "its host key is unknown here; connect once by hand with `ssh {host}` and compare the fingerprint",
    ),
    (
        r"Permission denied|Too many authentication failures|No supported authentication",
        "it refused every key; `ssh {host}` must work without a password (see ssh-copy-id and ssh-add)",
    ),
    (r"Could not resolve hostname", "there is no host of that name; look at the name or at ~/.ssh/config"),
    (
        r"Connection (timed out|refused)|Operation timed out|No route to host|Network is unreachable",
        "nothing answers there; see whether the device is on and its ssh server runs",
    ),
    (
        r"closed|reset|Broken pipe|not responding|disconnect",
        "the connection was lost; see whether the device is still on",
    ),
)


class Ssh:
    """Commands are quoted word by word for the login shell of the host."""

    temporary = "${TMPDIR:-/tmp}"

    def __init__(self, target: Target):
        self.target = target

    def run(self, command: Sequence[str], *, seconds: float) -> Answer:
        """Run a command on the host, in the user's home folder."""
        return self._ask(["sh", "-c", '"$@"; exit $?', "sh", *command], seconds=seconds)

    def send(self, source: Path, path: str, *, seconds: float) -> None:
        """Copy a file to the host through the command's standard input, which needs no second server."""
        answer = self._ask(["sh", "-c", 'cat > "$1"', "sh", path], seconds=seconds, source=source)
        if answer.code:
            raise RemoteError(f"{self.target} could not store {source.name} ({answer.reason}); make room there")

    def _ask(self, words: Sequence[str], *, seconds: float, source: Path | None = None) -> Answer:
        target = self.target
        command = ["ssh", "-T", *(part for option in OPTIONS for part in ("-o", option))]
        if target.ssh_config is not None:
            command += ["-F", str(target.ssh_config)]
        if target.port is not None:
            command += ["-p", str(target.port)]
        if target.user is not None:
            command += ["-l", target.user]
        try:
            answer = execute([*command, target.host.strip("[]"), shlex.join(words)], seconds=seconds, source=source)
        except TimeoutError:
            raise timed_out(seconds) from None
        if answer.code == FAILED:
            raise RemoteError(f"{target}: {_meaning(answer, target)}")
        return answer


def _meaning(answer: Answer, target: Target) -> str:
    host = f"{f'-p {target.port} ' if target.port else ''}{target.user + '@' if target.user else ''}{target.host}"
    for pattern, meaning in FAILURES:
        if re.search(pattern, answer.err):
            return f"{meaning.format(host=host)} (ssh: {answer.reason})"
    return f"ssh failed ({answer.reason})"
