"""How long exported files take on another device, timed as the clock times them here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from convsmith.deploy.clock import check_positive
from convsmith.deploy.timed import timed
from convsmith.measure.remote import executorch, onnx
from convsmith.measure.remote.adb import Adb
from convsmith.measure.remote.folder import in_folder
from convsmith.measure.remote.result import Found, RemoteLatency, Settings
from convsmith.measure.remote.ssh import Ssh
from convsmith.measure.remote.target import Target, parse_target
from convsmith.measure.remote.transport import Deadline, Transport

FORMATS = (".onnx", ".pte")
TRANSPORTS: dict[str, Callable[[Target], Transport]] = {"ssh": Ssh, "adb": Adb}


def remote_latency(
    files: Mapping[str, str | Path],
    target: Target | str,
    *,
    batch: int = 1,
    threads: int = 1,
    rounds: int = 20,
    budget_seconds: float = 5.0,
    timeout_seconds: float = 600.0,
) -> dict[str, RemoteLatency]:
    """The time of one forward pass of several exported networks on another device, taken in turns.

    ONNX models run in ONNX Runtime's Python there, on normal noise; ExecuTorch programs in ExecuTorch's
    `executor_runner`, on ones. Nothing is installed; what is sent lies in a temporary folder that is removed
    afterwards, also after a failure. Host keys are checked as ssh is set up to, and nobody is asked for a password.

    Args:
        files: The files, by the name that their result gets; all `.onnx`, or all `.pte` with a runner in the target.
        target: `ssh://[user@]host[:port]` or `adb:[SERIAL]`, or what `parse_target` makes of it with more settings.
        batch: Images in one pass; a `.pte` file has its own, and 1 is what may be said of it here.
        threads: How many threads compute; they are held on as many cores where the device allows it.
        rounds: Samples of each network.
        budget_seconds: Time per network after which no further round starts; three rounds are always made.
        timeout_seconds: Time for everything, the sending included.

    Raises ValueError and FileNotFoundError for wrong arguments before the device is asked, and RemoteError for a device
    that cannot be reached, lacks the runtime, fails, or takes too long.
    """
    paths = {name: Path(path) for name, path in files.items()}
    place = parse_target(target) if isinstance(target, str) else target
    for name, value in (("batch", batch), ("threads", threads), ("rounds", rounds)):
        check_positive(name, value)
    for name, seconds in (("budget_seconds", budget_seconds), ("timeout_seconds", timeout_seconds)):
        if not 0 < seconds < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {seconds}")
    format = _checked(paths, place, batch)
    device = TRANSPORTS[place.scheme](place)
    deadline = Deadline(timeout_seconds)
    settings = Settings(batch, threads, rounds, budget_seconds)

    def work(folder: str) -> Found:
        if format == ".pte":
            assert place.runner is not None
            return executorch.measure(device, folder, paths, runner=place.runner, settings=settings, deadline=deadline)
        return onnx.measure(device, folder, paths, python=place.python, settings=settings, deadline=deadline)

    found, left = in_folder(device, deadline, work)
    results = timed(found.timings, found.conditions, threads=threads)
    return {
        name: RemoteLatency(
            **{**vars(result), "warnings": (*result.warnings, *left)},
            target=str(place),
            device=found.device,
            runtime=found.runtime,
            batch=batch if format == ".onnx" else None,
            file_bytes=paths[name].stat().st_size,
        )
        for name, result in results.items()
    }


def check_reachable(target: Target, *, timeout_seconds: float) -> None:
    """Ask the device for a sign of life; RemoteError says why there is none, and what to do."""
    TRANSPORTS[target.scheme](target).run(["true"], seconds=timeout_seconds)


def _checked(paths: Mapping[str, Path], target: Target, batch: int) -> str:
    """The files' common format; ValueError where they have none or it does not fit the rest."""
    if not paths:
        raise ValueError("remote_latency needs at least one file, got none; give a mapping of name to path")
    for path in paths.values():
        if path.suffix not in FORMATS:
            raise ValueError(f"files must be {' or '.join(FORMATS)} to run on another device, got {path}; export it")
        if not path.is_file():
            raise FileNotFoundError(
                f"files to run on another device must be here, and there is no file {path}; look at the path, or write "
                "it with `convsmith export`"
            )
    formats = sorted({path.suffix for path in paths.values()})
    if len(formats) > 1:
        raise ValueError(
            f"files that take turns must be of one format, got {' and '.join(formats)}; measure them apart"
        )
    if formats == [".pte"] and target.runner is None:
        raise ValueError(".pte files need a runner: ExecuTorch's executor_runner, built for the device")
    if formats == [".pte"] and batch != 1:
        raise ValueError(f"a .pte file has its batch in it, and {batch} is asked for; export it for that batch")
    return formats[0]
