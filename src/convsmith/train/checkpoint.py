"""Checkpoints: one file per epoch, whole or not at all, the last two kept, read without running code."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from convsmith.arch import write_whole_bytes

KEPT = 2  # the newest, and the one before in case the newest cannot be read
NAME = re.compile(r"epoch_(\d+)\.pt")


def save_checkpoint(folder: Path, epoch: int, state: dict[str, Any]) -> None:
    """Write `state`, tensors in plain containers, as the checkpoint of an epoch, and remove the older ones but one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole_bytes(folder / f"epoch_{epoch:04}.pt", buffer.getvalue())
    for path in _by_age(folder)[KEPT:]:
        path.unlink()


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, its tensors on the CPU; None where there are none.

    What a killed process left half-written is removed. A damaged checkpoint is passed over with a warning.

    Raises:
        ValueError: when there are checkpoints and all of them are damaged.
    """
    for leftover in folder.glob(".epoch_*"):
        leftover.unlink()
    checkpoints = _by_age(folder)
    for path in checkpoints:
        try:
            return _read(path)
        except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            reason = str(error).partition("\n")[0]
            warnings.warn(f"{path} is damaged ({reason}) and passed over", RuntimeWarning, stacklevel=2)
    if checkpoints:
        raise ValueError(f"every checkpoint in {folder} is damaged; remove {folder.parent} to start anew")
    return None


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:  # torch's format; torch itself does not look at the checksums
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"wrong checksum of {damaged}")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _by_age(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    found = [(int(match[1]), path) for path in folder.glob("*.pt") if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]
