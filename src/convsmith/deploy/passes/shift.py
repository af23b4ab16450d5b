"""Shifts (`convsmith.nn.Shift`) made cheap in a deployed network.

A back end that keeps its maps in blocks of channels, as ONNX Runtime does, has to lay a map out anew for a shift that
slices, pads and joins it. The depthwise convolution with one-hot kernels stays within the blocks, and takes over the
norm and the activation behind the shift (Wu et al. 2018, arXiv:1711.08141, Fig. 3), which no convolution in front of
the shift can: the zeros at the borders are normalised too.

Where the next 1 x 1 convolution strides, it reads a fraction of the shifted map, and the shift computes only that. A
shift is nearly free there, and on small maps: a unit takes 1.00 to 1.25 of what it would without one, most with 5 x 5
kernels on 56 x 56 pixels. To make one convolution of both is dearer: its k * k times as many multiplications take two
to eleven times as long (`benchmarks/shift_speed.py`).
"""

from __future__ import annotations

from collections import Counter

from torch import fx, nn

from convsmith.deploy.passes.trace import NotTraceableError, is_changed, trace
from convsmith.deploy.passes.wiring import NORMS
from convsmith.deploy.snapshot import snapshot
from convsmith.nn import Shift
from convsmith.nn.channel_map import ELEMENTWISE

_POINTWISE = (
    *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh),
)
_POINTWISE_FUNCTIONS = ELEMENTWISE - {"batch_norm", "instance_norm", "interpolate"}


def fold_shift(module: nn.Module) -> nn.Module:
    """A copy of the module, in eval mode, whose shifts are depthwise convolutions, and stride where they can.

    The copy computes what the module computes in eval mode; it is of the same class. Where the shifted map goes only
    through norms and activations into a strided 1 x 1 convolution, the shift gets the stride, if torch.fx can follow.
    Fold norms after this (`fold_norm`). Shifts with hooks stay. The module itself is left untouched.
    """
    folded = snapshot(module)
    convolutions: dict[nn.Module, nn.Conv2d] = {}
    for parent in list(folded.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, Shift) and not is_changed(child):
                setattr(parent, name, convolutions.setdefault(child, child.as_convolution()))
    for shift_name, reader_name in _strided(folded, set(convolutions.values())) if convolutions else ():
        shift, reader = folded.get_submodule(shift_name), folded.get_submodule(reader_name)
        assert isinstance(shift, nn.Conv2d)
        assert isinstance(reader, nn.Conv2d)
        shift.stride = shift.stride[0] * reader.stride[0], shift.stride[1] * reader.stride[1]
        reader.stride = (1, 1)
    return folded


def _strided(folded: nn.Module, shifts: set[nn.Conv2d]) -> list[tuple[str, str]]:
    """Names of each shift whose map only a strided 1 x 1 convolution reads, and of that convolution."""
    traced = snapshot(folded)
    names = [name for name, child in folded.named_modules() if child in shifts]
    try:
        graph, _ = trace(traced)
    except NotTraceableError:
        return []
    nodes = graph.find_nodes(op="call_module")
    called = [traced.get_submodule(str(node.target)) for node in nodes]
    hidden = {inner for module in called for inner in module.modules() if inner is not module}
    calls = Counter(called)
    layers = {node: m for node, m in zip(nodes, called, strict=True) if m not in hidden and not is_changed(m)}
    once = {node: layer for node, layer in layers.items() if calls[layer] == 1}
    starts = {traced.get_submodule(name) for name in names}
    pairs = []
    for node, layer in once.items():
        if layer in starts and (reader := _reader(node, layers)) is not node and reader in once:
            found = once[reader]
            if type(found) is nn.Conv2d and found.kernel_size == (1, 1) and found.padding == (0, 0):
                pairs.append((str(node.target), str(reader.target)))
    return pairs


def _reader(node: fx.Node, layers: dict[fx.Node, nn.Module]) -> fx.Node:
    """The only reader of a map behind what works on single values; where there are several, the last of these."""
    while len(node.users) == 1:
        last, (node,) = node, node.users
        if node.all_input_nodes != [last] or not _is_pointwise(node, layers.get(node)):
            break
    return node


def _is_pointwise(node: fx.Node, layer: nn.Module | None) -> bool:
    if isinstance(layer, nn.BatchNorm2d):
        return type(layer) in NORMS and not layer.training and layer.running_mean is not None
    name = getattr(node.target, "__name__", node.target if node.op == "call_method" else "")
    return type(layer) in _POINTWISE or str(name).strip("_") in _POINTWISE_FUNCTIONS
