"""The form of what common operators return, worked out here.

Torch's own meta kernels of these operators take up to 2 ms for each new shape, and the first of them imports torch's
compiler, which takes a second. A rule answers the usual case only: dense floating-point tensors of one dtype, arguments
that fit. It gives None for the rest, errors included, which is left to torch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

Shape = Sequence[int]


class Form(NamedTuple):
    """Of one new tensor; its dtype is that of the arguments."""

    shape: Shape
    memory_format: torch.memory_format


def result_form(name: str, args: Sequence[Any]) -> Form | None:
    """What an operator with this ATen name (as in `formulas.py`) returns; None where that is not sure."""
    rule = RULES.get(name)
    if rule is None:
        return None
    tensors = list(tensors_in(args))
    if not all(tensor.is_floating_point() and tensor.dtype is tensors[0].dtype for tensor in tensors):
        return None
    memory_format = _memory_format(name, tensors)
    shape = rule(*args) if memory_format is not None else None
    return None if shape is None or memory_format is None else Form(shape, memory_format)


def map_tensors(value: Any, made: Callable[[Tensor], Any]) -> Any:
    """An operator's argument or result with each tensor replaced, those in lists and tuples included."""
    if isinstance(value, Tensor):
        return made(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(item, made) for item in value)
    return value


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors among an operator's arguments or results, those in lists included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def _memory_format(name: str, tensors: Sequence[Tensor]) -> torch.memory_format | None:
    """The order that all maps have; a convolution takes channels last if its input or its weight has it."""
    last = [tensor for tensor in tensors if _is_channels_last(tensor)]
    maps = [tensor for tensor in tensors if tensor.dim() == 4]
    if not all(_is_row_major(tensor) for tensor in tensors if not any(tensor is other for other in last)):
        return None
    if not last:
        return torch.contiguous_format
    same_shape = name not in BROADCASTING or all(tensor.shape == tensors[0].shape for tensor in tensors)
    fits = name == "conv2d" or (name in KEEP_CHANNELS_LAST and len(last) == len(maps) and same_shape)
    dense = all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in last)
    return torch.channels_last if fits and dense else None


def _is_row_major(tensor: Tensor) -> bool:
    strides = tensor.stride()
    return tensor.numel() > 0 and 0 not in strides and all(outer >= inner for outer, inner in pairwise(strides))


def _is_channels_last(tensor: Tensor) -> bool:
    """As torch decides it, by the strides of axes of size 1 too."""
    if tensor.dim() != 4 or tensor.numel() == 0 or tensor.stride(1) == 0:
        return False
    least = 0
    for axis in (1, 3, 2, 0):
        if tensor.stride(axis) < least or (axis == 0 and least == tensor.stride(1)):
            return False
        least = tensor.stride(axis) * tensor.size(axis)
    return True


def _same(x: Tensor, *_: object) -> Shape:
    return x.shape


def _batch_norm(x: Tensor, *rest: Any) -> Shape | None:
    fits = x.dim() > 1 and all(given is None or given.shape == x.shape[1:2] for given in rest[:4])
    return x.shape if fits else None


def _broadcast(x: Tensor, y: Any, *_: object) -> Shape | None:
    if isinstance(y, complex):
        return None
    if not isinstance(y, Tensor) or x.shape == y.shape:
        return x.shape
    rank = max(x.dim(), y.dim())
    a, b = ((1,) * (rank - tensor.dim()) + tuple(tensor.shape) for tensor in (x, y))
    fits = all(m == n or 1 in (m, n) for m, n in zip(a, b, strict=True))
    return [max(sizes) for sizes in zip(a, b, strict=True)] if fits else None


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Shape | None:
    first = tensors[0].shape
    if not -len(first) <= dim < len(first):
        return None
    dim %= len(first)
    others = [(*tensor.shape[:dim], *tensor.shape[dim + 1 :]) for tensor in tensors]
    if any(len(tensor.shape) != len(first) for tensor in tensors) or others.count(others[0]) != len(others):
        return None
    return [*first[:dim], sum(tensor.shape[dim] for tensor in tensors), *first[dim + 1 :]]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Shape | None:
    fits = x.dim() > 0 and weight.dim() == 2 and x.shape[-1] == weight.shape[1]
    return [*x.shape[:-1], weight.shape[0]] if fits and (bias is None or bias.shape == weight.shape[:1]) else None


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Shape = (1,),
    padding: Shape | str = (0,),
    dilation: Shape = (1,),
    groups: int = 1,
) -> Shape | None:
    fits = (
        x.dim() == weight.dim() == 4
        and groups > 0
        and x.shape[1] == weight.shape[1] * groups
        and weight.shape[0] % groups == 0
        and (bias is None or bias.shape == weight.shape[:1])
    )
    if not fits or isinstance(padding, str):
        return None
    windows = _windows(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return windows and [x.shape[0], weight.shape[0], *windows]


def _max_pool(
    x: Tensor,
    kernel_size: Shape,
    stride: Shape = (),
    padding: Shape = (0,),
    dilation: Shape = (1,),
    ceil_mode: bool = False,
) -> Shape | None:
    if x.dim() != 4 or any(2 * p > k for p, k in zip(_each(padding, 2), _each(kernel_size, 2), strict=True)):
        return None
    windows = _windows(x.shape[2:], kernel_size, stride or kernel_size, padding, dilation, ceil_mode=ceil_mode)
    return windows and [*x.shape[:2], *windows]


def _avg_pool(
    x: Tensor, kernel_size: Shape, stride: Shape = (), padding: Shape = (0,), ceil_mode: bool = False, *_: object
) -> Shape | None:
    return _max_pool(x, kernel_size, stride, padding, (1,), ceil_mode)


def _adaptive_pool(x: Tensor, output_size: Shape) -> Shape | None:
    return [*x.shape[:2], *output_size] if x.dim() == 4 and min(output_size) > 0 else None


def _mean(x: Tensor, dims: Shape | None = None, keepdim: bool = False) -> Shape | None:
    if not dims or any(not -x.dim() <= dim < x.dim() for dim in dims):
        return None
    reduced = {dim % x.dim() for dim in dims}
    if len(reduced) != len(dims):
        return None
    return [1 if i in reduced else size for i, size in enumerate(x.shape) if keepdim or i not in reduced]


def _windows(
    sizes: Shape, kernel_size: Shape, stride: Shape, padding: Shape, dilation: Shape, *, ceil_mode: bool = False
) -> list[int] | None:
    """Positions of the window along each axis: floor or ceil of (size + 2 p - d (k - 1) - 1) / s, plus 1."""
    counts = []
    for size, k, s, p, d in zip(
        sizes, *(_each(values, len(sizes)) for values in (kernel_size, stride, padding, dilation)), strict=True
    ):
        room = size + 2 * p - d * (k - 1) - 1
        if min(s, d, k) < 1 or p < 0 or room < 0:
            return None
        positions = (room + (s - 1 if ceil_mode else 0)) // s + 1
        # With ceil_mode no window starts in the right padding.
        counts.append(positions - 1 if ceil_mode and (positions - 1) * s >= size + p else positions)
    return counts


def _each(values: Shape, number: int) -> Shape:
    return values if len(values) == number else tuple(values) * number


ELEMENTWISE = (
    *("relu", "relu6", "hardtanh", "leaky_relu", "prelu_kernel", "elu", "silu", "gelu", "mish"),
    *("sigmoid", "tanh", "hardswish", "hardsigmoid"),
)

BROADCASTING = ("add", "sub", "mul", "div")

RULES: dict[str, Callable[..., Shape | None]] = {
    "conv2d": _convolution,
    **dict.fromkeys(ELEMENTWISE, _same),
    **dict.fromkeys(BROADCASTING, _broadcast),
    "batch_norm": _batch_norm,
    "cat": _cat,
    "linear": _linear,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "mean": _mean,
}
"""ATen name -> the shape of the result, from the operator's arguments; None where they do not fit."""

KEEP_CHANNELS_LAST = frozenset(RULES) - {"conv2d", "linear", "mean"}
