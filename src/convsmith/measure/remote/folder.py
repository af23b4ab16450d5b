"""A temporary folder on another device, removed whatever happens."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from convsmith.measure.remote.transport import Deadline, RemoteError, Transport

T = TypeVar("T")

MADE = re.compile(r"/.*/convsmith\.\w{6}")
REMOVAL_SECONDS = 20.0


def in_folder(device: Transport, deadline: Deadline, work: Callable[[str], T]) -> tuple[T, list[str]]:
    """What `work` gives for the path of a new folder on the device, and a warning if the folder could not be removed.

    Raises RemoteError when the device makes no folder, and whatever `work` raises.
    """
    script = f'mktemp -d "{device.temporary}/convsmith.XXXXXX"'
    answer = device.run(["sh", "-c", script], seconds=deadline.left())
    paths = [line.strip() for line in answer.out.splitlines() if MADE.fullmatch(line.strip())]
    if answer.code or not paths:
        raise RemoteError(f"the device could not make a temporary folder ({answer.reason}); make room there")
    path = paths[-1]
    try:
        found = work(path)
    except BaseException as error:
        if not _removed(device, path) and isinstance(error, RemoteError):
            raise RemoteError(f"{error}; {path} is left there") from error
        raise
    return found, [] if _removed(device, path) else [f"{path} on the device could not be removed"]


def _removed(device: Transport, path: str) -> bool:
    with suppress(RemoteError):
        return device.run(["rm", "-rf", path], seconds=REMOVAL_SECONDS).code == 0
    return False
