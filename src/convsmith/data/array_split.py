"""Splits whose pixels are in memory: batches by indexing, augmentation on whole batches."""

from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from convsmith.data.dataset import Split


class ArraySplit(Split):
    """Images (N, C, H, W) uint8, normalised by `mean` and `std` (C,) in grey levels when a batch is made.

    Augmentation moves an image by up to `max_shift` pixels either way in both directions (a random crop of the image
    padded with zeros, which are black) and mirrors every second one if `flip`.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        sources: Sequence[tuple[str, ...]],
        *,
        mean: Tensor,
        std: Tensor,
        max_shift: int,
        flip: bool,
    ) -> None:
        super().__init__(labels, sources)
        self.images = images
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        self.max_shift, self.flip = max_shift, flip

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._normalise(self.images[index]), int(self.labels[index])

    def _batches(
        self, chunks: list[Tensor], *, augmentation: Generator | None, workers: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if augmentation is None:
            for chunk in chunks:
                yield self._normalise(self.images[chunk]), self.labels[chunk]
            return
        # drawn for the whole split at once, so that an image's augmentation does not depend on the batch size
        offsets = torch.randint(2 * self.max_shift + 1, (2, len(self)), generator=augmentation)
        mirrored = torch.randint(2, (len(self),), generator=augmentation).bool()
        for chunk in chunks:
            images = shift(self.images[chunk], *offsets[:, chunk], max_shift=self.max_shift)
            if self.flip:
                images = torch.where(mirrored[chunk].view(-1, 1, 1, 1), images.flip(-1), images)
            yield self._normalise(images), self.labels[chunk]

    def _normalise(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std


def shift(images: Tensor, top: Tensor, left: Tensor, *, max_shift: int) -> Tensor:
    """Window of (N, C, H, W) images padded with `max_shift` zeros, beginning at (`top`, `left`) of each, (N,) int64.

    At `max_shift` an image stays in place; at 0 its content moves that many pixels down or right.
    """
    height, width = images.shape[-2:]
    windows = F.pad(images, [max_shift] * 4).unfold(2, height, 1).unfold(3, width, 1)  # (N, C, top, left, H, W)
    return windows[torch.arange(len(images)), :, top, left]


def array_splits(
    parts: Sequence[tuple[Tensor, Tensor, Sequence[tuple[str, ...]]]], *, flip: bool
) -> tuple[ArraySplit, ArraySplit, ArraySplit]:
    """Train, validation and test from (images, labels, sources) each, all normalised by mean and std of train.

    Shifts reach an eighth of the shorter side: 1 pixel for 8x8 digits, and 4 for 32x32, the usual padding for CIFAR.
    """
    mean, std = channel_statistics(parts[0][0])
    max_shift = min(parts[0][0].shape[-2:]) // 8
    train, validation, test = (ArraySplit(*part, mean=mean, std=std, max_shift=max_shift, flip=flip) for part in parts)
    return train, validation, test


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of uint8 images (N, C, H, W), exact, in grey levels.

    They come from a histogram: a float copy of all images would need four times their memory.
    """
    levels = torch.arange(256, dtype=torch.float64)
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.unbind(1)]).double()
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ levels
    std = (shares @ levels**2 - mean**2).clamp_min(0).sqrt()
    return mean.float(), std.clamp_min(1e-3).float()  # a channel that is constant becomes zero, not NaN
