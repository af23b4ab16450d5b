"""A network as an ONNX model: the quick way where it can be followed, torch's exporter elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from convsmith.deploy.onnx.apart import Apart
from convsmith.deploy.onnx.packages import imported
from convsmith.deploy.onnx.refusals import BranchError, NotQuickError
from convsmith.deploy.onnx.torch_exporter import convert_by_torch


def convert(module: nn.Module, example: Tensor, metadata: Mapping[str, str], *, weights: Apart | None = None) -> bytes:
    """The network as an ONNX model with a free batch size, its weights inside.

    The model has one input `input` and one output `output`, and carries `convsmith_version` and the metadata. A node's
    name begins with the path of the module that it comes from and a slash, where it is known. What the model computes
    is to be compared with the network: neither way is proved.

    Raises ValueError when `forward` branches on values or on the batch size, or uses what ONNX does not have.
    """
    imported("onnx")
    try:
        # Here, as it rests on modules of torch that are not public: a version that lacks one has the other way.
        from convsmith.deploy.onnx.quick import quick

        return quick(module, example, metadata, weights)
    except BranchError as error:
        raise ValueError(
            f"to be exported, forward must not branch on values or on the batch size, nor loop over the batch, and "
            f"that of {type(module).__name__} does ({error}); compute both branches and select with torch.where, and "
            "all images at once"
        ) from error
    except NotQuickError as error:
        obstacle = str(error)
    except Exception as error:  # the network ran on values and fails without: torch's exporter says why
        obstacle = f"{type(error).__name__} {error}".partition("\n")[0]
    return convert_by_torch(module, example, metadata, obstacle)
