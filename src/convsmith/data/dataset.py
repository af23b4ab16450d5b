"""What training and search see of data: three splits, each a source of reproducible batches."""

import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

Sources = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class DataSet:
    """A classification data set in three splits that share no source image.

    `input_shape` is `(C, H, W)`. `name` is what `load` was given, in canonical form. `fingerprint` is a short hash of
    what the splits hold (images, labels, sizes, split seed); a resumed run compares it, and refuses other data.
    """

    name: str
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    fingerprint: str
    train: "Split" = field(repr=False)
    validation: "Split" = field(repr=False)
    test: "Split" = field(repr=False)

    @property
    def num_classes(self) -> int:
        """Number of classes; labels are `0 ... num_classes - 1`."""
        return len(self.class_names)


class Split(Dataset[tuple[Tensor, int]], ABC):
    """Labelled images with a length; an index gives one normalised image (C, H, W), never augmented, and its label.

    `labels` is (N,) int64. `sources[i]` names what image `i` was made from: a file, an item of another set, or the
    digit and the photograph of a generated image. Two splits of one data set have no source in common.
    """

    def __init__(self, labels: Tensor, sources: Sequence[tuple[str, ...]]) -> None:
        self.labels = labels.to(torch.int64)
        self.sources: Sources = tuple(sources)

    def __len__(self) -> int:
        return len(self.labels)

    def num_batches(self, batch_size: int, drop_last: bool = False) -> int:
        """Number of batches that `batches` yields."""
        return len(self) // batch_size if drop_last else -(-len(self) // batch_size)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        augment: bool = False,
        drop_last: bool = False,
        workers: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the split: normalised images (N, C, H, W) float32 and labels (N,) int64.

        Order and augmentation are functions of `shuffle_seed` alone, and those of one image do not depend on the batch
        size, on the number of workers or on the global generators, which stay as they are. Without a seed the
        order is that of the split. `workers` processes decode images; splits held in memory need none.

        Raises:
            ValueError: for a batch size below 1, negative workers, or augmentation without a seed.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be a positive integer, got {batch_size}")
        if workers < 0:
            raise ValueError(f"workers must be 0 (decode in this process) or more, got {workers}")
        if augment and shuffle_seed is None:
            raise ValueError("augment=True needs a shuffle_seed, got None; pass an integer that differs per epoch")
        generator = None if shuffle_seed is None else torch.Generator().manual_seed(shuffle_seed)
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        chunks = list(torch.split(order, batch_size))[: self.num_batches(batch_size, drop_last)]
        return self._batches(chunks, augmentation=generator if augment else None, workers=workers)

    @abstractmethod
    def _batches(
        self, chunks: list[Tensor], *, augmentation: Generator | None, workers: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a batch for each chunk of indices, augmented with random numbers of `augmentation` unless None."""


def checksum(values: Tensor) -> int:
    """CRC-32 of a tensor's bytes in row-major order."""
    return zlib.crc32(values.contiguous().numpy().data)


def fingerprint(*facts: object) -> str:
    """Sixteen hexadecimal digits of SHA-256 over facts made of strings, numbers and tuples."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
