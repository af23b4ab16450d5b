"""The ONNX model that a back end runs: of the network without what costs time and computes nothing."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from convsmith.deploy.passes.lean import lean


def lean_onnx(
    network: nn.Module,
    example: Tensor,
    convert: Callable[[nn.Module], bytes],
    *,
    block: int | None = None,
    output: Tensor | None = None,
    compared: bool = True,
) -> bytes:
    """What `convert` writes of the lean network (`lean`).

    Without `compared` the lean network is compared only where it cannot be converted: who asks for that compares what
    the model computes.

    Raises ValueError for a network that cannot be exported.
    """
    leaner = lean(network, example, block=block, output=output, compared=compared)
    try:
        return convert(leaner)
    except ValueError:
        if compared or leaner is network:
            raise
    return lean_onnx(network, example, convert, block=block, output=output)
