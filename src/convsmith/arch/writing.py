"""Files that are there whole or not at all, and places that are told to be no good before anything is computed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all: temporary name, flushed to the disk, renamed."""
    write_whole_bytes(path, text.encode("utf-8"))


def write_whole_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all: temporary name, flushed to the disk, renamed.

    Raises ValueError for a device or pipe, in whose place the file would come.
    """
    _refuse_device(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def check_writable(path: Path) -> None:
    """Raise ValueError where no file of this name can be written; asked before what it shall hold is computed."""
    if path.is_dir():
        raise ValueError(f"the path must name a file, and {path} is a folder; add a file name")
    _refuse_device(path)
    _check_place(path, path.parent)


def check_takes_files(folder: Path) -> None:
    """Raise ValueError where no files could be put into a folder of this name, which need not be there yet."""
    _check_place(folder, folder)


def _check_place(path: Path, folder: Path) -> None:
    folder = next(own for own in (folder.absolute(), *folder.absolute().parents) if own.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{path} must lie where files can be written, and {folder} takes none ({error.strerror}); give another path"
        ) from None


def _refuse_device(path: Path) -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"the path must name a file, and {path} is a device or pipe; give another one")
