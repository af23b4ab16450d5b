"""The inputs from which the ranges of activations are read, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def checked_batches(batches: Iterable[Tensor | Sequence[Tensor]], what: str) -> list[Tensor]:
    """The batches of inputs; of a tuple such as `(images, labels)` the first.

    Raises ValueError where there is none, and for one that is no float32 tensor, not finite, or of another shape.
    """
    if isinstance(batches, Tensor):
        raise ValueError(
            f"{what} must give batches of inputs, and is one tensor of shape {tuple(batches.shape)}; put it into a list"
        )
    if not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
        raise ValueError(
            f"{what} must give batches of inputs, and is {type(batches).__name__}; give a list of tensors, or a loader"
        )
    found: list[Tensor] = []
    for number, batch in enumerate(batches):
        x = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(x, Tensor) or x.dtype != torch.float32 or x.dim() < 2 or not x.numel():
            shown = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"{what} must give batches of float32 inputs, such as (N, C, H, W), and number {number} is {shown}"
            )
        if found and x.shape[1:] != found[0].shape[1:]:
            raise ValueError(
                f"all batches of {what} must agree but for the batch size, and number {number} is of shape "
                f"{tuple(x.shape)} after {tuple(found[0].shape)}; resize the inputs"
            )
        if not x.isfinite().all():
            raise ValueError(
                f"{what} must be finite, and batch number {number} has NaN or infinity; ranges of activations cannot "
                "be read from it, leave such inputs out"
            )
        found.append(x.detach().cpu())
    if not found:
        raise ValueError(f"{what} must have at least one batch, got none; give some hundred inputs like the real ones")
    return found
