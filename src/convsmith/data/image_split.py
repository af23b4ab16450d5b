"""Splits whose images are decoded when they are needed: one seed per image and pass makes augmentation repeatable."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from convsmith.data.dataset import Split

# Of ImageNet, in 0 ... 1: those that trained networks of every library expect. A grey image takes their averages.
MEAN, STD = {3: (0.485, 0.456, 0.406), 1: (0.449,)}, {3: (0.229, 0.224, 0.225), 1: (0.226,)}


class Images(Protocol):
    """A sequence of images, each decoded when it is asked for; it travels to worker processes."""

    def __getitem__(self, index: int) -> Image.Image: ...


class ImageSplit(Split):
    """Images of any size, brought to `channels` x `input_size` x `input_size` one by one.

    Evaluation resizes the shorter side to 256/224 of `input_size` and crops the centre. Augmentation takes a random
    crop of 8 to 100 % of the area, and mirrors half of the images. Where `flip` is False, for characters and signs,
    nothing is mirrored and the crop is at least 64 % of the area.
    """

    def __init__(
        self,
        images: Images,
        labels: Tensor,
        sources: Sequence[tuple[str, ...]],
        *,
        input_size: int,
        channels: int,
        flip: bool,
    ) -> None:
        super().__init__(labels, sources)
        self.images = images
        finish = [
            v2.RGB() if channels == 3 else v2.Grayscale(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN[channels], STD[channels]),
        ]
        resized = round(input_size * 256 / 224)
        self.evaluation = v2.Compose([v2.Resize(resized), v2.CenterCrop(input_size), *finish])
        area = (0.08, 1.0) if flip else (0.64, 1.0)
        mirror = [v2.RandomHorizontalFlip()] if flip else []
        self.augmentation = v2.Compose([v2.RandomResizedCrop(input_size, scale=area), *mirror, *finish])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.evaluation(self.images[index]), int(self.labels[index])

    def _batches(
        self, chunks: list[Tensor], *, augmentation: Generator | None, workers: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        items: Dataset[tuple[Tensor, int]] = self
        if augmentation is not None:
            items = _Augmented(self, torch.randint(2**62, (len(self),), generator=augmentation))
        yield from DataLoader(
            items,
            batch_sampler=[chunk.tolist() for chunk in chunks],
            num_workers=workers,
            collate_fn=_collate,
            generator=torch.Generator(),  # else the loader draws a number from the global one
        )


class _Augmented(Dataset[tuple[Tensor, int]]):
    """One pass over a split with augmentation, item `i` seeded by `seeds[i]` in whatever process."""

    def __init__(self, split: ImageSplit, seeds: Tensor) -> None:
        self.split, self.seeds = split, seeds

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.split.images[index]
        # transforms take no generator of their own; torch.manual_seed would reseed the devices too
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(self.seeds[index]))
            return self.split.augmentation(image), int(self.split.labels[index])


def _collate(items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    images, labels = default_collate(items)
    return images, labels
