"""Networks of the command line measured on another device: files as they are, others exported for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from convsmith.cli.output import say
from convsmith.cli.subjects import Subject, subjects

if TYPE_CHECKING:
    from convsmith.cli.sizes import Size
    from convsmith.measure import Target

FILES = (".onnx", ".pte")


def measured_elsewhere(
    names: Sequence[str], target: Target, *, input_size: Size | None, settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The times of networks and files on a device, taken in turns, as plain data.

    Args:
        names: What `subjects` takes, and names of `.onnx` and `.pte` files.
        target: The device.
        input_size: Size of the input of the networks that are exported (default: their own).
        settings: Further arguments of `measure.remote_latency`.
    """
    from convsmith import measure

    for name in names:
        if name.endswith(FILES) and not Path(name).is_file():
            raise FileNotFoundError(
                f"files to run on another device must be here, and there is no file {name}; look at the path, or write "
                "it with `convsmith export`"
            )
    # Names first, then the device: an export takes seconds, and would be for nothing.
    known = {name: [] if name.endswith(FILES) else subjects([name]) for name in names}
    if any(known.values()):
        measure.check_reachable(target, timeout_seconds=settings["timeout_seconds"])
    with TemporaryDirectory(prefix="convsmith") as folder:
        files: dict[str, Path] = {}
        for name, found in known.items():
            if not found:
                files[name] = Path(name)
            for subject in found:
                files[subject.name] = _exported(subject, Path(folder) / f"{len(files)}.onnx", input_size)
        measured = measure.remote_latency(files, target, **settings)
    return [{"name": name, **dataclasses.asdict(own)} for name, own in measured.items()]


def refuse_local(settings: Mapping[str, tuple[object, object]]) -> None:
    """Raise ValueError for an option (name -> value, default) that is given and means nothing on another device."""
    for name, (value, default) in settings.items():
        if value != default:
            raise ValueError(f"--{name} is for this device, and --target names another; leave it out, got {value!r}")


def refuse_files(names: Sequence[str]) -> None:
    """Raise ValueError for exported files, which only another device's runtime is given."""
    for name in names:
        if name.endswith(FILES):
            raise ValueError(
                f"exported files are run on the device of --target, and none is given for {name}; give one"
            )


def _exported(subject: Subject, path: Path, input_size: Size | None) -> Path:
    import torch

    from convsmith import deploy

    example = torch.randn(subject.shape(2, input_size), generator=torch.Generator().manual_seed(0))
    say(f"exporting {subject.name}")
    deploy.export(subject.build(), path, example)
    return path
