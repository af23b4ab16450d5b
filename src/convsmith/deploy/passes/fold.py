"""Batch normalisation folded into the convolution or linear layer before it, weight normalisation into its own.

In eval mode `norm(conv(x)) = gamma * (W x + b - mean) / sqrt(var + eps) + beta` is a convolution with the weight
`W * scale` and the bias `(b - mean) * scale + beta`, where `scale = gamma / sqrt(var + eps)` (Ioffe & Szegedy 2015,
arXiv:1502.03167, Sec. 3.1 and Alg. 2).
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from convsmith.deploy.passes.draft import Draft
from convsmith.deploy.passes.trace import is_changed, trace
from convsmith.deploy.snapshot import snapshot
from convsmith.nn import BatchNorm, WeightNormConv2d

# Exactly these layers: a subclass may standardise its weight, a parametrised layer computes it anew.
_NORM_BEHIND: dict[type[nn.Module], type[_BatchNorm]] = {
    nn.Linear: nn.BatchNorm1d,
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.ConvTranspose1d: nn.BatchNorm1d,
    nn.ConvTranspose2d: nn.BatchNorm2d,
    nn.ConvTranspose3d: nn.BatchNorm3d,
}
_PLAIN_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNorm)


class Rows(nn.Module):
    """What is left of a norm folded into a linear layer: the norm counts channels along dimension 1, the layer last."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` of shape (N, C), unchanged; any other number of dimensions raises ValueError."""
        if x.dim() != 2:
            raise ValueError(
                f"a linear layer with a folded norm needs an input of shape (N, C), got {tuple(x.shape)}; give "
                "fold_norm an example of the network's input, and it leaves such a norm"
            )
        return x


def fold_norm(module: nn.Module, example: Tensor | None = None, *, sharing: bool = False) -> nn.Module:
    """A copy of the module, in eval mode, whose batch norms are folded into the layer before them where that is valid.

    The copy computes what the module computes in eval mode, also when the module is in training mode. It is of the same
    class: folded layers got new weights, folded norms became identities (of a norm with a built-in activation the
    activation stays), `folded_norms` lists their names, and each `WeightNormConv2d` became a plain convolution. A norm
    stays where the layer before it also feeds something else or works with other norms, where it normalises by the
    batch, and behind subclassed, parametrised or hooked layers. The module itself is left untouched; a copy that is
    `sharing` has the module's own parameters where nothing is folded.

    A norm behind a linear layer counts channels along dimension 1, which is the layer's only for inputs (N, C): with an
    `example` of the module's input it stays where it gets others; without one, the folded copy refuses them.

    Raises NotTraceableError when torch.fx cannot follow the module's own `forward`; submodules that it cannot follow
    are left as they are. While it follows, `isinstance(x, Tensor)` is false: a `forward` that asks this may be misread
    (`export` and the back ends, which have an example, notice and go on unfolded).
    """
    traced = plain_weights(snapshot(module, sharing=True))  # to be read, and run without gradients
    pairs = _pairs(traced, *trace(traced))
    if example is not None:
        pairs = _rows_only(pairs, traced, example)
    folded = plain_weights(snapshot(module, sharing=sharing))
    _fold_all(folded, pairs)
    return folded


def fold_draft(draft: Draft) -> None:
    """`fold_norm`, of a network that is followed already; its weights are computed from nothing (`plain_weights`)."""
    pairs = _pairs(draft.network, draft.graph, draft.read)
    if draft.example is not None:
        pairs = _rows_only(pairs, draft.network, draft.example)
    _fold_all(draft.network, pairs)
    if any(type(rest) is not nn.Identity for _, _, rest in pairs):
        draft.trace_again()


def _fold_all(folded: nn.Module, pairs: list[tuple[str, str, nn.Module]]) -> None:
    places: dict[nn.Module, list[tuple[nn.Module, str]]] = defaultdict(list)  # a norm may be in several
    for parent in folded.modules():
        for name, child in parent._modules.items():
            if child is not None:
                places[child].append((parent, name))
    for norm_name, layer_name, rest in pairs:
        norm = folded.get_submodule(norm_name)
        _fold(folded.get_submodule(layer_name), norm)
        for parent, name in places[norm]:
            setattr(parent, name, rest.eval())
    folded.folded_norms = tuple(norm_name for norm_name, _, _ in pairs)  # type: ignore[assignment]


def plain_weights(copied: nn.Module) -> nn.Module:
    """The copy with plain convolutions for those that compute their weight from a length and a direction."""
    plain: dict[nn.Module, nn.Module] = {}
    for parent in list(copied.modules()):
        for name, child in parent._modules.items():
            if type(child) is WeightNormConv2d and not is_changed(child):
                setattr(parent, name, plain.setdefault(child, child.plain()))
    return copied


def _pairs(root: nn.Module, graph: fx.Graph, read: set[int]) -> list[tuple[str, str, nn.Module]]:
    """Name of each norm that may be folded, name of the layer before it, and what remains of the norm."""
    calls: dict[nn.Module, list[fx.Node]] = defaultdict(list)
    for node in graph.find_nodes(op="call_module"):
        calls[root.get_submodule(str(node.target))].append(node)
    hidden = {inner for module in calls for inner in module.modules() if inner is not module}

    def simple(module: nn.Module) -> bool:
        own = (*module.parameters(), *module.buffers())
        return not is_changed(module) and module not in hidden and not any(id(tensor) in read for tensor in own)

    pairs = []
    for norm, nodes in calls.items():
        if not isinstance(norm, _BatchNorm) or norm.training or norm.running_mean is None or not simple(norm):
            continue
        layers = {_source(root, node) for node in nodes}
        layer = layers.pop()
        if layers or layer is None or not _fits(layer, norm) or not simple(layer):
            continue
        # Of a block that is called several times, every call must feed this norm alone.
        if any(set(node.users) - set(nodes) for node in calls[layer]):
            continue
        rest = _rest(norm)
        if rest is not None:
            rest = nn.Sequential(Rows(), rest) if isinstance(layer, nn.Linear) else rest
            pairs.append((str(nodes[0].target), str(calls[layer][0].target), rest))
    return pairs


def _rows_only(
    pairs: list[tuple[str, str, nn.Module]], network: nn.Module, example: Tensor
) -> list[tuple[str, str, nn.Module]]:
    """Those pairs without norms that follow a linear layer and get anything but (N, C) in a pass over the example."""
    followers = [name for name, layer, _ in pairs if isinstance(network.get_submodule(layer), nn.Linear)]
    if not followers:
        return pairs
    others: set[str] = set()

    def note(name: str, x: Tensor) -> None:
        if x.dim() != 2:
            others.add(name)

    network = snapshot(network)  # what a forward changes, it changes there
    for name in followers:
        network.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
    with torch.inference_mode():
        network(example.clone())
    return [pair for pair in pairs if pair[0] not in others]


def _source(root: nn.Module, call: fx.Node) -> nn.Module | None:
    """The module whose output is the only argument of the call."""
    if len(call.args) != 1 or call.kwargs or not isinstance(call.args[0], fx.Node) or call.args[0].op != "call_module":
        return None
    return root.get_submodule(str(call.args[0].target))


def _attribute(root: nn.Module, target: str) -> Any:
    owner, _, name = target.rpartition(".")
    return getattr(root.get_submodule(owner), name)


def _fits(layer: Any, norm: _BatchNorm) -> bool:
    if type(layer) not in _NORM_BEHIND or not isinstance(norm, _NORM_BEHIND[type(layer)] | nn.SyncBatchNorm):
        return False
    return bool(norm.num_features == (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels))


def _rest(norm: _BatchNorm) -> nn.Module | None:
    """What a norm does after it has normalised, and None when that cannot be told."""
    if type(norm) in _PLAIN_NORMS:
        return nn.Identity()
    norm = snapshot(norm)  # type: ignore[assignment]
    norm._check_input_dim = lambda x: None  # type: ignore[method-assign]
    try:
        graph, _ = trace(norm)
    except ValueError:
        return None
    nodes = graph.find_nodes(op="call_function", target=F.batch_norm)
    source = graph.find_nodes(op="placeholder")[0]
    if len(nodes) != 1 or not _normalises(nodes[0], source, norm):
        return None
    nodes[0].replace_all_uses_with(source)
    graph.erase_node(nodes[0])
    rest = fx.GraphModule(norm, graph, type(norm).__name__)
    rest.graph.eliminate_dead_code()
    rest.recompile()
    return nn.Identity() if {node.op for node in rest.graph.nodes} == {"placeholder", "output"} else rest


def _normalises(node: fx.Node, source: fx.Node, norm: _BatchNorm) -> bool:
    """Whether the node is the batch norm, by the norm's own numbers, of an input that serves nothing else."""
    bound = inspect.signature(F.batch_norm).bind(*node.args, **node.kwargs).arguments
    own = [norm.running_mean, norm.running_var, norm.weight, norm.bias]
    given = [
        _attribute(norm, str(value.target)) if isinstance(value, fx.Node) and value.op == "get_attr" else value
        for value in map(bound.get, ("running_mean", "running_var", "weight", "bias"))
    ]
    same = all(a is b for a, b in zip(own, given, strict=True)) and bound["eps"] == norm.eps
    # A check of the input's shape does no harm: folding changes values only.
    alone = all(user is node or user.args[1:] in (("ndim",), ("shape",)) for user in source.users)
    return same and alone and bound["input"] is source and not bound.get("training", False)


@torch.no_grad()
def _fold(layer: Any, norm: Any) -> None:
    # In float64: the fold is computed once, and should cost the float32 network no accuracy.
    gamma = 1.0 if norm.weight is None else norm.weight.double()
    beta = 0.0 if norm.bias is None else norm.bias.double()
    scale = gamma * (norm.running_var.double() + norm.eps).rsqrt()
    bias = 0.0 if layer.bias is None else layer.bias.double()
    weight = layer.weight.to(torch.float64, copy=True)
    if isinstance(layer, _ConvTransposeNd):  # (in, out / groups, ...), the groups one after the other along `in`
        grouped = weight.unflatten(0, (layer.groups, -1))
        weight = (grouped * scale.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))).flatten(0, 1)
    else:
        weight *= scale.view(-1, *[1] * (weight.dim() - 1))
    bias = (bias - norm.running_mean.double()) * scale + beta
    trainable, dtype = layer.weight.requires_grad, layer.weight.dtype
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=trainable)
    layer.bias = nn.Parameter(bias.to(dtype), requires_grad=trainable)
