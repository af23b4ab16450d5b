"""Which module is called with whose output: the graph of a forward pass, by torch.fx."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar, cast

from torch import Tensor, fx, nn
from torch.fx.proxy import Attribute
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

E = TypeVar("E", bound=Exception)


class NotTraceableError(ValueError):
    """The module's own `forward` branches on values or does what torch.fx cannot follow."""


def is_changed(module: nn.Module) -> bool:
    """Whether a call of the module does something else than the `forward` of its class: hooks, or one of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def trace(module: nn.Module) -> tuple[fx.Graph, set[int]]:
    """The graph of a call with one tensor, other arguments at their defaults, and the ids of the tensors read.

    Read are the parameters and buffers that a `forward` took out of a module rather than calling it. Layers of
    torch.nn, convolutions, linear layers and batch norms (subclasses too) are nodes, and so is every submodule whose
    class torch.fx cannot follow. Tracing runs `forward`, which may leave something behind in the module: give a copy.

    Raises NotTraceableError when torch.fx cannot follow the module's own `forward`.
    """
    parameters = list(inspect.signature(module.forward).parameters.values())
    defaults = {p.name: p.default for p in parameters[1:] if p.default is not inspect.Parameter.empty}
    opaque: set[type[nn.Module]] = set()
    while True:
        tracer = _Tracer(opaque)
        try:
            with warnings.catch_warnings():
                # It cannot assert that an unusual default is still given; nobody calls the graph.
                warnings.filterwarnings("ignore", "Was not able to add assertion", UserWarning)
                graph = tracer.trace(module, defaults)
                tracer.check()
                return graph, tracer.read
        except Exception as error:
            if tracer.failed is None:
                reason = str(error).partition("\n")[0]
                raise NotTraceableError(
                    f"folding needs a forward without control flow on values, and torch.fx could not follow that of "
                    f"{type(module).__name__} ({reason}); move the branch into a submodule, or go on without folding"
                ) from error
            opaque.add(tracer.failed)


class _Unknown(fx.Proxy):
    """Python asks in vain for what it holds; `__index__` has no answer here, as torch tries it and goes on without."""

    def _has_no_value(self) -> NoReturn:
        raise cast(_Tracer, self.tracer).refused(TypeError("forward asks for a number that tracing does not know"))

    def __float__(self) -> float:
        """Raise TypeError."""
        self._has_no_value()

    def __int__(self) -> int:
        """Raise TypeError."""
        self._has_no_value()

    def __len__(self) -> int:
        """Raise TypeError."""
        self._has_no_value()

    def __format__(self, spec: str) -> str:
        """Raise TypeError where digits are asked for."""
        return self._has_no_value() if spec else str(self)


class _Proxy(_Unknown):
    """A value of the graph."""

    def __getattr__(self, k: str) -> Attribute:
        """What belongs to the value, such as its shape."""
        return _Attribute(self, k)


class _Attribute(_Unknown, Attribute):
    """What belongs to a value of the graph."""


class _Tracer(fx.Tracer):
    """Remembers what was read, and the class of the innermost submodule that could not be traced.

    The classes in `opaque` are nodes. What `forward` asks of a value in vain fails again behind it, as it may catch
    the error and go on another way than with values.
    """

    def __init__(self, opaque: set[type[nn.Module]]):
        super().__init__()
        self.opaque = opaque
        self.failed: type[nn.Module] | None = None
        self.first: Exception | None = None
        self.read: set[int] = set()

    def refused(self, error: E) -> E:
        """The error, which is remembered if it is the first one."""
        self.first = self.first or error
        return error

    def check(self) -> None:
        """Raise the first error that `forward` met, whether or not it has caught it."""
        if self.first is not None:
            raise self.first

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The value of a node."""
        return _Proxy(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Raise what torch.fx raises for a decision."""
        with self._remembering():
            return super().to_bool(obj)

    def iter(self, obj: fx.Proxy) -> Any:
        """Raise what torch.fx raises for a loop over a value."""
        with self._remembering():
            return super().iter(obj)

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.refused(error)
            raise

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, _BatchNorm | _ConvNd | nn.Linear) or type(m) in self.opaque
        return known or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            made = super().call_module(m, forward, args, kwargs)
            self.check()
            return made
        except Exception:
            if self.failed is None and not self.is_leaf_module(m, self.path_of_module(m)):
                self.failed = type(m)
            raise

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if isinstance(attr_val, Tensor):
            self.read.add(id(attr_val))
        return super().getattr(attr, attr_val, parameter_proxy_cache)
