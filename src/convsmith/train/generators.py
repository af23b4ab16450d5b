"""Random numbers of a training: seeded anew for every epoch, the caller's generators untouched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import torch


def epoch_seed(seed: int, epoch: int, purpose: str) -> int:
    """The seed of one epoch, of 32 bits: nothing but the epoch's number is needed to go on as if never interrupted."""
    return Random(f"{seed}:{epoch}:{purpose}").getrandbits(32)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of this device."""
    # Not torch.manual_seed, which seeds every accelerator, even one that is not in use yet.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """Give torch's generators of the CPU and of this device their states back at the end."""
    with torch.random.fork_rng(devices=[device.index] if device.type == "cuda" else []):
        yield
