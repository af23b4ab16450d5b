"""The figures of a network on a split."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convsmith.nn.observe import evaluating
from convsmith.tasks import Task
from convsmith.train.placement import place, workers_for

if TYPE_CHECKING:
    from convsmith.data import DataSet, Split


def evaluate(network: nn.Module, task: Task[Tensor], split: Split, batch_size: int = 256) -> dict[str, float]:
    """The task's metrics of a network over a whole split, in eval mode, on the device where the network is.

    Afterwards every module's `training` flag is as before.
    """
    metrics = task.metrics()
    device = _device_of(network)
    with evaluating(network), torch.inference_mode():
        for batch in split.batches(batch_size, workers=workers_for(device)):
            images, targets = place(batch, task, device)
            outputs = network(images)
            for metric in metrics.values():
                metric.update(outputs, targets)
    return {name: metric.compute() for name, metric in metrics.items()}


def check_data(network: nn.Module, task: Task[Tensor], data: DataSet) -> None:
    """Try one image, so that data that do not fit are refused before anything is computed or written.

    Raises:
        ValueError: for an empty split, an image that the network cannot take, or outputs or a label that are none of
            the task's.
    """
    if len(data.train) == 0 or len(data.validation) == 0:
        raise ValueError(f"{data.name} must have images to train on and to validate with, got an empty split")
    images, targets = place(next(iter(data.validation.batches(1))), task, _device_of(network))
    with evaluating(network), torch.no_grad():
        try:
            outputs = network(images)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            shape = tuple(images.shape[1:])
            raise ValueError(
                f"the network cannot take the images of {data.name}, (C, H, W) = {shape} "
                f"({str(error).splitlines()[0]}); make it with in_channels={shape[0]} and for this size"
            ) from None
        task.loss(outputs, targets)


def _device_of(network: nn.Module) -> torch.device:
    tensor = next(chain(network.parameters(), network.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device
