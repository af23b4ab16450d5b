"""A network made to run by a back end, checked against eager."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from convsmith.deploy import backends, clock
from convsmith.deploy.agreement import TOLERANCES, Run, check_example, check_run, eager_run, largest_difference
from convsmith.deploy.snapshot import snapshot

PRECISIONS = {str(dtype).removeprefix("torch."): dtype for dtype in TOLERANCES}


@dataclass(frozen=True)
class Prepared:
    """A network ready to run: call it with a tensor of any batch size.

    `rejected` says why `auto` passed over a back end.
    """

    run: Run
    backend: str
    threads: int
    rejected: dict[str, str] = field(default_factory=dict)

    def __call__(self, x: Tensor) -> Tensor:
        """The network's output for a batch `x`."""
        return self.run(x)


def prepare(
    module: nn.Module,
    example: Tensor,
    *,
    backend: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
) -> Prepared:
    """Make a network run, in eval mode and without gradients, by a back end that agrees with eager.

    What comes back computes with a copy: later changes of the module do not reach it.

    Args:
        module: A network that takes and returns one tensor.
        example: An input as the network will get them, on the device where it shall run.
        backend: A name of `backends.names()`, or `auto`: the fastest of those installed, at the example's size.
        threads: How many threads compute (default: as many as torch uses now).
        precision: `float64`, `float32`, `float16` or `bfloat16` to compute in, the outputs converted back to the
            input's type (default: the module's own).

    Raises ValueError for an unknown back end and for one that cannot run the network or differs from eager, and
    ImportError for one that is not installed.
    """
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; the precisions are {', '.join(PRECISIONS)}")
    count = torch.get_num_threads() if threads is None else threads
    clock.check_positive("threads", count)
    check_example(example)
    if backend != "auto":
        return Prepared(_verified(module, example, backend, count, precision), backend, count)
    runs, rejected = {}, {}
    for name in backends.installed():
        try:
            runs[name] = _verified(module, example, name, count, precision)
        except (ValueError, RuntimeError) as error:
            rejected[name] = str(error)
    if not runs:
        raise ValueError(f"no back end can run {type(module).__name__}: {rejected}")
    calls = {name: partial(run, example) for name, run in runs.items()}
    timings = clock.measure(calls, rounds=7, budget_seconds=5.0, device=example.device)
    fastest = min(timings, key=lambda name: timings[name].median_ms)
    return Prepared(runs[fastest], fastest, count, rejected)


def _verified(module: nn.Module, example: Tensor, name: str, threads: int, precision: str | None) -> Run:
    entry = backends.get(name)
    network = snapshot(module).to(example.device)
    reference = eager_run(network)
    check_run(reference, example)
    if name == "eager" and precision is None:
        return entry.prepare(network, example, threads)
    dtype = example.dtype if precision is None else PRECISIONS[precision]
    converted = network if precision is None else snapshot(network).to(dtype)
    run = entry.prepare(converted, example.to(dtype), threads)
    if precision is not None:
        run = _converting(run, dtype)
    tolerance = max(TOLERANCES[dtype], TOLERANCES[example.dtype])
    difference = largest_difference(reference, run, example)
    if not difference <= tolerance:
        raise ValueError(
            f"the back end {name} in {str(dtype).removeprefix('torch.')} may differ from eager by {tolerance:g} of the "
            f"largest output, and differs by {difference:.2g}; choose another back end or precision"
        )
    return run


def _converting(run: Run, dtype: torch.dtype) -> Run:
    def convert(x: Tensor) -> Tensor:
        return run(x.to(dtype)).to(x.dtype)

    return convert
