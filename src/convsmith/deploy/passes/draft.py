"""A traced copy of a network, which passes change one after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from convsmith.deploy.passes.trace import NotTraceableError, is_changed, trace
from convsmith.deploy.passes.wiring import TangledError, Wiring
from convsmith.deploy.snapshot import snapshot


class Draft:
    """A network in eval mode and the graph of its forward pass, both free to be changed.

    A pass takes what it must know from `wiring` and `shapes`, changes `graph` and the layers of `network`, and ends
    with `commit`. The network is a copy of the module, or, where it is `own`, the module itself. Its parameters may be
    those of others: a pass gives a layer new ones and leaves the old ones as they are.

    Raises NotTraceableError when torch.fx cannot follow the module's own `forward`, or a call does more than that.
    """

    def __init__(self, module: nn.Module, example: Tensor | None = None, *, own: bool = False):
        if is_changed(module):
            raise NotTraceableError(
                f"a network that is rewritten must compute what the `forward` of its class says, and "
                f"{type(module).__name__} has hooks or a `forward` of its own; wrap it in a module that calls it"
            )
        self.module = module
        self.example = example
        self.network = module if own else snapshot(module)
        self.graph, self.read = trace(self.network)
        self.is_changed = False

    @cached_property
    def wiring(self) -> Wiring:
        """Where the channels come from; raises TangledError where that cannot be told."""
        return Wiring(self.network, self.graph, self.read)

    @cached_property
    def shapes(self) -> dict[fx.Node, torch.Size]:
        """The shape of each node that gives a tensor, at the example."""
        assert self.example is not None
        recorder = _Recorder(self.network, self.graph)
        with torch.inference_mode():
            recorder.run(self.example.clone())
        return recorder.found

    def commit(self, *, known_shapes: bool = False) -> None:
        """Take the changes over: drop what nobody reads, and forget what was known of the graph.

        With `known_shapes` no map has another shape than before, and each new node has its shape in `shapes`.
        """
        self.graph.owning_module = self.network  # type: ignore[assignment]  # asked for what a dead call would do
        self.graph.eliminate_dead_code()
        self.is_changed = True
        self.__dict__.pop("wiring", None)
        if not known_shapes:
            self.__dict__.pop("shapes", None)

    def trace_again(self) -> None:
        """Follow the network as it is now."""
        self.graph, self.read = trace(self.network)
        for known in ("wiring", "shapes"):
            self.__dict__.pop(known, None)

    @property
    def result(self) -> fx.GraphModule | None:
        """The changed network, None where nothing was changed; its code is written here, once for all passes."""
        if not self.is_changed:
            return None
        made = fx.GraphModule(self.network, self.graph, type(self.network).__name__)
        if hasattr(self.network, "folded_norms"):
            made.folded_norms = self.network.folded_norms
        return made

    def finished(self) -> nn.Module:
        """The changed network; a copy of the module, of its own class, where nothing was changed."""
        return self.result or snapshot(self.module)


Change: TypeAlias = Callable[[Draft], None]


def changed(module: nn.Module, change: Change, example: Tensor | None = None) -> nn.Module:
    """A copy of the module after one change, or unchanged where its channels cannot be followed."""
    draft = Draft(module, example)
    try:
        change(draft)
    except TangledError:
        return snapshot(module)
    return draft.finished()


class _Recorder(fx.Interpreter):
    def __init__(self, network: nn.Module, graph: fx.Graph):
        super().__init__(network, graph=graph)
        self.found: dict[fx.Node, torch.Size] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.found[n] = result.shape
        return result
