"""Which device to measure on, as the command line names it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# No part may begin with a dash: ssh and adb would take it as an option.
SSH = re.compile(
    r"ssh://(?:(?P<user>\w[\w.-]*)@)?(?P<host>\w[\w.-]*|\[[0-9A-Fa-f:.]+(?:%\w+)?\])(?::(?P<port>\d{1,5}))?/?", re.ASCII
)
ADB = re.compile(r"adb:(?P<serial>\w[\w.:-]*)?", re.ASCII)


@dataclass(frozen=True)
class Target:
    """A device, and what is to be used there.

    `host` is a name or address that ssh knows, or the serial number of an Android device, empty where there is but one.
    `python` is the interpreter on the device, `runner` a file here: ExecuTorch's `executor_runner` built for the
    device. `ssh_config` is a configuration file for ssh (its `-F`).
    """

    scheme: str
    host: str
    user: str | None = None
    port: int | None = None
    python: str = "python3"
    runner: Path | None = None
    ssh_config: Path | None = None

    def __str__(self) -> str:
        if self.scheme == "adb":
            return f"adb:{self.host}"
        return f"ssh://{self.user + '@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"


def parse_target(
    text: str, *, python: str = "python3", runner: Path | None = None, ssh_config: Path | None = None
) -> Target:
    """The device named by `ssh://[user@]host[:port]` or `adb:[SERIAL]`.

    Raises ValueError for any other text, and FileNotFoundError for a runner or configuration that is not there.
    """
    for path, what in ((runner, "runner"), (ssh_config, "ssh configuration")):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"there is no {what} {path}; look at the path")
    if not python or python.startswith("-"):
        raise ValueError(f"python must name an interpreter on the device, got {python!r}; give python3 or a path")
    if found := SSH.fullmatch(text):
        port = int(found["port"]) if found["port"] else None
        if port is None or 0 < port < 2**16:
            return Target("ssh", found["host"], found["user"], port, python, runner, ssh_config)
    elif found := ADB.fullmatch(text):
        if ssh_config is not None:
            raise ValueError(f"an ssh configuration is for ssh:// targets, got {text!r}; leave it out")
        return Target("adb", found["serial"] or "", python=python, runner=runner)
    raise ValueError(f"a target is ssh://[user@]host[:port] or adb:[SERIAL], got {text!r}; give one such as ssh://pi")
