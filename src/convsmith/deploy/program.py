"""Networks as programs of torch.export with a free batch size: what PyTorch's own compilers start from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from convsmith.deploy.onnx.record import record
from convsmith.deploy.onnx.refusals import BranchError
from convsmith.deploy.silence import reason, silent
from convsmith.deploy.snapshot import snapshot

MOST_ON_CUDA = 65535  # images of a batch, for which torch's choice of a convolution on CUDA devices is one and the same


def exported(module: nn.Module, example: Tensor, *, most: int | None = None) -> ExportedProgram:
    """The network as a program for every batch size, or for those up to `most`; on CUDA, of up to 65,535 images.

    Raises ValueError when `forward` branches on values or on the batch size; it names the submodule where it is known.
    """
    # A batch of one would be taken as a constant.
    several = (example if len(example) > 1 else torch.cat([example, example])).contiguous(memory_format=layout(example))
    _refuse_branches(module, example)
    if example.is_cuda:
        most = min(most or MOST_ON_CUDA, MOST_ON_CUDA)
    batch = torch.export.Dim("batch", min=1, max=most)
    with silent(), torch.no_grad():
        try:
            program = torch.export.export(module, (several,), strict=False, dynamic_shapes=({0: batch},))
        except Exception as error:
            raise ValueError(_refusal(failing(module, error), reason(error))) from error
    for node in program.graph.nodes:
        # torch.export follows it as an unknown number, on which what comes later may still be specialised.
        if node.target in (torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default):
            raise ValueError(_refusal(module_of(node) or type(module).__name__, "it takes a value out of a tensor"))
    return program


def _refuse_branches(module: nn.Module, example: Tensor) -> None:
    """Raise ValueError for a `forward` that decides by values and catches the error: torch.export follows it wrongly.

    All else that cannot be recorded is torch.export's business.
    """
    copied = snapshot(module, sharing=True)  # `forward` may leave in it what has no values
    try:
        record(copied, example)
    except BranchError as error:
        if not error.caught:
            return
        raise ValueError(_refusal(type(module).__name__, str(error))) from error
    except Exception:
        return


def _refusal(where: str, why: str) -> str:
    return (
        f"to be exported, forward must not branch on values or on the batch size, and torch.export cannot follow that "
        f"of {where} ({why}); compute both branches and select with torch.where, and keep values in tensors"
    )


def failing(module: nn.Module, error: BaseException) -> str:
    """The class of the innermost submodule whose code was running when the error was raised, and its name."""
    names = {part: name for name, part in module.named_modules()}
    inner = module
    for frame_of in _frames(error):
        owner = frame_of.get("self")
        if isinstance(owner, nn.Module) and owner in names:
            inner = owner
    return f"{type(inner).__name__} {names[inner]}".strip()


def module_of(node: fx.Node) -> str:
    """The name of the submodule that an operator of a program comes from; empty where it is not known."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def plain(x: Tensor, example: Tensor) -> Tensor:
    """`x` as compiled code needs it, which reads memory without looking: checked against the example, laid out like it.

    Raises ValueError when it differs from the example in more than the batch size.
    """
    if x.shape[1:] != example.shape[1:] or x.dtype != example.dtype or x.device.type != example.device.type:
        raise ValueError(
            f"the network was prepared for {example.dtype} of shape (N, {str(tuple(example.shape[1:]))[1:]} on "
            f"{example.device}, and gets {x.dtype} of shape {tuple(x.shape)} on {x.device}; prepare it for these"
        )
    return x.detach().contiguous(memory_format=layout(example))


def layout(x: Tensor) -> torch.memory_format:
    """The memory format of a batch of images: channels last where it is that and nothing else."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _frames(error: BaseException) -> Iterator[dict[str, Any]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_locals
        trace = trace.tb_next
