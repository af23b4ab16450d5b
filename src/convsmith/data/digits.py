"""The handwritten digits that come with scikit-learn.

Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
doi:10.24432/C50P49: 1797 images of 8x8 pixels with 17 grey levels, black background.
"""

import torch
from torch import Tensor

from convsmith.data.array_split import array_splits
from convsmith.data.dataset import DataSet, checksum, fingerprint
from convsmith.data.splitting import cut

CLASS_NAMES = tuple("0123456789")


def digits(*, seed: int = 0) -> DataSet:
    """Digits, 1x8x8: about 60 % train, 15 % validation, 25 % test, so that one test image is a quarter of a point."""
    images, labels = digit_images()
    parts = [
        (images[indices], labels[indices], [(digit_source(index),) for index in indices])
        for indices in digit_splits(labels, seed=seed)
    ]
    train, validation, test = array_splits(parts, flip=False)
    return DataSet(
        name="digits",
        input_shape=(1, 8, 8),
        class_names=CLASS_NAMES,
        fingerprint=fingerprint("digits", seed, checksum(images), checksum(labels)),
        train=train,
        validation=validation,
        test=test,
    )


def digit_images() -> tuple[Tensor, Tensor]:
    """All images (1797, 1, 8, 8) uint8 with values 0 to 16, and labels (1797,) int64, in scikit-learn's order."""
    from sklearn.datasets import load_digits  # 1 s to import, for this function only

    pixels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 8, 8), torch.from_numpy(labels).to(torch.int64)


def digit_splits(labels: Tensor, *, seed: int) -> list[list[int]]:
    """Indices of the train, validation and test digits; every set made of these digits splits them so."""
    parts = cut(list(enumerate(labels.tolist())), (0.15, 0.25), seed=seed, class_names=CLASS_NAMES)
    return [[index for index, _ in part] for part in parts]


def digit_source(index: int) -> str:
    """Name of a digit in `Split.sources`: its place in scikit-learn's order."""
    return f"digits/{index}"
