"""Two convolutions with nothing between them made one, where the one computes less.

A k x k and a 1 x 1 convolution are one k x k convolution in either order. A bias in front of a convolution that pads
zeros stays in the way: it is not there in the padding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from convsmith.deploy.passes.draft import Draft, changed


def merge_convolutions(module: nn.Module) -> nn.Module:
    """A copy of the module, in eval mode, with one convolution for two that follow each other, where that is cheaper.

    One of the two must be 1 x 1, neither may have groups. The copy computes what the module computes in eval mode. It
    is a torch.fx.GraphModule; where nothing can be merged, it is of the module's own class and unchanged. The module
    itself is left untouched.

    Raises NotTraceableError when torch.fx cannot follow the module's own `forward`.
    """
    return changed(module, merge_draft)


def merge_draft(draft: Draft) -> None:
    """`merge_convolutions`, of a network that is changed already."""
    layers = draft.wiring.layers
    merged = 0
    for node in list(draft.graph.nodes):
        before = node.args[0] if node.args else None
        first, second = layers.get(before), layers.get(node)  # type: ignore[arg-type]
        if type(first) is not nn.Conv2d or type(second) is not nn.Conv2d or set(before.users) != {node}:  # type: ignore[union-attr]
            continue
        assert isinstance(before, fx.Node)
        both = _merged(first, second)
        if both is not None:
            draft.network.set_submodule(str(before.target), both)
            layers[before] = both
            node.replace_all_uses_with(before)
            draft.graph.erase_node(node)
            merged += 1
    if merged:
        draft.commit()


@torch.no_grad()
def _merged(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d | None:
    """One convolution for both, or None where there is none or it computes more."""
    if first.groups > 1 or second.groups > 1:
        return None
    a, b = first.weight.double(), second.weight.double()
    stride = first.stride[0] * second.stride[0], first.stride[1] * second.stride[1]
    between = second.stride[0] * second.stride[1]  # outputs of the first one for one of the second
    spatial: Any
    if _is_pointwise(second):
        weight, spatial = torch.einsum("om,mihw->oihw", b[:, :, 0, 0], a), first
    elif _is_pointwise(first) and first.stride == (1, 1) and (first.bias is None or not _pads_zeros(second)):
        weight, spatial = torch.einsum("omhw,mi->oihw", b, a[:, :, 0, 0]), second
    else:
        return None
    named = isinstance(spatial.padding, str) and stride != (1, 1)  # torch has none with a stride
    if named or weight.numel() > between * a.numel() + b.numel():
        return None
    has_bias = first.bias is not None or second.bias is not None
    both = nn.Conv2d(
        first.in_channels,
        second.out_channels,
        spatial.kernel_size,
        stride,
        padding=spatial.padding,
        dilation=spatial.dilation,
        bias=has_bias,
        padding_mode=spatial.padding_mode,
        device="meta",
    ).eval()
    both.weight = nn.Parameter(weight.to(first.weight.dtype), first.weight.requires_grad)
    if both.bias is not None:
        bias = weight.new_zeros(len(weight))
        if first.bias is not None:
            bias += b.sum((2, 3)) @ first.bias.double()
        if second.bias is not None:
            bias += second.bias.double()
        both.bias = nn.Parameter(bias.to(first.weight.dtype), first.weight.requires_grad)
    return both


def _is_pointwise(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == (1, 1) and layer.padding in ((0, 0), "valid", "same")


def _pads_zeros(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and layer.padding not in ((0, 0), "valid")
