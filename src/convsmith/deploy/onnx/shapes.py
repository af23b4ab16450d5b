"""Shapes of what two operators give, told at once where fake tensors take half a millisecond and more for each.

Fake tensors make a fake of each weight, look whether they have seen the like, and compute a norm's statistics. Networks
are convolutions and norms for the most part: this is half of what recording one takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def is_fake(tensor: Any) -> bool:
    """Whether this is a tensor without values."""
    return isinstance(tensor, Tensor) and hasattr(tensor, "fake_mode")


def shaped(func: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: Sequence[Tensor]) -> Any:
    """What a convolution or a norm with kept statistics gives for a contiguous fake map; None for all else.

    `tensors` are those among the arguments; the first argument is fake and the others are not.
    """
    rule = _RULES.get(func)
    if rule is None or kwargs or not is_fake(args[0]) or any(map(is_fake, tensors[1:])):
        return None
    if not args[0].is_contiguous() or any(tensor.dtype != args[0].dtype for tensor in tensors):
        return None
    return rule(func, args)


def _convolution(func: Any, args: Sequence[Any]) -> Any:
    made = func(*(_without_values(part) if isinstance(part, Tensor) else part for part in args))
    return _fake(made, args[0]) if made.is_contiguous() else None


def _batch_norm(func: Any, args: Sequence[Any]) -> Any:
    x, _, _, mean, variance, training, *_ = args
    if training or mean is None or variance is None:
        return None
    maps = (
        _without_values(x),
        torch.empty(0, dtype=x.dtype, device="meta"),
        torch.empty(0, dtype=x.dtype, device="meta"),
    )
    return tuple(_fake(made, x) for made in maps)


def _without_values(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _fake(made: Tensor, source: Any) -> Tensor:
    return FakeTensor(source.fake_mode, made, source.device)


_RULES = {torch.ops.aten.convolution.default: _convolution, torch.ops.aten.native_batch_norm.default: _batch_norm}
