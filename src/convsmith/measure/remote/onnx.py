"""ONNX models timed by ONNX Runtime's Python on another device, with the clock of this machine sent along."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from convsmith.deploy import conditions, rounds
from convsmith.deploy.rounds import Timing
from convsmith.measure.remote.on_device import MARK
from convsmith.measure.remote.result import Found, Settings
from convsmith.measure.remote.transport import Answer, Deadline, RemoteError, Transport

# What the device gets of this package: each imports nothing but the standard library and the others.
SENT = ("deploy/rounds.py", "deploy/cores.py", "deploy/conditions.py", "measure/remote/on_device.py")
MAIN = """import sys
if sys.version_info < (3, 9):
    print('\\n{mark}{{"error": "Python 3.9 or newer is needed, and this is %d.%d"}}' % sys.version_info[:2])
else:
    from convsmith.measure.remote.on_device import main
    main()
"""
NOT_FOUND = (126, 127)  # a shell's codes for a command that is not there or cannot be run
KILLED = 128 + 9


def measure(
    device: Transport, folder: str, models: Mapping[str, Path], *, python: str, settings: Settings, deadline: Deadline
) -> Found:
    """Send the clock, see that it runs there, send the models, and have them timed in turns.

    Raises RemoteError for a device without Python or onnxruntime, for what goes wrong there and for any other answer.
    """
    clock = f"{folder}/clock.pyz"
    with TemporaryDirectory() as local:
        path = Path(local, "clock.pyz")
        path.write_bytes(archive())
        device.send(path, clock, seconds=deadline.left())
    asked = {**vars(settings), "models": {}, "seconds": deadline.left()}
    # What onnxruntime leaves among the temporary files goes with the folder.
    command = ["env", f"TMPDIR={folder}", _in_home(python), clock]
    about = _run(device, [*command, json.dumps(asked)], python, deadline)
    paths = {name: f"{folder}/{index}.onnx" for index, name in enumerate(models)}
    for name, model in models.items():
        device.send(model, paths[name], seconds=deadline.left())
    asked = {**asked, "models": paths, "seconds": deadline.left()}
    result = _run(device, [*command, json.dumps(asked)], python, deadline)
    try:
        timings = {name: _timing(*result["timings"][name]) for name in models}
        if len({len(timing.samples_ms) for timing in timings.values()}) > 1:
            raise ValueError("series of different length")
        return Found(timings, conditions.from_json(result["conditions"]), str(about["device"]), str(about["runtime"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RemoteError(f"the device's answer lacks what was asked for ({error!r}); measure again") from error


def _timing(samples_ms: list[float], calls_per_round: int) -> Timing:
    if not all(0 < sample < math.inf for sample in samples_ms):
        raise ValueError("a time that is not positive")
    return rounds.timing(samples_ms, calls_per_round)


def archive() -> bytes:
    """A zip file that Python runs: the clock, and no other part of this package."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("__main__.py", MAIN.format(mark=MARK))
        for folder in sorted(
            {str(Path("convsmith", name).parent) for name in SENT} | {"convsmith", "convsmith/measure"}
        ):
            packed.writestr(f"{folder}/__init__.py", "")
        for name in SENT:
            packed.writestr(f"convsmith/{name}", files("convsmith").joinpath(name).read_bytes())
    return buffer.getvalue()


def _run(device: Transport, command: list[str], python: str, deadline: Deadline) -> dict[str, Any]:
    answer = device.run(command, seconds=deadline.left())
    if answer.code in NOT_FOUND:
        raise RemoteError(
            f"Python is needed on the device, and {python} does not run there ({answer.reason}); install it, or name "
            "another interpreter"
        )
    if answer.code == KILLED:
        raise RemoteError(
            "the device ended the measurement by force, as it does when memory runs out; use fewer models"
        )
    document = _parsed(answer)
    if "missing" in document:
        raise RemoteError(
            f"{document['missing']} is missing in the device's Python; run `{python} -m pip install onnxruntime` "
            "there, or name another interpreter"
        )
    if "error" in document:
        raise RemoteError(f"the device could not measure: {document['error']}")
    return document


def _parsed(answer: Answer) -> dict[str, Any]:
    """The document behind the last mark; whatever else a login shell or a library prints is passed over."""
    text = answer.out.rpartition(f"\n{MARK}")[2] if f"\n{MARK}" in answer.out else ""
    try:
        document = json.loads(text.partition("\n")[0])
    except json.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise RemoteError(f"the device gave no result but: {answer.reason!r}; run a command there by hand and see")
    return document


def _in_home(python: str) -> str:
    """Commands start in the home folder, and no shell expands their words."""
    return f".{python[1:]}" if python.startswith("~/") else python
