"""Image folders: `root/class/image.jpg`, or `root/{train,val,test}/class/image.jpg`."""

import io
import os
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from convsmith.data.dataset import DataSet, fingerprint
from convsmith.data.image_split import ImageSplit
from convsmith.data.splitting import Labelled, complete

PART_NAMES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def folder(root: Path, *, input_size: int = 224, seed: int = 0) -> DataSet:
    """Images of a folder with one sub-folder per class, in RGB at `input_size`.

    Sub-folders called train, val (or valid, validation) and test are taken as these splits; what is missing of
    them is cut as `splitting.complete` says. Every image is decoded once here, so that training meets no broken one.
    Files that are no images by their ending, and hidden ones, are passed over.

    Raises:
        FileNotFoundError: when `root` does not exist.
        ValueError: for a file in place of a folder, a broken image, a class without images or with too few to be split,
            fewer than two classes, a class that train does not have.
    """
    if not root.exists():
        raise FileNotFoundError(f"the data folder must exist, got {root}; check the path")
    if not root.is_dir():
        raise ValueError(f"a data set is a folder with one sub-folder per class, got the file {root}; pass its folder")
    part_folders = find_parts(root)
    class_names = [path.name for path in subfolders(part_folders["train"])]
    if len(class_names) < 2:
        raise ValueError(
            f"a data set needs at least two class folders, got {len(class_names)} in {part_folders['train']}; "
            "arrange the images as FOLDER/CLASS/IMAGE"
        )
    parts = {name: list_images(path, class_names) for name, path in part_folders.items()}
    places = [str(part_folders["train"] / name) for name in class_names]
    splits = complete(parts, seed=seed, class_names=places)
    checksums = verify(path for part in parts.values() for path, _ in part)
    contents = tuple(
        (name, tuple((path.relative_to(root).as_posix(), checksums[path]) for path, _ in items))
        for name, items in splits.items()
    )
    made = {
        name: ImageSplit(
            Files([path for path, _ in items]),
            torch.tensor([label for _, label in items]),
            [(str(path),) for path, _ in items],
            input_size=input_size,
            channels=3,
            flip=True,
        )
        for name, items in splits.items()
    }
    return DataSet(
        name=str(root.resolve()),
        input_shape=(3, input_size, input_size),
        class_names=tuple(class_names),
        fingerprint=fingerprint("folder", input_size, contents),  # not the path: a moved folder is the same data
        train=made["train"],
        validation=made["validation"],
        test=made["test"],
    )


def subfolders(path: Path) -> list[Path]:
    """Folders in a folder, sorted, without hidden ones."""
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def find_parts(root: Path) -> dict[str, Path]:
    """Folders of the splits that `root` brings along; a folder of classes is all train."""
    found = subfolders(root)
    if not found or any(path.name not in PART_NAMES for path in found):
        return {"train": root}
    parts = {PART_NAMES[path.name]: path for path in found}
    if len(parts) < len(found) or "train" not in parts:
        names = ", ".join(path.name for path in found)
        raise ValueError(
            f"a folder of splits needs train and at most one each of val and test, got {names} in {root}; rename them"
        )
    return parts


def list_images(part: Path, class_names: Sequence[str]) -> list[Labelled[Path]]:
    """Images of a split with the number of their class, sorted by path."""
    items: list[Labelled[Path]] = []
    for class_folder in subfolders(part):
        if class_folder.name not in class_names:
            raise ValueError(f"every class must also be in train, got {class_folder}; remove it or add it to train")
        paths = sorted(
            Path(place, name)
            for place, _, names in os.walk(class_folder, followlinks=True)
            for name in names
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        )
        if not paths:
            raise ValueError(
                f"every class folder must hold images ({', '.join(EXTENSIONS)}), got none in {class_folder}; "
                "add images or remove the folder"
            )
        label = class_names.index(class_folder.name)
        items += [(path, label) for path in paths]
    return items


def verify(paths: Iterable[Path]) -> dict[Path, int]:
    """Decode every image, and return the CRC-32 of every file."""

    def check(path: Path) -> int | str:
        try:
            state = path.stat()
            return decoded_checksum(path, state.st_size, state.st_mtime_ns)
        except Exception as error:  # decoders fail in many ways; whatever it is, the image cannot be used
            return f"{path} ({error})"

    listed = list(paths)
    with ThreadPoolExecutor() as threads:  # decoding releases the interpreter lock
        results = dict(zip(listed, threads.map(check, listed), strict=True))
    broken = [result for result in results.values() if isinstance(result, str)]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise ValueError(f"every image must decode, got broken: {'; '.join(broken[:3])}{more}; replace or remove it")
    return {path: result for path, result in results.items() if isinstance(result, int)}


@cache
def decoded_checksum(path: Path, size: int, mtime_ns: int) -> int:
    """CRC-32 of a file whose image decodes; remembered while size and time of change stay the same."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (1, 1))  # a JPEG is read to its end, but at an eighth of its size
        to_eight_bits(image)
    return zlib.crc32(content)


class Files:
    """Image files, decoded one by one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __getitem__(self, index: int) -> Image.Image:
        with Image.open(self.paths[index]) as image:
            return to_eight_bits(image)


def to_eight_bits(image: Image.Image) -> Image.Image:
    """An image in RGB, whatever its mode; of sixteen bits the upper eight are kept, where Pillow alone would clip."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels must have 8 or 16 bits, got mode {image.mode!r}; convert it to 8 bits")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns when the palette's transparency is dropped in one step
    return image.convert("RGB")
