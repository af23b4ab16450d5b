"""What an operator costs: the table from ATen operator to formula, and the operators that have no MACs.

An operator stands under its ATen name without leading and trailing underscores, so that `_softmax`, `softmax` and
`softmax_` share a row; an operator of another library carries its namespace (`torchvision::nms`). Composite operators
(`matmul`, `einsum`, `lstm`, ...) need no row: they are counted as the operators they consist of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch._ops import OpOverload

Formula = Callable[..., int]
"""(first output, *positional arguments of the operator) -> multiply-accumulates."""


def _per_output(output: Tensor, x: Tensor, weight: Tensor, *_: object) -> int:
    """Weight (C', C / groups, k, ...): each output element is a sum over one filter."""
    return output.numel() * math.prod(weight.shape[1:])


def _per_input(output: Tensor, x: Tensor, weight: Tensor, *_: object) -> int:
    """Weight (C, C' / groups, k, ...): each input element of a transposed convolution is spread by one filter."""
    return x.numel() * math.prod(weight.shape[1:])


def _convolution(output: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    transposed = rest[4]  # after bias, stride, padding and dilation
    return (_per_input if transposed else _per_output)(output, x, weight)


def _product(output: Tensor, a: Tensor, b: Tensor, *_: object) -> int:
    """(..., n, m) times (..., m, p), or times a vector (m): each element of `a` meets p columns."""
    return a.numel() * (b.shape[-1] if b.dim() > 1 else 1)


def _add_product(output: Tensor, added: Tensor, a: Tensor, b: Tensor, *_: object) -> int:
    return _product(output, a, b)


def _linear(output: Tensor, x: Tensor, weight: Tensor, *_: object) -> int:
    return output.numel() * weight.shape[-1]


def _attention(output: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object) -> int:
    """Query (..., L, E), key (..., S, E), value (..., S, V): products L x E x S and L x S x V for each query head."""
    return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _recurrent(output: Tensor, x: Tensor, weight_input: Tensor, weight_hidden: Tensor, *_: object) -> int:
    """X (T, N, I): every position meets both matrices of all gates."""
    return math.prod(x.shape[:-1]) * (weight_input.numel() + weight_hidden.numel())


# fmt: off
FORMULAS: dict[str, tuple[str, Formula]] = {
    # operator                                 shown as                        MACs
    "conv1d":                                  ("convolution",                  _per_output),
    "conv2d":                                  ("convolution",                  _per_output),
    "conv3d":                                  ("convolution",                  _per_output),
    "conv_transpose1d":                        ("convolution",                  _per_input),
    "conv_transpose2d":                        ("convolution",                  _per_input),
    "conv_transpose3d":                        ("convolution",                  _per_input),
    "convolution":                             ("convolution",                  _convolution),
    "torchvision::deform_conv2d":              ("deform_conv2d",                _per_output),
    "linear":                                  ("linear",                       _linear),
    "mm":                                      ("mm",                           _product),
    "mv":                                      ("mv",                           _product),
    "dot":                                     ("dot",                          _product),
    "vdot":                                    ("dot",                          _product),
    "bmm":                                     ("bmm",                          _product),
    "int_mm":                                  ("mm",                           _product),
    "scaled_mm":                               ("mm",                           _product),
    "addmm":                                   ("addmm",                        _add_product),
    "addmv":                                   ("addmv",                        _add_product),
    "baddbmm":                                 ("baddbmm",                      _add_product),
    "addbmm":                                  ("addbmm",                       _add_product),
    "scaled_dot_product_attention":            ("scaled_dot_product_attention", _attention),
    "scaled_dot_product_flash_attention":      ("scaled_dot_product_attention", _attention),
    "scaled_dot_product_flash_attention_for_cpu": ("scaled_dot_product_attention", _attention),
    "scaled_dot_product_efficient_attention":  ("scaled_dot_product_attention", _attention),
    "scaled_dot_product_cudnn_attention":      ("scaled_dot_product_attention", _attention),
    "mkldnn_rnn_layer":                        ("mkldnn_rnn_layer",             _recurrent),
}
# fmt: on

CONVOLUTIONS = frozenset(("convolution", "deform_conv2d"))
"""The operators, as shown, whose outputs are activations."""

SHOWN_AS = {
    **{operator: shown for operator, (shown, _) in FORMULAS.items()},
    **dict.fromkeys(
        ("native_batch_norm", "native_batch_norm_legit", "native_batch_norm_legit_no_training"), "batch_norm"
    ),
    **dict.fromkeys(("batch_norm_with_update", "batch_norm_no_update", "cudnn_batch_norm"), "batch_norm"),
    "embedding_bag_forward_only": "embedding_bag",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d",
}

MAC_FREE_BY_KIND = {
    "norms": """batch_norm layer_norm group_norm instance_norm rms_norm fused_rms_norm weight_norm_interface""",
    "pooling": """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
        adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d
        max_unpool2d max_unpool3d torchvision::roi_pool torchvision::ps_roi_pool""",
    "interpolation": """upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
        upsample_bicubic2d upsample_trilinear3d upsample_nearest_exact1d upsample_nearest_exact2d
        upsample_nearest_exact3d upsample_bilinear2d_aa upsample_bicubic2d_aa grid_sampler_2d grid_sampler_3d
        affine_grid_generator torchvision::roi_align torchvision::ps_roi_align""",
    "pointwise, without torch's tag": """abs celu complex elu eq floor_divide ge gelu glu gt hardsigmoid hardswish
        hardtanh le log_sigmoid_forward lt masked_fill mish ne prelu_kernel rrelu_with_noise selu threshold
        thnn_fused_lstm_cell""",
    "softmax and dropout": """softmax log_softmax safe_softmax native_dropout fused_dropout""",
    "reductions": """all amax amin aminmax any argmax argmin count_nonzero cummax cummin cumprod cumsum dist
        linalg_vector_norm logcumsumexp logsumexp max mean median min mode nansum norm prod std std_mean sum trace var
        var_mean""",
    "copies": """cat channel_shuffle clone col2im constant_pad_nd copy diag_embed flip im2col lift lift_fresh_copy
        pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d reflection_pad3d repeat replication_pad1d
        replication_pad2d replication_pad3d roll rot90 select_scatter slice_scatter stack to_copy tril triu unsafe_split
        unsafe_split_with_sizes unsafe_view resize convsmith::shift convsmith::channel_shuffle""",
    "look-ups": """bucketize embedding embedding_bag gather index index_add index_copy index_fill index_put index_select
        isin local_scalar_dense masked_scatter masked_select nonzero nonzero_static repeat_interleave scatter
        scatter_add scatter_reduce searchsorted take unsafe_index unsafe_index_put""",
    "order": """kthvalue sort topk unique unique2 unique_consecutive torchvision::nms""",
    "new tensors": """arange empty empty_like empty_permuted empty_strided eye fill full full_like hann_window linspace
        new_empty new_empty_strided new_full new_ones new_zeros ones ones_like scalar_tensor tril_indices triu_indices
        zero zeros zeros_like""",
    "checks and marks": """assert_async assert_scalar assert_tensor_metadata detach functional_assert_async is_same_size
        profiler::_record_function_enter_new profiler::_record_function_exit""",
    "random numbers": """bernoulli exponential multinomial normal rand rand_like randint randint_like randn randn_like
        randperm uniform""",
}

POINTWISE_WITHOUT_TAG = frozenset(MAC_FREE_BY_KIND["pointwise, without torch's tag"].split())
"""Pointwise operators that torch does not tag as such; `glu` halves an axis first."""

MAC_FREE = frozenset(name for names in MAC_FREE_BY_KIND.values() for name in names.split())
"""Operators without convolution or matrix product; besides these, every view and every pointwise operator."""

RESULT_FIRST = frozenset(
    ("batch_norm", "layer_norm", "group_norm", "max_pool2d", "max_pool3d", "scaled_dot_product_attention")
)
"""Operators, as shown, whose further outputs serve the backward pass alone and are no traffic of a forward pass."""

WRITE_ONLY = frozenset(("bernoulli", "copy", "exponential", "fill", "normal", "uniform", "zero"))
"""Operators that, in place, overwrite their first argument without reading it."""

LOOK_UPS = frozenset(("embedding", "gather", "index", "index_select", "take", "unsafe_index"))
"""Operators that read of their first argument as much as they write."""

NO_TRAFFIC = frozenset(
    ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided", "resize")
)
"""Operators that reserve memory without writing it."""


def operator_name(func: OpOverload[..., Any]) -> str:
    """Under which an operator stands in these tables."""
    namespace, _, name = func._schema.name.partition("::")
    return name.strip("_") if namespace == "aten" else func._schema.name
