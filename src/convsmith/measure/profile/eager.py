"""PyTorch's own operators, timed one by one below autograd while the pass runs.

A first pass notes what each operator is, reads and moves, and inside which module it runs; the timed ones only take the
time before and after each. What an operator allocates is in its time; what happens between operators is not. On a CUDA
device an operator's time is that of its kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convsmith.deploy import clock
from convsmith.deploy.agreement import eager_run
from convsmith.measure.cuda_graph import captured
from convsmith.measure.forms import tensors_in
from convsmith.measure.observe import Observer, Span, module_calls
from convsmith.measure.operators import Operator, operator_of
from convsmith.measure.profile.categories import Category, category_of
from convsmith.measure.profile.kernels import kernel_milliseconds
from convsmith.measure.profile.result import Step
from convsmith.measure.profile.shuffles import merges_a_pair, swapped_pairs
from convsmith.measure.profile.watch import TimeWatch
from convsmith.nn import ChannelShuffle

SHUFFLES = (ChannelShuffle, nn.ChannelShuffle)
# What torch's profiler calls the functions behind the names of `torch._C._ConvBackend`.
KERNELS = {
    "???": "",  # Python knows no name of it: oneDNN's transposed convolutions
    "Slow2d": "aten::_slow_conv2d_forward",
    "Mkldnn": "aten::mkldnn_convolution",
    "SlowDilated2d": "aten::slow_conv_dilated2d",
    "SlowTranspose2d": "aten::slow_conv_transpose2d",
    "Slow3d": "aten::slow_conv3d_forward",
    "Cudnn": "aten::cudnn_convolution",
    "CudaDepthwise2d": "aten::_conv_depthwise2d",
}


class Eager:
    """The passes of a module in PyTorch; `plain` is one as it is, `timed` one with a time for each operator."""

    def __init__(self, network: nn.Module, example: Tensor, threads: int):
        self.network, self.example, self.threads = network, example, threads
        self._run = eager_run(network, any_output=True)
        self._samples: list[Sequence[float]] = []
        self.unknown: tuple[str, ...] = ()
        with clock.threads(threads):
            self.steps = self._layers()
        self._replay = captured(self._run, example) if example.is_cuda else None

    def plain(self) -> None:
        """One pass; on a CUDA device a replayed one, where it can be recorded."""
        if self._replay is None:
            self.launched()
            return
        self._replay()
        self._wait()

    def launched(self) -> None:
        """One pass that Python launches, operator by operator."""
        with clock.threads(self.threads):
            self._run(self.example)
        self._wait()

    def timed(self) -> None:
        """One pass that is watched."""
        with clock.threads(self.threads), torch.inference_mode():
            found = kernel_milliseconds(self._pass) if self.example.is_cuda else self._timed_operators()
        if len(found) != len(self.steps):
            raise ValueError(
                f"a network to profile must run the same operators in each pass, and {type(self.network).__name__} ran "
                f"{len(self.steps)} and then {len(found)}; take its random branches out"
            )
        self._samples.append(found)

    def _timed_operators(self) -> list[float]:
        watch = TimeWatch()
        with watch:
            self._pass()
        return watch.milliseconds()

    def _pass(self) -> None:
        self.network(self.example)

    def result(self) -> tuple[tuple[Step, ...], Sequence[Sequence[float]]]:
        """The steps, without times, and the milliseconds of each in each timed pass."""
        return self.steps, self._samples

    def _layers(self) -> tuple[Step, ...]:
        notes = _Notes()
        with module_calls(notes.steps) as spans, torch.inference_mode(), notes:
            self.network(self.example)
        modules = _innermost(spans, len(notes.steps))
        paths = {
            id(module): path for path, module in reversed(list(self.network.named_modules(remove_duplicate=False)))
        }
        self.unknown = tuple(sorted(notes.unknown))
        found = []
        for index, step in enumerate(notes.steps):
            module = modules[index]
            shuffles = index in notes.shuffles or isinstance(module, SHUFFLES)
            category: Category = "shuffle" if shuffles else step.category
            found.append(replace(step, module="" if module is None else paths.get(id(module), ""), category=category))
        return tuple(found)

    def _wait(self) -> None:
        if self.example.is_cuda:
            torch.cuda.synchronize(self.example.device)


def _innermost(spans: Sequence[Span], count: int) -> list[nn.Module | None]:
    """The module whose call is the innermost around each operator; spans come in the order of return."""
    modules: list[nn.Module | None] = [None] * count
    for span in spans:
        for index in range(span.start, span.end):
            modules[index] = modules[index] or span.module
    return modules


class _Notes(Observer):  # type: ignore[no-untyped-call]
    """Notes what each operator is; `shuffles` are the positions of copies that shuffle channels."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.unknown: set[str] = set()
        self.shuffles: set[int] = set()
        # By id of a tensor of the pass: what gets the id of a freed one comes out of an operator, and is noted anew.
        self._written_by: dict[int, int] = {}
        self._swapped: dict[int, tuple[int, tuple[int, ...]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = operator_of(func)
        kwargs = kwargs or {}
        if operator.composite:
            with self:
                return operator.in_parts(args, kwargs)
        read = list(tensors_in((args, tuple(kwargs.values()))))
        reads = tuple(dict.fromkeys(self._written_by[id(x)] for x in read if id(x) in self._written_by))
        swapped = swapped_pairs(read[0]) if operator.name in ("clone", "copy") and len(read) == 1 else ()
        viewed = self._swapped.get(id(read[0])) if read else None
        shape_before = tuple(read[0].shape) if read else ()
        kernel = _kernel(func, args, kwargs) if operator.name == "convolution" else ""
        result = func(*args, **kwargs)
        written = list(tensors_in((result,)))
        index = len(self.steps)
        views = operator.view or operator.name == "unsafe_view"
        if views and viewed and merges_a_pair(shape_before, tuple(written[0].shape), viewed[1]):
            self.shuffles.add(viewed[0])
        for x in written:
            self._swapped.pop(id(x), None)
            self._written_by.pop(id(x), None)
            if not operator.view:
                self._written_by[id(x)] = index
            elif reads:
                self._written_by[id(x)] = reads[0]
        if operator.view:
            return result
        if swapped:
            self._swapped[id(written[0])] = index, swapped
        self._note(operator, args, result, written, kernel, reads)
        return result

    def _note(
        self, operator: Operator, args: Any, result: Any, written: list[Tensor], kernel: str, reads: tuple[int, ...]
    ) -> None:
        category = category_of(operator.name, table="aten")
        if category is None and operator.known:  # by torch's tag for pointwise operators
            category = "elementwise"
        if category is None:
            self.unknown.add(operator.name)
        cost = operator.cost(args, result) if written else None
        self.steps.append(
            Step(
                module="",
                operator=operator.name,
                kernel=kernel,
                category=category or "other",
                shape=tuple(written[0].shape) if written else (),
                macs=cost.macs if cost else 0,
                memory_bytes=cost.memory_bytes if cost else 0,
                reads=reads,
            )
        )


class _Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the backend that torch chooses for the convolutions inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.chosen: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.chosen.append(torch._C._select_conv_backend(*args).name)
        elif func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs or {})
        return func(*args, **kwargs or {})


def _kernel(func: Any, args: Any, kwargs: Any) -> str:
    with _Convolutions() as inside:
        func(*args, **kwargs)
    return ", ".join(KERNELS.get(name, name) for name in dict.fromkeys(inside.chosen))
