"""What computes nothing taken out of a network: identities, dead branches, pads that a layer can do itself.

What depends on the values of weights stays, such as a branch whose last norm starts at zero: the time of a network must
not change with its training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, fx, nn

from convsmith.deploy.passes.draft import Draft, changed
from convsmith.deploy.passes.trace import is_changed
from convsmith.deploy.passes.wiring import argument, name_of

_NOTHING = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
)
_DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
_NOT_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid)
_NOT_NEGATIVE_FUNCTIONS = ("relu", "relu6", "sigmoid", "hardsigmoid")


Rule: TypeAlias = Callable[[fx.Node, Draft], fx.Node | None]  # what may stand in a node's place


def tidy(module: nn.Module, example: Tensor) -> nn.Module:
    """A copy of the module, in eval mode, without identities, dead branches and separate zero pads.

    Taken out are dropout, sums with zero and products with one, concatenations of one map, pooling that
    changes nothing, sums with a branch that is multiplied by zero (its infinities would have given NaN), and what
    nobody reads. A zero pad, alike on opposite sides, goes into the convolution, the average pooling that counts it, or
    the max pooling of a map without negative values that reads it. The copy computes what the module computes in eval
    mode on inputs of the example's shape and any batch size. It is a torch.fx.GraphModule; where there is nothing to be
    taken out, it is of the module's own class and unchanged. The module itself is left untouched.

    Raises NotTraceableError when torch.fx cannot follow the module's own `forward`.
    """
    return changed(module, tidy_draft, example)


def tidy_draft(draft: Draft) -> None:
    """`tidy`, of a network that is changed already."""
    before = len(draft.graph.nodes)
    for node in list(draft.graph.nodes):
        # What works in place behind an identity changes the identity's input too; behind any other node it would not.
        alone = not any(draft.wiring.in_place(user) for user in node.users)
        for rule in _RULES if alone else (_identity,):
            if (x := rule(node, draft)) is not None:
                node.replace_all_uses_with(x)
                draft.graph.erase_node(node)
                break
    if len(draft.graph.nodes) < before or any(not node.users for node in draft.graph.nodes if node.op != "output"):
        draft.commit(known_shapes=True)  # what is left computes what it computed


def _identity(node: fx.Node, draft: Draft) -> fx.Node | None:
    x = node.args[0] if node.args else None
    if not isinstance(x, fx.Node) or node.kwargs.get("inplace"):
        return None
    if node.op == "call_module":
        layer = draft.network.get_submodule(str(node.target))
        return x if type(layer) in _NOTHING and not is_changed(layer) else None
    training = argument(node, 2, "training", True)
    return (
        x if name_of(node) in _DROPOUTS and training is False and argument(node, 3, "inplace", False) is False else None
    )


def _neutral(node: fx.Node, draft: Draft) -> fx.Node | None:
    """The map that a number is added to, or multiplied by, without effect."""
    name = name_of(node)
    neutral = {"add": 0, "sub": 0, "mul": 1, "div": 1, "truediv": 1}.get(name)
    if neutral is None or draft.wiring.in_place(node) or node.kwargs or len(node.args) != 2:
        return None
    a, b = node.args
    if isinstance(b, fx.Node) and name in ("add", "mul"):
        a, b = b, a
    if not isinstance(a, fx.Node) or isinstance(b, fx.Node | bool) or b != neutral:
        return None
    return a if a in draft.shapes and draft.shapes[a] == draft.shapes.get(node) else None


def _concatenation_of_one(node: fx.Node, draft: Draft) -> fx.Node | None:
    maps = argument(node, 0, "tensors", ())
    if name_of(node) in ("cat", "concat") and isinstance(maps, list | tuple) and len(maps) == 1:
        return maps[0] if isinstance(maps[0], fx.Node) else None
    return None


def _pooling_of_single_pixels(node: fx.Node, draft: Draft) -> fx.Node | None:
    if len(node.all_input_nodes) != 1:
        return None
    (x,), layer = node.all_input_nodes, draft.wiring.layers.get(node)
    if isinstance(layer, nn.AvgPool2d | nn.MaxPool2d):
        single = (layer.kernel_size, layer.stride, layer.padding) in ((1, 1, 0), ((1, 1), (1, 1), (0, 0)))
        return x if single and not getattr(layer, "return_indices", False) else None
    if not isinstance(layer, nn.AdaptiveAvgPool2d) and name_of(node) != "adaptive_avg_pool2d":
        return None
    size = layer.output_size if isinstance(layer, nn.AdaptiveAvgPool2d) else argument(node, 1, "output_size", None)
    # One pixel comes of larger maps nearly always: that is not worth finding out the shapes.
    return x if size not in (1, (1, 1), [1, 1]) and draft.shapes[x] == draft.shapes[node] else None


def _sum_with_zero(node: fx.Node, draft: Draft) -> fx.Node | None:
    if name_of(node) != "add" or draft.wiring.in_place(node) or node.kwargs or len(node.args) != 2:
        return None
    for x, zero in (node.args, node.args[::-1]):
        if isinstance(x, fx.Node) and _is_zero(zero) and x in draft.shapes:
            return x if draft.shapes[x] == draft.shapes[node] else None
    return None


def _is_zero(node: Any) -> bool:
    if not isinstance(node, fx.Node):
        return False
    numbers = [value for value in node.args if isinstance(value, int | float)]
    return name_of(node) == "zeros_like" or (name_of(node) == "mul" and numbers == [0])


def _pad(node: fx.Node, draft: Draft) -> fx.Node | None:
    """The map in front of a zero pad, once all its readers pad by themselves."""
    x, sizes = _zero_pad(node, draft)
    if x is None or len(draft.shapes[x]) != 4 or len(sizes) != 4 or sizes[0] != sizes[1] or sizes[2] != sizes[3]:
        return None
    pad = (sizes[2], sizes[0])
    layers: list[Any] = [draft.wiring.layers.get(user) for user in node.users]
    if min(pad) < 0 or not layers or not all(_can_pad(layer, pad, x, draft) for layer in layers):
        return None
    for user, layer in zip(node.users, layers, strict=True):
        padding = tuple(a + b for a, b in zip(pad, _pair(layer.padding), strict=True))
        if isinstance(layer, nn.Conv2d):
            layer.padding = padding
            continue
        padded = copy.copy(layer)  # it may be called elsewhere too
        padded.padding = padding
        if isinstance(padded, nn.AvgPool2d):
            padded.count_include_pad = True
        user.target = f"{user.target}_padded_{padding[0]}_{padding[1]}"
        draft.network.set_submodule(user.target, padded)
    return x


def _zero_pad(node: fx.Node, draft: Draft) -> tuple[fx.Node | None, list[int]]:
    x: Any = node.args[0] if node.args else None
    if node.op == "call_module" and isinstance(x, fx.Node):
        layer: Any = draft.network.get_submodule(str(node.target))
        zero = type(layer) is nn.ZeroPad2d or (type(layer) is nn.ConstantPad2d and layer.value == 0)
        return (x, list(layer.padding)) if zero and not is_changed(layer) else (None, [])
    sizes, mode, value = (
        argument(node, i, key, d) for i, key, d in ((1, "pad", ()), (2, "mode", "constant"), (3, "value", None))
    )
    known = name_of(node) == "pad" and isinstance(x, fx.Node) and isinstance(sizes, list | tuple)
    if not known or mode != "constant" or value not in (None, 0) or not all(isinstance(size, int) for size in sizes):
        return None, []
    return x, list(sizes)


def _can_pad(layer: Any, pad: tuple[int, int], x: fx.Node, draft: Draft) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if not isinstance(layer, nn.AvgPool2d | nn.MaxPool2d) or layer.ceil_mode or any(_pair(layer.padding)):
        return False
    if any(2 * side > size for side, size in zip(pad, _pair(layer.kernel_size), strict=True)):
        return False
    if isinstance(layer, nn.AvgPool2d):
        return layer.divisor_override is None
    # The zeros become minus infinity, which is the same beside values that are not negative.
    positive = isinstance(draft.wiring.layers.get(x), _NOT_NEGATIVE) or name_of(x) in _NOT_NEGATIVE_FUNCTIONS
    return positive and layer.dilation in (1, (1, 1)) and not layer.return_indices


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


_RULES: tuple[Rule, ...] = (
    *(_identity, _neutral, _concatenation_of_one, _pooling_of_single_pixels, _sum_with_zero),
    _pad,
)
