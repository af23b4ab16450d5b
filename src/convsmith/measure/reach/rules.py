"""What each operator reads: the table from ATen operator to the rule by which `Reach` answers it.

Beside the rules here stand those of `layers.py`. A rule takes the pass, the operator and its arguments by name, and
returns the least number of what each result reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from convsmith.measure.forms import tensors_in
from convsmith.measure.reach import layers
from convsmith.measure.reach.layers import AT_DATA, Arguments
from convsmith.measure.reach.mode import NOTHING, Reach
from convsmith.measure.reach.windows import structural


def elementwise(reach: Reach, func: Any, named: Arguments) -> Any:
    """Every result reads the element at its place of each operand."""
    tensors = list(tensors_in(named.values()))
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))  # type: ignore[no-untyped-call]
    reached = [tensor for tensor in tensors if reach.reaches(tensor)]
    return reduce(torch.minimum, reached).expand(shape).clone()


def _product(reach: Reach, func: Any, named: Arguments) -> Any:
    """A factor that is constant zero hides the other one."""
    result = elementwise(reach, func, named)
    for factor in (named["self"], named["other"]):
        if isinstance(factor, Tensor) and not reach.reaches(factor) and (nonzero := structural(factor)) is not None:
            result = torch.where(nonzero, result, NOTHING)
    return result


def _as_it_is(reach: Reach, func: Any, named: dict[str, Any]) -> Any:
    """Operators that only move elements; constants among them are nothing."""
    named = dict(named)
    for name, value in named.items():
        if isinstance(value, Tensor):
            if value.is_floating_point():
                named[name] = reach.least(value)
            elif reach.reaches(value):
                return reach.everything(func, named, AT_DATA)
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
            if name == "indices" and any(map(reach.reaches, value)):
                return reach.everything(func, named, AT_DATA)
            named[name] = [reach.least(v) if isinstance(v, Tensor) and v.is_floating_point() else v for v in value]
    if any(name in named and reach.reaches(named[name]) for name in ("index",)):
        return reach.everything(func, named, AT_DATA)
    if func._schema.is_mutable:  # on a copy: the pass writes itself
        target = next(a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write)
        named[target] = named[target].clone()
    return func(**named)


def _copied(reach: Reach, func: Any, named: Arguments) -> Any:
    return reach.least(named["src"]).expand(named["self"].shape)


def _clone(reach: Reach, func: Any, named: Arguments) -> Any:
    x: Tensor = next(tensors_in(named.values()))
    return reach.least(x).clone()


def _converted(reach: Reach, func: Any, named: Arguments) -> Any:
    """Half precision and integers could not hold the numbers of large maps."""
    wide = named["dtype"] in (torch.float32, torch.float64)
    return named["self"].to(named["dtype"], copy=True) if wide else named["self"].clone()


def _nothing(reach: Reach, func: Any, named: Arguments) -> Any:
    """Filled with a constant, in the place of what was there or in a new tensor of the same form."""
    if func._schema.is_mutable:
        return torch.full(named["self"].shape, NOTHING)
    result: Tensor = func(**named)
    return torch.full(result.shape, NOTHING)


def _where(reach: Reach, func: Any, named: Arguments) -> Any:
    if reach.reaches(named["condition"]):
        return elementwise(reach, func, named)
    return torch.where(named["condition"], reach.least(named["self"]), reach.least(named["other"]))


def _masked(reach: Reach, func: Any, named: Arguments) -> Any:
    if reach.reaches(named["mask"]):
        return elementwise(reach, func, named)
    return torch.where(named["mask"], NOTHING, reach.least(named["self"]))


def _reduced(reach: Reach, func: Any, named: Arguments) -> Any:
    x, dims = named["self"], named.get("dim")
    dims = list(range(x.dim())) if dims is None or dims == [] else [dims] if isinstance(dims, int) else list(dims)
    return over(reach, x, dims, keepdim=bool(named.get("keepdim", False)))


def over(reach: Reach, x: Tensor, dims: list[int], *, keepdim: bool) -> Tensor:
    """The least along dimensions; in a local pass nothing where that reads a map (N, C, H, W) along H or W."""
    if x.dim() == 0:
        return x.clone()
    least = x.amin(dims, keepdim=True)
    if reach.local and x.dim() == 4 and any(d % 4 in (2, 3) and _varies(x, d) for d in dims):
        least = torch.full_like(least, NOTHING)
    return least if keepdim else least.amin(dims)


def _varies(x: Tensor, dim: int) -> bool:
    return x.shape[dim] > 1 and not torch.equal(x.amin(dim), x.amax(dim))


def _spread(dims: Callable[[Arguments], list[int]], reach: Reach, func: Any, named: Arguments) -> Any:
    """Every result reads all elements along these dimensions: softmax, sorting, norms."""
    x = named["self"] if "self" in named else named["input"]
    return torch.minimum(x, over(reach, x, dims(named), keepdim=True))


def _top(reach: Reach, func: Any, named: Arguments) -> Any:
    x, dim = named["self"], named["dim"]
    return over(reach, x, [dim], keepdim=True).repeat_interleave(named["k"], dim)


def _cumulative(reach: Reach, func: Any, named: Arguments) -> Any:
    return torch.cummin(named["self"], named["dim"]).values


def _batch_norm(reach: Reach, func: Any, named: Arguments) -> Any:
    x = named["input"]
    if not named.get("training", named.get("train", False)) or "no_training" in func._schema.name:
        return reach.least(x).clone()
    return torch.minimum(x, over(reach, x, [d for d in range(x.dim()) if d != 1], keepdim=True))


def _group_norm(reach: Reach, func: Any, named: Arguments) -> Any:
    x = named["input"]
    grouped = x.unflatten(1, (named["group"], -1))
    least = grouped.amin(tuple(range(2, grouped.dim())), keepdim=True)
    if reach.local and any(_varies(x, dim) for dim in range(2, x.dim())):
        return x.clone()  # beside the norm's statistics, the element itself
    return least.expand(grouped.shape).reshape(x.shape).clone()


def _layer_norm(reach: Reach, func: Any, named: Arguments) -> Any:
    x = named["input"]
    dims = list(range(x.dim() - len(named["normalized_shape"]), x.dim()))
    return torch.minimum(x, over(reach, x, dims, keepdim=True))


def _gated(reach: Reach, func: Any, named: Arguments) -> Any:
    first, second = named["self"].chunk(2, named["dim"])
    return torch.minimum(first, second)


def _names(names: str, rule: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), rule)


_one_dim = partial(_spread, lambda named: [named["dim"]])

RULES: Mapping[str, Any] = {
    **_names("convolution convolution_overrideable", layers.convolution),
    "torchvision::deform_conv2d": layers.deformable,
    **_names("mul multiply", _product),
    **_names("mm bmm addmm baddbmm mv addmv dot vdot", layers.matrices),
    "linear": layers.linear,
    **_names(
        """scaled_dot_product_flash_attention scaled_dot_product_flash_attention_for_cpu
        scaled_dot_product_efficient_attention scaled_dot_product_cudnn_attention
        scaled_dot_product_fused_attention_overrideable""",
        layers.attention,
    ),
    **_names(
        """native_batch_norm native_batch_norm_legit native_batch_norm_legit_no_training cudnn_batch_norm batch_norm
        batch_norm_with_update batch_norm_no_update""",
        _batch_norm,
    ),
    "native_group_norm": _group_norm,
    **_names("native_layer_norm fused_rms_norm rms_norm", _layer_norm),
    **_names(
        """max_pool2d_with_indices max_pool3d_with_indices max_pool2d max_pool1d avg_pool1d avg_pool2d avg_pool3d""",
        layers.pool,
    ),
    **_names(
        """adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
        adaptive_max_pool3d""",
        layers.adaptive_pool,
    ),
    **_names("max_unpool2d", layers.unpool),
    **_names(
        """upsample_nearest1d upsample_nearest2d upsample_nearest_exact1d upsample_nearest_exact2d upsample_linear1d
        upsample_bilinear2d upsample_bicubic2d upsample_nearest3d upsample_trilinear3d upsample_nearest_exact3d
        upsample_bilinear2d_aa upsample_bicubic2d_aa""",
        layers.interpolated,
    ),
    "grid_sampler_2d": layers.sampled,
    "constant_pad_nd": layers.padded,
    "im2col": layers.columns,
    "glu": _gated,
    **_names(
        """sum mean amax amin max min prod var std var_mean std_mean linalg_vector_norm norm logsumexp any all argmax
        argmin median nanmedian nansum count_nonzero aminmax""",
        _reduced,
    ),
    **_names("softmax log_softmax safe_softmax sort argsort", _one_dim),
    **_names("cumsum cumprod logcumsumexp cummax cummin", _cumulative),
    "topk": _top,
    **_names("where", _where),
    **_names("masked_fill", _masked),
    "to_copy": _converted,
    **_names("clone contiguous native_dropout bernoulli log_sigmoid_forward", _clone),
    "copy": _copied,
    **_names(
        """fill zero zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_empty
        new_full new_empty_strided""",
        _nothing,
    ),
    **_names(
        """cat stack roll flip rot90 pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle repeat
        unsafe_view unsafe_split unsafe_split_with_sizes reflection_pad1d reflection_pad2d reflection_pad3d
        replication_pad1d replication_pad2d replication_pad3d index index_select gather take index_put slice_scatter
        select_scatter scatter index_copy unsafe_index split_with_sizes_copy split_copy""",
        _as_it_is,
    ),
}
