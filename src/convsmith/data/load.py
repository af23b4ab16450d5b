"""Data sets by name or by folder: what `--data` means on every command line."""

from difflib import get_close_matches
from pathlib import Path

from convsmith.data.cluttered_digits import cluttered_digits
from convsmith.data.dataset import DataSet
from convsmith.data.digits import digits

BUNDLED = {"digits": digits, "cluttered_digits": cluttered_digits}
TORCHVISION = "torchvision:"


def load(name: str, *, input_size: int | None = None, seed: int = 0, root: str | Path | None = None) -> DataSet:
    """Open a data set, with splits fixed by `seed`.

    Args:
        name: "digits", "cluttered_digits", a folder of images (`./digits` for one with a name of these), or
            "torchvision:NAME" for a classification set of torchvision.
        input_size: Side in pixels to which images are resized; None is 224 for files, and the set's own size where
            images have one. The bundled sets have no other.
        seed: Fixes which image is in which split, and what generated images look like.
        root: Folder under which a torchvision set lies; None is `data`.

    Raises:
        ValueError: for an unknown name, a wrong number, or data that cannot be used (see `folder`).
        FileNotFoundError: when a folder or a torchvision set is not there.
        ImportError: when a set needs an extra that is not installed.
    """
    if input_size is not None and input_size < 1:
        raise ValueError(f"input_size must be a positive integer, got {input_size}")
    if root is not None and not name.startswith(TORCHVISION):
        raise ValueError(f"root is for torchvision:NAME only, got {str(root)!r} with {name!r}; leave it out")
    if name in BUNDLED:
        data = BUNDLED[name](seed=seed)
        if input_size not in (None, data.input_shape[1]):
            raise ValueError(
                f"images of {name} are {data.input_shape[1]} pixels wide, got {input_size=}; leave input_size out"
            )
        return data
    # the two modules below load all of torchvision's transforms, which the bundled sets do without
    if name.startswith(TORCHVISION):
        from convsmith.data.torchvision_sets import torchvision_set

        place = Path("data" if root is None else root).expanduser()
        return torchvision_set(name.removeprefix(TORCHVISION), root=place, input_size=input_size, seed=seed)
    path = Path(name).expanduser()
    if path.exists() or "/" in name:
        from convsmith.data.folder import folder

        return folder(path, input_size=input_size or 224, seed=seed)
    close = get_close_matches(name, [*BUNDLED, TORCHVISION])
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise ValueError(
        f"unknown data {name!r}, and no such folder; {hint}"
        f"possible are {', '.join(BUNDLED)}, the path of a folder with one sub-folder per class, or torchvision:NAME"
    )
