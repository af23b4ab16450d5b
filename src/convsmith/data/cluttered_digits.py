"""Handwritten digits pasted at random place, scale and rotation onto patches of photographs.

The digits are scikit-learn's, the photographs those inside the scikit-image package. Nothing is downloaded.
"""

import math
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F

from convsmith.data.array_split import array_splits
from convsmith.data.dataset import DataSet, fingerprint
from convsmith.data.digits import CLASS_NAMES, digit_images, digit_source, digit_splits
from convsmith.data.splitting import cut

# Photographs by texture, so that each split gets its share of every kind. Not used of the package: drawings, the second
# view of the motorcycle, and what shows numerals or letters of its own (clock_motion, page, text).
PHOTOS = {
    "smooth": ("cell.png", "ihc.png", "moon.png", "retina.jpg", "rocket.jpg"),
    "objects": ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png"),
    "textured": ("brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "motorcycle_left.png"),
}

IMAGE_COUNTS = (10_000, 2_000, 2_000)  # train, validation, test
SIDE = 32
PHOTO_SIDE = 192  # shorter side to which a photograph is reduced: a patch then shows objects rather than surface
DIGIT_SIDE = (14.0, 26.0)  # pixels
MAX_ROTATION = math.radians(30)  # a six must not become a nine
CONTRAST = (0.3, 0.8)  # least and largest distance of the ink from the patch's mean, of the full range
OPACITY = (0.8, 1.0)


def cluttered_digits(*, seed: int = 0) -> DataSet:
    """Cluttered digits, 3x32x32: 10,000 train, 2,000 validation and 2,000 test images made from `seed`.

    A handwritten digit and a photograph each serve one split only: 60 / 15 / 25 % of the digits, the same as in
    `digits` with the same seed, and 9 / 3 / 3 photographs.

    Raises:
        ImportError: when scikit-image is not installed.
        FileNotFoundError: when a photograph is missing from it.
    """
    folder = photo_folder()
    digits, labels = digit_images()
    kinds = [(folder / name, kind) for kind, names in enumerate(PHOTOS.values()) for name in names]
    photo_splits = cut(kinds, (0.2, 0.2), seed=seed, class_names=tuple(PHOTOS))
    parts = []
    for number, (indices, photos) in enumerate(zip(digit_splits(labels, seed=seed), photo_splits, strict=True)):
        generator = torch.Generator().manual_seed(seed * len(IMAGE_COUNTS) + number)
        count = IMAGE_COUNTS[number]
        digit = torch.tensor(indices)[torch.arange(count) % len(indices)]  # each digit equally often
        photo = torch.randint(len(photos), (count,), generator=generator)
        patches = photo_patches([path for path, _ in photos], photo, generator)
        names = [f"photo/{path.name}" for path, _ in photos]
        sources = [(digit_source(i), names[j]) for i, j in zip(digit.tolist(), photo.tolist(), strict=True)]
        parts.append((paste(digits[digit] / 16, patches, generator), labels[digit], sources))
    train, validation, test = array_splits(parts, flip=False)
    photo_checksums = tuple(zlib.crc32(path.read_bytes()) for path, _ in kinds)
    return DataSet(
        name="cluttered_digits",
        input_shape=(3, SIDE, SIDE),
        class_names=CLASS_NAMES,
        # the ingredients rather than the pixels: rounding may differ by a grey level between processors
        fingerprint=fingerprint("cluttered_digits/1", seed, IMAGE_COUNTS, photo_checksums),
        train=train,
        validation=validation,
        test=test,
    )


def photo_folder() -> Path:
    """Folder of the photographs inside scikit-image, found without importing the package."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise ImportError(
            "cluttered_digits needs the photographs of scikit-image, which is not installed; "
            "run: pip install 'convsmith[photos]'"
        )
    folder = Path(package.origin).parent / "data"
    for name in sum(PHOTOS.values(), ()):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"cluttered_digits needs the photograph {folder / name}, which is missing; "
                "reinstall scikit-image: pip install --force-reinstall 'convsmith[photos]'"
            )
    return folder


def photo_patches(paths: list[Path], photo: Tensor, generator: Generator) -> Tensor:
    """Patches (N, 3, 32, 32) in 0 ... 1 at random places of the photographs `paths[photo]`, half of them mirrored."""
    place = torch.rand((2, len(photo)), generator=generator)
    mirrored = torch.rand((len(photo), 1, 1, 1), generator=generator) < 0.5
    patches = torch.empty(len(photo), SIDE, SIDE, 3, dtype=torch.uint8)
    window = torch.arange(SIDE)
    for number, path in enumerate(paths):
        members = photo == number
        pixels = reduced_photo(path)
        room = torch.tensor(pixels.shape[:2]).view(2, 1) - SIDE + 1
        top, left = (place[:, members] * room).long()
        rows, columns = top.view(-1, 1, 1) + window.view(1, -1, 1), left.view(-1, 1, 1) + window.view(1, 1, -1)
        patches[members] = pixels[rows, columns]
    patches = patches.permute(0, 3, 1, 2) / 255
    return torch.where(mirrored, patches.flip(-1), patches)


def reduced_photo(path: Path) -> Tensor:
    """A photograph (H, W, 3) uint8 with a shorter side of 192 pixels; a grey one in three equal channels."""
    with Image.open(path) as photo:
        scale = PHOTO_SIDE / min(photo.size)
        size = (round(photo.width * scale), round(photo.height * scale))
        return torch.from_numpy(np.array(photo.convert("RGB").resize(size, Image.Resampling.BOX)))


def paste(digits: Tensor, patches: Tensor, generator: Generator) -> Tensor:
    """Images (N, 3, 32, 32) uint8: digits (N, 1, 8, 8) in 0 ... 1 drawn onto patches in 0 ... 1.

    The ink is the patch's mean colour, moved away from it in the direction with more room and tinted.
    """
    count = len(digits)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((count, *shape), generator=generator)

    scale = uniform(*DIGIT_SIDE) / SIDE
    angle = uniform(-MAX_ROTATION, MAX_ROTATION)
    centre = uniform(-1, 1, 2, 1) * (1 - scale).view(-1, 1, 1)
    cosine, sine = angle.cos(), angle.sin()
    # from the place in the image to the place in the digit: move back, rotate back, scale back
    linear = torch.stack([cosine, sine, -sine, cosine], dim=1).view(-1, 2, 2) / scale.view(-1, 1, 1)
    theta = torch.cat([linear, -linear @ centre], dim=2)
    grid = F.affine_grid(theta, [count, 1, SIDE, SIDE], align_corners=False)
    mask = F.grid_sample(digits, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    mean = patches.mean(dim=(2, 3), keepdim=True)
    direction = torch.where(mean.mean(dim=1, keepdim=True) < 0.5, 1.0, -1.0)
    ink = (mean + direction * uniform(*CONTRAST, 1, 1, 1) + uniform(-0.15, 0.15, 3, 1, 1)).clamp(0, 1)
    images = torch.lerp(patches, ink.expand_as(patches), mask * uniform(*OPACITY, 1, 1, 1))
    return (images * 255).round().to(torch.uint8)
