"""ExecuTorch's own profile: its event trace, in which XNNPACK times each of its operators in whole microseconds.

The trace has names such as `Convolution (NHWC, F32) IGEMM #3` and no graph. Convolutions and linear layers run in the
order in which the lowered program has them, which gives their modules and sizes; of what stands between them (pooling,
sums, changes of layout) it tells neither.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from convsmith.deploy.backends.executorch import MOST, Loaded, Product, bindings, lower
from convsmith.deploy.silence import silent
from convsmith.measure.profile.categories import category_of
from convsmith.measure.profile.result import Step

PASS = "Execute"  # the block of the trace that holds passes
NUMBERED = re.compile(r" #\d+$")
NATIVE = re.compile(r"^native_call_(?P<operator>\w+)")
LARGEST = 15  # images: one program has one way of computing convolutions, and torch's changes at 16


class ExecuTorch:
    """The passes of a network in ExecuTorch: `plain` in one loaded program, `timed` in one that writes a trace."""

    def __init__(self, network: nn.Module, example: Tensor, threads: int):
        if example.device.type != "cpu":
            raise ValueError(f"ExecuTorch is profiled on the CPU, and the device is {example.device}; give cpu")
        if len(example) > LARGEST:
            raise ValueError(f"ExecuTorch is profiled with up to {LARGEST} images, got {len(example)}; give fewer")
        self._example = example.float().contiguous()
        lowered = lower(network.float(), self._example, most=max(MOST, len(example)))
        self._products = lowered.products
        self._plain = Loaded(lowered, self._example, threads)
        self._plain(self._example)  # makes the pool of threads, which what is loaded behind it uses
        with silent(native=True):
            self._watched = bindings()._load_for_executorch_from_buffer(lowered.data, enable_etdump=True)
        if not self._watched.has_etdump():
            raise ValueError("the ExecuTorch that is installed was built without event tracing; install its wheel")
        self.unknown: tuple[str, ...] = ()

    def plain(self) -> None:
        """One pass."""
        self._plain(self._example)

    def timed(self) -> None:
        """One pass that is traced."""
        self._watched.forward([self._example])

    def result(self) -> tuple[tuple[Step, ...], Sequence[Sequence[float]]]:
        """The operators that ran, and the milliseconds of each in each traced pass."""
        events = [event for event in self._events() if event.is_delegated_op or NATIVE.match(event.name)]
        products = [event for event in events if _category(_operator(event)) == "convolution"]
        if len(products) != len(self._products):
            raise ValueError(
                f"the trace must hold each convolution of the program once, and holds {len(products)} where there are "
                f"{len(self._products)}; profile another back end"
            )
        known = {id(event): product for event, product in zip(products, self._products, strict=True)}
        steps = tuple(_step(_operator(event), known.get(id(event)), len(self._example)) for event in events)
        self.unknown = tuple(sorted({step.operator for step in steps if _category(step.operator) is None}))
        return steps, list(zip(*(event.perf_data.raw for event in events), strict=True))

    def _events(self) -> list[Any]:
        with TemporaryDirectory() as folder, silent(native=True):
            trace = Path(folder) / "trace.etdp"
            self._watched.write_etdump_result_to_file(str(trace))
            blocks = importlib.import_module("executorch.devtools").Inspector(etdump_path=str(trace)).event_blocks
        return [event for block in blocks if block.name == PASS for event in block.events]


def _operator(event: Any) -> str:
    """XNNPACK's name without its number, or ATen's of what ExecuTorch computes itself."""
    native = NATIVE.match(event.name)
    return native["operator"].strip("_") if native else NUMBERED.sub("", event.name)


def _category(operator: str) -> Any:
    known = category_of(operator.partition(" (")[0], table="xnnpack") or category_of(operator, table="aten")
    return known or ("data" if operator.endswith("_copy") else None)  # ExecuTorch's forms of ATen's views


def _step(operator: str, product: Product | None, batch: int) -> Step:
    name, _, kernel = operator.partition(" (")
    bare = Step(
        module="",
        operator=name,
        kernel=f"({kernel}" if kernel else "",
        category=_category(operator) or "other",
        shape=(),
        macs=0,
        memory_bytes=0,
    )
    if product is None:
        return bare
    moved = batch * (math.prod(product.read) + math.prod(product.written)) + math.prod(product.weight)
    return Step(
        **{
            **vars(bare),
            "module": product.module,
            "shape": (batch, *product.written),
            "macs": batch * product.macs,
            "memory_bytes": 4 * moved,
        }
    )
