"""A network made to run by a back end, checked against eager."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from convsmith.deploy import backends, clock
from convsmith.deploy.agreement import TOLERANCES, Run, check_example, check_run, eager_run, largest_difference
from convsmith.deploy.precision import PRECISIONS, check_precision, precision_of
from convsmith.deploy.snapshot import snapshot


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
    thorough: bool = False,
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
        thorough: Let `auto` try those back ends too that take many seconds to prepare.

    Raises ValueError for an unknown back end and for one that cannot run the network or differs from eager, and
    ImportError for one that is not installed.
    """
    check_precision(precision)
    count = torch.get_num_threads() if threads is None else threads
    clock.check_positive("threads", count)
    check_example(example)
    if backend != "auto":
        return Prepared(_verified(module, example, backend, count, precision), backend, count)
    runs, rejected = {}, {}
    for name in backends.installed(thorough=thorough):
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
    word = precision_of(example) if precision is None else precision
    entry.check(example, word)
    network = snapshot(module).to(example.device)
    reference = eager_run(network)
    check_run(reference, example)
    run = entry.prepare(snapshot(network), example, threads, word)
    if name == "eager" and precision is None:
        return run
    tolerance = max(TOLERANCES[PRECISIONS[word]], TOLERANCES[example.dtype])
    difference = largest_difference(reference, run, example)
    if not difference <= tolerance:
        raise ValueError(
            f"the back end {name} in {word} may differ from eager by {tolerance:g} of the largest output, and differs "
            f"by {difference:.2g}; choose another back end or precision"
        )
    return run
