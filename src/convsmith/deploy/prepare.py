"""A network made to run by a back end, checked against eager."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from convsmith.deploy import backends, clock
from convsmith.deploy.agreement import Run, check_example
from convsmith.deploy.comparison import Comparison
from convsmith.deploy.precision import check_precision, precision_of, without_autocast


@dataclass(frozen=True)
class Prepared:
    """A network ready to run: call it with a tensor of any batch size, from any thread.

    `timings` are the milliseconds of one pass over the example that `auto` measured, and `rejected` says why it passed
    over a back end. `difference` is the largest one from eager, as a share of eager's largest output.
    """

    run: Run
    backend: str
    threads: int
    rejected: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    difference: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """The network's output for a batch `x`."""
        return self.run(x)


@without_autocast
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
            input's type (default: the module's own). An autocast around the call changes nothing.
        thorough: Let `auto` try those back ends too that take many seconds to prepare.

    Warns where outputs depend on the input so little that their agreement shows nothing, as those of untrained networks
    may. Raises ValueError for an unknown back end and for one that cannot run the network or differs from eager, and
    ImportError for one that is not installed.
    """
    check_precision(precision)
    clock.check_threads(threads)
    count = torch.get_num_threads() if threads is None else threads
    check_example(example)
    if backend != "auto":
        backends.get(backend)  # an unknown one is told before the network runs
    word = precision_of(example) if precision is None else precision
    comparison = Comparison(module, example, count)
    if backend == "auto":
        comparison.add_all([word], thorough=thorough)
        comparison.measure()
        chosen = comparison.fastest
    else:
        chosen = comparison.add(backend, word)
        if chosen.rejected:
            raise ValueError(chosen.rejected)
    if unseen := comparison.unseen(chosen):
        warnings.warn(unseen, stacklevel=3)
    found = comparison.candidates.values()
    assert chosen.difference is not None
    return Prepared(
        run=comparison.runs[chosen.backend, word],
        backend=chosen.backend,
        threads=count,
        rejected={c.backend: c.rejected for c in found if c.rejected},
        timings={c.backend: c.median_ms for c in found if c.median_ms is not None},
        difference=chosen.difference,
    )
