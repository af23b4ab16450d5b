"""Back ends tried on one network: compared with eager, and timed in turns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from convsmith.deploy import backends, clock
from convsmith.deploy.agreement import (
    TOLERANCES,
    Reference,
    Run,
    another_size,
    check_example,
    check_repeats,
    check_run,
    eager_run,
)
from convsmith.deploy.conditions import Watch
from convsmith.deploy.cores import pinned
from convsmith.deploy.passes.lean import lean
from convsmith.deploy.precision import PRECISIONS, check_precision, precision_of, without_autocast
from convsmith.deploy.snapshot import snapshot
from convsmith.deploy.timed import Timed, timed
from convsmith.deploy.uncollected import uncollected

ROUNDS, BUDGET_SECONDS = 7, 2.0
CLOSE, CLOSE_ROUNDS = 1.15, 15  # what takes up to so many times the fastest is measured again, by itself


@dataclass(frozen=True)
class Candidate:
    """A back end in one precision, as it was found for a network.

    `difference` is the largest one from eager in the network's own precision, as a share of eager's largest output.
    `rejected` says why it cannot be taken: it fails, or differs by more than its precision explains. `median_ms` is
    of one pass over the example, `low_ms` and `high_ms` are the ends of its interval, and all are None where it was not
    timed; `warnings` are reasons not to trust them.
    """

    backend: str
    precision: str
    prepare_seconds: float | None = None
    difference: float | None = None
    median_ms: float | None = None
    rejected: str = ""
    low_ms: float | None = None
    high_ms: float | None = None
    warnings: tuple[str, ...] = ()


class Comparison:
    """Candidates for one network, in the order in which they were tried, and the runs of those that agree with eager.

    Making one copies the module and runs the copy; ValueError for a module or an example that does not work.
    """

    def __init__(self, module: nn.Module, example: Tensor, threads: int):
        self.example, self.threads = example.clone(), threads  # a network may change its input in place
        with uncollected():
            self.network = snapshot(module).to(example.device)
            # A network may change its buffers when it runs.
            self.eager = eager_run(snapshot(self.network, sharing=True))
        with clock.threads(threads):
            self.output = check_run(self.eager, example)
        self.candidates: dict[tuple[str, str], Candidate] = {}
        self.runs: dict[tuple[str, str], Run] = {}

    @cached_property
    def reference(self) -> Reference:
        """What eager gives, in the network's own precision; ValueError where that is not finite."""
        with clock.threads(self.threads):
            # A second batch size tells a fixed one; eager's passes are most of what preparing a large network takes.
            return Reference(self.eager, self.example, another_size(self.example), known=self.output)

    def add(self, name: str, precision: str) -> Candidate:
        """Prepare a back end and compare it with eager.

        Raises ImportError when its packages are missing; whatever else it raises is the reason for its rejection.
        """
        if (name, precision) in self.candidates:
            return self.candidates[name, precision]
        entry = backends.get(name)
        is_reference = (name, precision) == ("eager", precision_of(self.example))
        if not is_reference:
            _ = self.reference  # its time is not the back end's
        start = time.perf_counter()
        found = Candidate(name, precision)
        try:
            entry.check(self.example, precision)
            with uncollected():
                run, difference = self._run(entry, precision, is_reference)
        except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
            found = replace(found, rejected=" ".join(str(error).split()) or type(error).__name__)
        else:
            tolerance = self.tolerance(precision)
            found = replace(found, prepare_seconds=time.perf_counter() - start, difference=difference)
            if difference <= tolerance:
                self.runs[name, precision] = run
            else:
                found = replace(found, rejected=self._differs(found, tolerance))
        self.candidates[name, precision] = found
        return found

    def tolerance(self, precision: str) -> float:
        """The largest admissible difference from eager of what computes in this precision."""
        return max(TOLERANCES[PRECISIONS[precision]], TOLERANCES[self.example.dtype])

    def unseen(self, candidate: Candidate) -> str:
        """Why the candidate's agreement with eager shows nothing, if so; eager itself has nothing to show."""
        if (candidate.backend, candidate.precision) == ("eager", precision_of(self.example)):
            return ""
        return self.reference.unseen(self.tolerance(candidate.precision))

    def _run(self, entry: backends.Backend, precision: str, is_reference: bool) -> tuple[Run, float]:
        """What the back end makes, and its difference from eager."""
        given = self.example, self.threads, precision
        if is_reference:
            return entry.prepare(snapshot(self.network), *given), 0.0
        if entry.rewrites and precision == precision_of(self.example):
            # What comes of a rewritten network tells whether that computes the same, unless a precision's roundings
            # are in between; and one that was rewritten wrongly may have what the back end lacks.
            with suppress(ValueError, RuntimeError, TypeError):
                rewrite = partial(lean, compared=False)
                run = entry.prepare(snapshot(self.network, sharing=True), *given, rewrite=rewrite)
                difference = self.reference.difference(run)
                if difference <= TOLERANCES[self.example.dtype]:
                    return run, difference
        known = {"rewrite": partial(lean, output=self.output)} if entry.rewrites else {}
        run = entry.prepare(snapshot(self.network), *given, **known)
        return run, self.reference.difference(run)

    def _differs(self, found: Candidate, tolerance: float) -> str:
        try:
            check_repeats(snapshot(self.network, sharing=True), self.example, tolerance)
        except ValueError as error:
            return str(error)
        return (
            f"the back end {found.backend} in {found.precision} may differ from eager by {tolerance:g} of the largest "
            f"output, and differs by {found.difference:.2g}; choose another back end or precision"
        )

    def add_all(self, precisions: Iterable[str], *, thorough: bool) -> None:
        """Add every installed back end in each of the precisions; one that lacks it, or the device, says so."""
        for precision in precisions:
            for name in backends.installed(thorough=thorough):
                self.add(name, precision)

    def measure(self) -> None:
        """Time the runs in turns, beside eager in the network's own precision; no back end left raises ValueError."""
        if not self.runs:
            reasons = "; ".join(f"{c.backend} in {c.precision}: {c.rejected}" for c in self.candidates.values())
            raise ValueError(f"no back end can run {type(self.network).__name__}: {reasons or 'none is asked for'}")
        timings = self._timed(list(self.runs), ROUNDS)
        best = min(timing.median_ms for timing in timings.values())
        close = [key for key, timing in timings.items() if timing.median_ms <= CLOSE * best]
        if len(close) > 1:  # eager, which is many times slower, took most of the time: few rounds were made
            timings |= self._timed(close, CLOSE_ROUNDS)
        for key in self.runs:
            known = {name: getattr(timings[key], name) for name in ("median_ms", "low_ms", "high_ms", "warnings")}
            self.candidates[key] = replace(self.candidates[key], **known)

    def _timed(self, keys: Sequence[tuple[str, str]], rounds: int) -> dict[tuple[str, str], Timed]:
        example = self.example.clone()  # what changes its input in place would change what later runs are compared on
        calls = {"/".join(key): partial(self.runs[key], example) for key in keys}
        # Threads of a CUDA device's driver stay where they are.
        with nullcontext() if self.example.is_cuda else pinned(self.threads) as cores:
            watch = Watch(cores)
            timings = clock.measure(
                calls,
                rounds=rounds,
                budget_seconds=BUDGET_SECONDS * len(calls),
                device=self.example.device,
                watch=watch.note,
            )
            found = timed(timings, watch.conditions(), threads=self.threads)
        return {key: found["/".join(key)] for key in keys}

    @property
    def fastest(self) -> Candidate:
        """The fastest of those that agree with eager; after `measure`."""
        timed = [(c.median_ms, c) for c in self.candidates.values() if c.median_ms is not None]
        return min(timed, key=lambda pair: pair[0])[1]


@without_autocast
def compare(
    module: nn.Module,
    example: Tensor,
    *,
    backend: str = "auto",
    precisions: Iterable[str] = (),
    threads: int | None = None,
    thorough: bool = False,
) -> Comparison:
    """Try back ends on a network, in each precision that they have, and time those that agree with eager.

    Eager in the network's own precision is always among them. The module is left untouched.

    Args:
        module: A network that takes and returns one tensor.
        example: An input as the network will get them, on the device where it shall run.
        backend: One of `backends.names()`, or `auto` for all that are installed.
        precisions: Which ones, as words, or a single one (default: the network's own).
        threads: How many threads compute (default: as many as torch uses now).
        thorough: Let `auto` try those back ends too that take many seconds to prepare.

    Raises ValueError for wrong arguments and when no back end can run the network, and ImportError for a back end that
    is not installed.
    """
    words = (precisions,) if isinstance(precisions, str) else precisions
    asked = list(dict.fromkeys(words)) or [precision_of(example)]
    for precision in asked:
        check_precision(precision)
    clock.check_threads(threads)
    count = torch.get_num_threads() if threads is None else threads
    check_example(example)
    if backend != "auto":
        entry = backends.get(backend)
        for precision in asked:
            entry.check(example, precision)
    comparison = Comparison(module, example, count)
    comparison.add("eager", precision_of(example))
    if backend == "auto":
        comparison.add_all(asked, thorough=thorough)
    else:
        for precision in asked:
            comparison.add(backend, precision)
    comparison.measure()
    return comparison
