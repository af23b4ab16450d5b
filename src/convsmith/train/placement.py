"""Where a training runs: its device, and how batches get there."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from convsmith.tasks import Task

Batch = tuple[Tensor, Tensor]


def find_device(device: str | torch.device) -> torch.device:
    """The device with its index; ValueError for one that torch does not know or that is not here."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be one that torch knows, such as 'cpu' or 'cuda', got {device!r}") from None
    if found.type != "cuda":
        return found
    if not torch.cuda.is_available():
        raise ValueError(f"there is no CUDA device here, got device={str(device)!r}; use 'cpu'")
    return torch.empty(0, device=found).device


def place(
    batch: Batch, task: Task[Tensor], device: torch.device, memory_format: torch.memory_format = torch.preserve_format
) -> Batch:
    """A batch on the device. Off the CPU its targets are checked before: afterwards that would wait for the device."""
    images, targets = batch
    if device.type != "cpu":
        task.check(targets)
        targets = targets.to(device, non_blocking=True)
    elif memory_format is torch.preserve_format:
        return batch
    return images.to(device, memory_format=memory_format, non_blocking=True), targets


def workers_for(device: torch.device) -> int:
    """Processes that decode images: none beside a network on the CPU, which they would only take time from."""
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
