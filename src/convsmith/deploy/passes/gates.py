"""Activations and squeeze-and-excitation in the forms that back ends know as one operator.

`x * sigmoid(x)` is SiLU, `relu6(x + 3) / 6` the hard sigmoid, their product with x the hard swish; each formula is an
identity, nothing is approximated. A mean over all pixels is global pooling, and linear layers between it and the gate
are 1 x 1 convolutions, which stay in a back end's own layout of maps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from convsmith.deploy.passes.draft import Draft, changed
from convsmith.deploy.passes.trace import is_changed
from convsmith.deploy.passes.wiring import argument, name_of

_BY_MODULE: dict[type[nn.Module], str] = {
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hardsigmoid",
    nn.ReLU6: "relu6",
}
# Of one vector's values each by itself, by name and by layer.
_UNARY = ("relu", "relu6", "sigmoid", "hardsigmoid", "silu", "hardswish", "tanh", "gelu", "elu", "leaky_relu")
_UNARY_LAYERS = (
    *(nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.SiLU, nn.Hardswish, nn.Tanh, nn.GELU, nn.ELU, nn.LeakyReLU),
)
_VIEWS = ("view", "reshape", "unsqueeze", "getitem")


def fuse_gates(module: nn.Module, example: Tensor) -> nn.Module:
    """A copy of the module, in eval mode, with SiLU, hard sigmoid, hard swish and global pooling as one call each.

    Linear layers between global pooling and a gate of shape (N, C, 1, 1) become 1 x 1 convolutions. The copy computes
    what the module computes in eval mode on inputs of the example's shape and any batch size. It is a
    torch.fx.GraphModule; where nothing is found, it is of the module's own class and unchanged. The module is left
    untouched.

    Raises NotTraceableError when torch.fx cannot follow the module's own `forward`.
    """
    return changed(module, fuse_draft, example)


def fuse_draft(draft: Draft) -> None:
    """`fuse_gates`, of a network that is changed already."""
    gates = _Gates(draft)
    # Hard sigmoids before the products with them.
    count = sum([gates.replace(rule) for rule in (gates.mean, gates.hard_sigmoid, gates.gated_by_itself)])
    if gates.convolutions() + count:
        draft.commit()


class _Gates:
    def __init__(self, draft: Draft):
        self.draft = draft
        self.network = draft.network
        self.graph = draft.graph
        self.wiring = draft.wiring

    @property
    def shapes(self) -> dict[fx.Node, torch.Size]:
        """Found out only if a rule asks."""
        return self.draft.shapes

    def replace(self, rule: Any) -> int:
        """Apply a rule, which inserts and returns the new node, to every node; how often it applied."""
        count = 0
        for node in list(self.graph.nodes):
            if self.wiring.in_place(node) if node.op.startswith("call") else True:
                continue
            with self.graph.inserting_before(node):
                new = rule(node)
            if new is not None:
                if "shapes" in vars(self.draft):
                    self.shapes[new] = self.shapes[node]
                node.replace_all_uses_with(new)
                self.graph.erase_node(node)
                count += 1
        return count

    def mean(self, node: fx.Node) -> fx.Node | None:
        """Global pooling for a mean over height and width."""
        x, dims = argument(node, 0, "input", None), argument(node, 1, "dim", None)
        if name_of(node) != "mean" or not isinstance(dims, list | tuple) or set(node.kwargs) - {"dim", "keepdim"}:
            return None
        if len(self.shapes.get(x, ())) != 4 or sorted(dim % 4 for dim in dims) != [2, 3]:
            return None
        pooled = self.graph.call_function(F.adaptive_avg_pool2d, (x, 1))
        self.shapes[pooled] = torch.Size((*self.shapes[x][:2], 1, 1))
        return pooled if argument(node, 2, "keepdim", False) else self.graph.call_function(torch.flatten, (pooled, 1))

    def hard_sigmoid(self, node: fx.Node) -> fx.Node | None:
        """The hard sigmoid for `relu6(x + 3) / 6`."""
        clipped, number = _map_and_number(node)
        sixth = (name_of(node) in ("div", "truediv") and number == 6) or (name_of(node) == "mul" and number == 1 / 6)
        # Six by the map is another thing.
        if not sixth or self.name(clipped) != "relu6" or not isinstance(node.args[0], fx.Node):
            return None
        shifted = clipped.all_input_nodes[0]
        x, three = _map_and_number(shifted)
        alone = len(clipped.users) == 1 and len(shifted.users) == 1 and not self.wiring.in_place(shifted)
        if name_of(shifted) != "add" or three != 3 or not alone:
            return None
        return self.graph.call_function(F.hardsigmoid, (x,))

    def gated_by_itself(self, node: fx.Node) -> fx.Node | None:
        """SiLU for `x * sigmoid(x)`, the hard swish for `x * hardsigmoid(x)`."""
        if name_of(node) != "mul" or len(node.args) != 2 or not all(isinstance(x, fx.Node) for x in node.args):
            return None
        a, b = node.all_input_nodes * 2 if len(node.all_input_nodes) == 1 else node.all_input_nodes
        for x, gate in ((a, b), (b, a)):
            fused = {"sigmoid": F.silu, "hardsigmoid": F.hardswish}.get(self.name(gate))
            if fused and gate.all_input_nodes == [x] and not self.wiring.in_place(gate):
                return self.graph.call_function(fused, (x,))
        return None

    def convolutions(self) -> int:
        """Let squeezing run on maps of one pixel; how many layers became convolutions."""
        count = 0
        for node in list(self.graph.nodes):
            shape = self.shapes.get(node, ()) if name_of(node) in _VIEWS else ()
            if len(shape) == 4 and shape[2:] == (1, 1):
                count += self._squeeze(node, list(shape[:2]))
        return count

    def _squeeze(self, view: fx.Node, shape: list[int]) -> int:
        """Convolutions between the pooled map and the view that makes a map of a vector of `shape`."""
        vector = view.all_input_nodes[0]
        while name_of(vector) == "unsqueeze" and len(vector.users) == 1:
            vector = vector.all_input_nodes[0]
        linear, node = [], vector
        while not self._flattens(node):
            layer = self._plain(node)
            if type(layer) is nn.Linear:
                linear.append(node)
            elif type(layer) not in _UNARY_LAYERS and name_of(node) not in _UNARY:
                return 0
            if len(node.users) != 1 or len(node.all_input_nodes) != 1:
                return 0
            node = node.all_input_nodes[0]
        if not linear or list(self.shapes[vector]) != shape:
            return 0
        reader = next(user for user in node.users if self._leads_to(user, vector))
        for layer_node in linear:
            name = str(layer_node.target)
            self.network.set_submodule(name, _convolution(self.network.get_submodule(name)))
        reader.replace_input_with(node, node.all_input_nodes[0])
        view.replace_all_uses_with(vector)
        return len(linear)

    def _flattens(self, node: fx.Node) -> bool:
        """Whether the node makes a vector of a map of one pixel."""
        if name_of(node) not in ("flatten", "view", "reshape"):
            return False
        before, after = self.shapes.get(node.args[0], ()), self.shapes[node]  # type: ignore[arg-type]
        return len(before) == 4 and before[2:] == (1, 1) and after == before[:2]

    def _leads_to(self, node: fx.Node, end: fx.Node) -> bool:
        while node is not end and len(node.users) == 1:
            (node,) = node.users
        return node is end

    def _plain(self, node: fx.Node) -> nn.Module | None:
        """The layer that the node calls, if it has no hooks and, with weights, no other calls."""
        if node.op != "call_module":
            return None
        layer = self.network.get_submodule(str(node.target))
        if node in self.wiring.layers or (not is_changed(layer) and not [*layer.parameters(), *layer.buffers()]):
            return layer
        return None

    def name(self, node: Any) -> str:
        """The name of an activation, called as a layer or a function."""
        if isinstance(node, fx.Node) and node.op == "call_module":
            layer = self._plain(node)
            return _BY_MODULE.get(type(layer), "") if layer is not None else ""
        return name_of(node) if isinstance(node, fx.Node) else ""


def _map_and_number(node: Any) -> tuple[Any, Any]:
    if not isinstance(node, fx.Node) or len(node.args) != 2 or node.kwargs:
        return None, None
    a, b = node.args
    return (a, b) if isinstance(a, fx.Node) else (b, a)


def _convolution(linear: Any) -> nn.Conv2d:
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None, device="meta").eval()
    conv.weight = nn.Parameter(linear.weight.detach()[..., None, None].clone(), linear.weight.requires_grad)
    if linear.bias is not None:
        conv.bias = nn.Parameter(linear.bias.detach().clone(), linear.bias.requires_grad)
    return conv
