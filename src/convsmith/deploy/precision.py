"""The precisions that a back end may compute in, as words, and a network converted to one of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from convsmith.deploy.agreement import TOLERANCES

PRECISIONS = {str(dtype).removeprefix("torch."): dtype for dtype in TOLERANCES}

P = ParamSpec("P")
R = TypeVar("R")


class Converting(nn.Module):
    """A network that computes in another type than that of its input, which its output gets back."""

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.network = network.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """The network's output for `x`, in the type of `x`."""
        return self.network(x.to(self.dtype)).to(x.dtype)  # type: ignore[no-any-return]


def precision_of(x: Tensor) -> str:
    """The word for a tensor's type, such as `float32`."""
    return str(x.dtype).removeprefix("torch.")


def check_precision(precision: str | None) -> None:
    """Raise ValueError for a word that is no precision; None is allowed."""
    if precision == "int8":
        raise ValueError(
            "a precision must need no data, and int8 is calibrated with some; quantise by cs.deploy.quantize, or by "
            "`convsmith quantize`"
        )
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; the precisions are {', '.join(PRECISIONS)}")


def check_one_type(network: nn.Module, example: Tensor) -> None:
    """Raise ValueError, naming the module, where a floating-point parameter or buffer has not the example's type."""
    for path, module in network.named_modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and tensor.is_floating_point() and tensor.dtype != example.dtype:
                where = f"{type(module).__name__} {path}".strip()
                raise ValueError(
                    f"this back end computes a whole network in one type, and {where} has {precision_of(tensor)} in a "
                    f"network of {precision_of(example)}; try onnxruntime, or convert that module"
                )


def in_precision(network: nn.Module, example: Tensor, precision: str) -> nn.Module:
    """A network that takes and gives the example's type and computes in that precision.

    The network itself is converted where the two differ: give a copy. Fold what can be folded before.
    """
    return network if precision == precision_of(example) else Converting(network, PRECISIONS[precision]).eval()


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The function, as if nobody called it inside of `torch.autocast`: what is traced there keeps the casts."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return called
