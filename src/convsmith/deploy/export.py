"""The file that is shipped: exported, verified against eager on fresh inputs, written whole."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from convsmith.arch import check_writable, write_whole_bytes
from convsmith.deploy import onnx
from convsmith.deploy.agreement import (
    BATCH_SIZES,
    TOLERANCES,
    Reference,
    check_example,
    check_repeats,
    check_run,
    eager_run,
)
from convsmith.deploy.clock import threads
from convsmith.deploy.passes.lean import lean
from convsmith.deploy.precision import without_autocast
from convsmith.deploy.snapshot import snapshot

FORMATS = ("onnx",)


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how far it is from eager.

    `largest_difference` is a share of the network's largest output, over the example and noise of each batch size.
    """

    path: Path
    format: str
    bytes: int
    opset: int
    largest_difference: float
    tolerance: float
    batch_sizes: tuple[int, ...]
    folded_norms: int


@without_autocast
def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    example: Tensor,
    *,
    format: str = "onnx",
    metadata: Mapping[str, str] | None = None,
    tolerance: float | None = None,
) -> ExportResult:
    """Write the network, in eval mode, as one file for any batch size, if ONNX Runtime agrees with eager on it.

    Batch norms are folded first where torch.fx can follow the network. The module is left untouched.

    Args:
        module: A network that takes and returns one tensor.
        path: The file; an existing one is replaced at the end, or not at all.
        example: An input with a batch dimension; its other dimensions are fixed in the file.
        format: `onnx`.
        metadata: Text to write into the file, by key.
        tolerance: The largest admissible difference as a share of the largest output (default: by the example's type).

    Warns where outputs depend on the input so little that their agreement shows nothing. Raises ValueError when the
    network cannot be exported or the exported one differs from eager; then no file is left.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; the formats are {', '.join(FORMATS)}")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ValueError(f"metadata must map text to text, got {key!r}: {value!r}; write the value as text")
    check_example(example)
    path = Path(path)
    check_writable(path)
    tolerance = TOLERANCES[example.dtype] if tolerance is None else tolerance
    network, example = snapshot(module).cpu(), example.detach().cpu()
    eager = eager_run(network)
    # On one thread: the verification should not depend on the machine.
    with threads(1):
        reference = Reference(eager, example, known=check_run(eager, example))
    folded = lean(network, example)
    data = onnx.convert(folded, example, metadata or {})
    with threads(1):
        difference = reference.difference(onnx.load(data, threads=1))
    if not difference <= tolerance:
        check_repeats(network, example, tolerance)
        raise ValueError(
            f"the exported network may differ from eager by {tolerance:g} of the largest output, and differs by "
            f"{difference:.2g}; no file was written; export in float64 to find the cause, or raise tolerance"
        )
    if unseen := reference.unseen(tolerance):
        warnings.warn(unseen, stacklevel=3)
    write_whole_bytes(path, data)
    return ExportResult(
        path=path,
        format=format,
        bytes=len(data),
        opset=onnx.opset(data),
        largest_difference=difference,
        tolerance=tolerance,
        batch_sizes=tuple(sorted({len(example), *BATCH_SIZES})),
        folded_norms=len(getattr(folded, "folded_norms", ())),
    )
