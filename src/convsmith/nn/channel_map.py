"""Maps on which torch's functions compute what channels depend on, in place of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class ChannelMap(Tensor):
    """Boolean (N, C, H, W): whether channel c depends on what image n stands for; all pixels of a channel do alike.

    Functions that route channels run as they are, convolutions join the groups that they read, elementwise ones join
    their operands; one that is not known raises ValueError.
    """

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """That of the map for which this one stands: modules bring their parameters to it."""
        return torch.get_default_dtype()

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The function itself or its rule."""
        run: Any = super().__torch_function__
        name = getattr(func, "__name__", str(func))
        plain = name.strip("_")  # a function, method, operator and its form in place share a rule
        if plain not in _RULES:
            raise ValueError(
                "channel dependencies are known for convolutions, norms, elementwise operators, pooling and routing, "
                f"and {name} is none that is known; leave it out of the stack"
            )
        rule = _RULES[plain]
        if rule is None:
            if any(isinstance(value, Tensor) and not isinstance(value, cls) and value.is_meta for value in args):
                raise ValueError(
                    f"{name} routes channels by a tensor without values; build the module off meta devices"
                )
            return run(func, types, args, kwargs)
        named = {"x" if key == "input" else key: value for key, value in (kwargs or {}).items()}
        result = run(rule, types, args, named)
        in_place = name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))
        return run(Tensor.copy_, types, (args[0], result)) if in_place else result


def grouped(x: Tensor, groups: int, out_channels: int) -> Tensor:
    """(N, C, ...) -> (N, out_channels, ...): outputs in groups, each of which depends on its whole group of inputs."""
    return x.view(len(x), groups, -1, *x.shape[2:]).any(2).repeat_interleave(out_channels // groups, 1)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """(N, C, ...) -> (N, C, ...): the channels as `ChannelShuffle` orders them."""
    return x.view(len(x), groups, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


def _pixel(x: Tensor, *rest: Any, **named: Any) -> Tensor:
    return x.any(tuple(range(2, x.dim())), keepdim=True) if x.dim() > 2 else x.clone()


def _padded(x: Tensor, pad: Sequence[int], *rest: Any, **named: Any) -> Tensor:
    # Cropping by negative numbers would leave nothing of one pixel, like which all others of a real map are.
    padded = F.pad(x, [max(0, side) if i < 2 * (x.dim() - 2) else side for i, side in enumerate(pad)])
    return _pixel(padded).expand_as(padded)


def _indexed(x: Tensor, index: Any) -> Tensor:
    found = x[index]
    if found.numel() or not x.numel():
        return found
    # A crop that leaves nothing of one pixel: like this one are all others of a real map, so nothing is cropped.
    parts = index if isinstance(index, tuple) else (index,)
    dots = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    dims = [i if i < dots else x.dim() - len(parts) + i for i in range(len(parts))]
    kept = x[tuple(slice(None) if isinstance(p, slice) and d > 1 else p for p, d in zip(parts, dims, strict=True))]
    if not kept.numel():
        raise ValueError(f"indices must leave a channel to depend on something, got {index}; leave it out of the stack")
    return kept


def _convolution(x: Tensor, weight: Tensor, bias: Any = None, *rest: Any, groups: int = 1, **named: Any) -> Tensor:
    groups = rest[3] if len(rest) > 3 else groups
    return grouped(_pixel(_checked(x, weight.shape[1] * groups)), groups, weight.shape[0])


def _transposed(x: Tensor, weight: Tensor, bias: Any = None, *rest: Any, groups: int = 1, **named: Any) -> Tensor:
    groups = rest[3] if len(rest) > 3 else groups
    return grouped(_pixel(_checked(x, weight.shape[0])), groups, weight.shape[1] * groups)


def _checked(x: Tensor, channels: int) -> Tensor:
    if x.shape[1] != channels:
        raise ValueError(
            f"a convolution of {channels} channels got {x.shape[1]}; give the in_channels of the whole module"
        )
    return x


def _linear(x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    return x.any(-1, keepdim=True).expand(*x.shape[:-1], weight.shape[0])


def _reduced(x: Tensor, dim: int | tuple[int, ...], keepdim: bool = False, **named: Any) -> Tensor:
    return x.any(dim, keepdim)


def _group_norm(x: Tensor, num_groups: int, *rest: Any, **named: Any) -> Tensor:
    return grouped(_pixel(x), num_groups, x.shape[1]).expand_as(x)


def _layer_norm(x: Tensor, normalized_shape: Sequence[int], *rest: Any, **named: Any) -> Tensor:
    return x.any(tuple(range(-len(normalized_shape), 0)), keepdim=True).expand_as(x)


def _elementwise(*values: Any, **named: Any) -> Tensor:
    maps = [value for value in (*values, *named.values()) if isinstance(value, ChannelMap)]
    joined = maps[0].clone()  # what follows may work in place
    for other in maps[1:]:
        joined = joined | other
    return joined


def _as_it_is(x: Tensor, *rest: Any, **named: Any) -> Tensor:
    return x.clone()


def _deformed(x: Tensor, weight: Tensor, offset: Tensor, *rest: Any) -> Tensor:
    # Where a group of channels is read depends on what its offsets do, and so do the outputs that read the group.
    (height, width), groups = weight.shape[-2:], x.shape[1] // weight.shape[1]
    offset_groups = offset.shape[1] // (2 * height * width)
    moved = grouped(_pixel(offset), offset_groups, x.shape[1])
    return grouped(_pixel(x) | moved, groups, weight.shape[0])


def _sampled(x: Tensor, grid: Tensor, *rest: Any, **named: Any) -> Tensor:
    return _pixel(x).expand(*x.shape[:2], *grid.shape[1:-1])


def _encoded(x: Tensor, codewords: Tensor, *rest: Any) -> Tensor:
    return x.flatten(1).any(1)[:, None, None].expand(len(x), *codewords.shape)


def _local_response_norm(x: Tensor, size: int, *rest: Any, **named: Any) -> Tensor:
    around = F.pad(x.movedim(1, -1), (size // 2, (size - 1) // 2))
    return around.unfold(-1, size, 1).any(-1).movedim(-1, 1)


def _constant(x: Tensor, *rest: Any, **named: Any) -> Tensor:
    return torch.zeros_like(x)


# Names of functions of torch, torch.nn.functional and torch.Tensor, without underscores.
_ROUTING = (  # `get` reads an attribute, such as the shape
    "cat concat stack chunk split narrow select unbind index_select view reshape flatten unflatten squeeze "
    "unsqueeze transpose permute movedim expand expand_as pixel_shuffle pixel_unshuffle roll flip contiguous clone "
    "detach new_zeros get size dim numel stride len is_contiguous is_floating_point"
)
_ELEMENTWISE = (
    "add radd iadd sub rsub isub mul rmul imul div rdiv truediv rtruediv itruediv pow square sqrt rsqrt reciprocal "
    "neg  abs sign exp log log1p sin cos sinc sinh cosh asinh atan erf gt ge lt le where maximum minimum clamp "
    "addcmul relu relu6  leaky_relu prelu elu selu celu gelu silu mish softplus softsign hardtanh hardswish "
    "hardsigmoid sigmoid logsigmoid  tanh dropout dropout2d batch_norm instance_norm interpolate"
)
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
POOLING = frozenset({"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"})
_RULES: Mapping[str, Callable[..., Tensor] | None] = {
    **dict.fromkeys(_ROUTING.split()),
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(POOLING, _pixel),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "std", "var"), _reduced),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like"), _constant),
    **dict.fromkeys(("to", "type_as"), _as_it_is),
    "channel_shuffle": shuffled,
    "deform_conv2d": _deformed,
    "encode": _encoded,  # of `convsmith.nn.Encoding`: the assignment to codewords reads all channels
    "getitem": _indexed,
    "grid_sample": _sampled,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "local_response_norm": _local_response_norm,
    "pad": _padded,
}
