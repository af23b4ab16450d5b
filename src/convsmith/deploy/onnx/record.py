"""The operators of a forward pass, recorded on tensors without values: what branches on values cannot go on.

One pass is made with a batch size that stands for all (`batch.py`) and fake tensors, which have a shape but no values.
What is computed from weights alone is computed and recorded as a constant.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from convsmith.deploy.onnx.batch import BatchBranchError, Sizes, is_from_batch, representative
from convsmith.deploy.onnx.made import constant, is_per_image
from convsmith.deploy.onnx.pieces import check_whole
from convsmith.deploy.onnx.refusals import BranchError, NotQuickError, Refusals
from convsmith.deploy.onnx.shapes import is_fake, shaped


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the recorded pass: an intermediate one, or a constant with its tensor."""

    number: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    constant: Tensor | None = None


@dataclass(frozen=True)
class Call:
    """One operator: its arguments by name, defaults included, with a Value for each tensor; `name` lacks the `_`."""

    name: str
    overload: str
    arguments: dict[str, Any]
    outputs: tuple[Value, ...]
    module: str


@dataclass(frozen=True)
class Recording:
    """A forward pass as calls in order; sizes that are multiples of `batch` come from the batch size."""

    calls: list[Call]
    input: Value
    output: Value
    batch: int


def record(module: nn.Module, example: Tensor) -> Recording:
    """Record the forward pass of a module in eval mode from one tensor to one tensor.

    Raises BranchError for a forward that decides by values or by the batch size, and NotQuickError where this recorder
    cannot follow (in-place changes of views, random numbers, arithmetic on the batch size, more than one output).
    """
    own = [*module.parameters(), *module.buffers()]
    batch = representative({size for tensor in (example[0], *own) for size in tensor.shape})
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        x = torch.empty_strided(
            (batch, *example.shape[1:]), example.stride(), dtype=example.dtype, device=example.device
        )
    path: list[str] = [""]
    refusals = Refusals(path)
    recorder = _Recorder(batch, {_storage(tensor) for tensor in own}, refusals, fake)
    source = recorder.value(x)
    output, caught = None, True
    try:
        with _following(module, path), torch.no_grad(), recorder, Sizes(batch, refusals):
            output = _Followed(module, path).run(x) if isinstance(module, fx.GraphModule) else module(x)
    except Exception:
        caught = False
        if refusals.first is None:
            raise
    if refusals.first is not None:  # also where forward caught it, and went on another way than with values
        error, inner = refusals.first
        if isinstance(error, NotQuickError):
            raise error
        refused = BranchError(f"{_described(error)} in {where(module, inner)}")
        refused.caught = caught
        raise refused from error
    if not isinstance(output, Tensor):
        raise NotQuickError(f"an output that is a {type(output).__name__}")
    if not output.dim() or not is_from_batch(output.shape[0], batch):
        raise NotQuickError("an output without a batch dimension")
    return Recording(recorder.calls, source, recorder.value_of(output), batch)


def where(module: nn.Module, path: str) -> str:
    """A module as an error names it."""
    if not path:
        return type(module).__name__
    part = dict(module.named_modules()).get(path)  # a traced network has lost the modules that it does not call
    return f"module {path!r}" if part is None else f"module {path!r} ({type(part).__name__})"


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, batch: int, own_storages: set[int], refusals: Refusals, fake: FakeTensorMode):
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch = batch
        self.own_storages = own_storages
        self.refusals = refusals
        self.fake = fake
        self.calls: list[Call] = []
        # By id; the tensors are kept, so that no id is given twice.
        self.known: dict[int, tuple[Tensor, Value]] = {}
        self.aliases: dict[int, set[int]] = defaultdict(set)  # of each storage, the ids of the tensors on it
        self.stale: set[int] = set()  # ids of tensors that were changed by way of another one
        self.count = 0

    def value(self, tensor: Tensor) -> Value:
        """A new value for what the tensor now holds."""
        constant = None if is_fake(tensor) else tensor
        made = Value(self.count, tuple(tensor.shape), tensor.stride(), tensor.dtype, constant)
        self.count += 1
        self.known[id(tensor)] = tensor, made
        self.aliases[_storage(tensor)].add(id(tensor))
        return made

    def value_of(self, tensor: Tensor) -> Value:
        """The value that the tensor holds; NotQuickError if it was changed by way of another tensor."""
        if id(tensor) not in self.known:
            if is_fake(tensor):
                raise NotQuickError("a tensor from nowhere")
            return self.value(tensor)
        if id(tensor) in self.stale:
            raise NotQuickError("a tensor that was changed by way of a view")
        return self.known[id(tensor)][1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return self._recorded(func, args, kwargs or {})
        except (BatchBranchError, DataDependentOutputException, DynamicOutputShapeException, NotQuickError) as error:
            self.refusals.kept(error)
            raise

    def _recorded(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        flat, _ = pytree.tree_flatten((args, kwargs))
        tensors = [part for part in flat if isinstance(part, Tensor)]
        schema = func._schema
        if torch.Tag.nondeterministic_seeded in func.tags and self._given(schema, args, kwargs).get("dropout_p") != 0:
            raise NotQuickError(f"random numbers ({func})")
        changed = [
            i for i, argument in enumerate(schema.arguments) if argument.alias_info and argument.alias_info.is_write
        ]
        per_image = is_per_image(func, args, self.batch)
        if not per_image and not any(map(is_fake, tensors)):
            self._check_constant(func, flat, [args[i] for i in changed if i < len(args)])
            return func(*args, **kwargs)
        if (made := constant(func, args, kwargs, self.batch)) is not None:
            return made
        given = self._given(schema, args, kwargs)
        check_whole(func, given, self.batch)
        arguments = pytree.tree_map_only(Tensor, self.value_of, given)
        result = shaped(func, args, kwargs, tensors)
        if result is None:
            with self.fake if per_image else contextlib.nullcontext():
                result = func(*args, **kwargs)
        parts = result if isinstance(result, tuple | list) else (result,)
        if not any(isinstance(part, Tensor) for part in parts):
            return result
        if changed not in ([], [0]) or (changed and not is_fake(args[0])):
            raise NotQuickError(f"{func} changes its arguments")
        if changed:
            self.stale |= self.aliases[_storage(args[0])] - {id(args[0])}
        outputs = tuple(self.value(part) for part in parts if isinstance(part, Tensor))
        name = func.overloadpacket.__name__
        self.calls.append(
            Call(
                name.removesuffix("_") if changed else name,
                func._overloadname,
                arguments,
                outputs,
                self.refusals.path[-1],
            )
        )
        return result

    @staticmethod
    def _given(schema: Any, args: Any, kwargs: Any) -> dict[str, Any]:
        given = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)} | kwargs
        return {argument.name: given.get(argument.name, argument.default_value) for argument in schema.arguments}

    def _check_constant(self, func: Any, flat: list[Any], changed: list[Any]) -> None:
        numbers = [int(part) for part in flat if isinstance(part, int | float) and math.isfinite(part)]
        if any(is_from_batch(number, self.batch) for number in numbers):
            raise NotQuickError(f"a constant of the batch's size ({func})")
        for tensor in changed:
            if _storage(tensor) in self.aliases or _storage(tensor) in self.own_storages:
                raise NotQuickError(f"a parameter or buffer that forward changes ({func})")


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _described(error: Exception) -> str:
    if isinstance(error, BatchBranchError):
        return str(error)
    operator = getattr(error, "func", "an operator")
    return f"{operator} needs the values of a tensor"


class _Followed(fx.Interpreter):
    """Runs a traced network, whose nodes know the modules that they were traced in."""

    def __init__(self, module: fx.GraphModule, path: list[str]):
        super().__init__(module)
        self.extra_traceback = False  # it would put itself in front of an error's message
        self.path = path

    def run_node(self, n: fx.Node) -> Any:
        stack = n.meta.get("nn_module_stack")
        self.path.append(next(reversed(stack.values()))[0] if stack else self.path[-1])
        try:
            return super().run_node(n)
        finally:
            self.path.pop()


@contextlib.contextmanager
def _following(module: nn.Module, path: list[str]) -> Iterator[None]:
    """Keep the names of the modules that are running in `path`, the innermost last; also where one has failed."""

    def leave(name: str) -> None:
        while path.pop() != name:  # modules that have failed inside of it, which caught the error
            pass

    handles = []
    for name, part in module.named_modules():
        handles.append(part.register_forward_pre_hook(lambda *_, name=name: path.append(name), prepend=True))
        handles.append(part.register_forward_hook(lambda *_, name=name: leave(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
