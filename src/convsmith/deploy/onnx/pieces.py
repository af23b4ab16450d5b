"""A batch that forward takes to pieces, as a loop over its images does: as many operators as the batch is large.

Recorded, such a loop would have a thousand turns, and would fit no other batch.
"""

from __future__ import annotations

from typing import Any

import torch

from convsmith.deploy.onnx.batch import BatchBranchError, is_from_batch

aten = torch.ops.aten
PIECES = {aten.unbind.int, aten.split.Tensor}
PLACES = {aten.select.int: "index", aten.slice.Tensor: "start"}


def check_whole(func: Any, arguments: dict[str, Any], batch: int) -> None:
    """Raise BatchBranchError for an operator that takes pieces of the batch of which another batch has not as many.

    `arguments` are all of the operator's, by name.
    """
    if func not in PIECES and func not in PLACES:
        return
    size = arguments["self"].shape[arguments["dim"]]
    if not is_from_batch(size, batch):
        return
    if func in PIECES:
        if not is_from_batch(arguments.get("split_size", 1), batch):
            raise BatchBranchError("forward takes the batch to pieces, as a loop over its images does,")
        return
    place = arguments[PLACES[func]] or 0
    if not -size // batch <= place < size // batch and not is_from_batch(abs(place), batch):
        raise BatchBranchError(
            f"forward takes image {place} of the batch, which not every batch has, as a loop over its images does,"
        )
