"""The clock: candidates timed in turns, so that a slow minute of the machine meets all of them alike.

A sample is the mean of a burst of calls that lasts at least two milliseconds; a result is the median of one sample per
round. Where several candidates take turns, an untimed call precedes each burst: the first call after another network
finds cold caches, and is a tenth to a half slower for networks below a millisecond.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TypeAlias

import torch

Call: TypeAlias = Callable[[], object]

SHORTEST_SAMPLE_SECONDS = 2e-3
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call, one sample per round; `spread_ms` is the median absolute deviation from the median."""

    median_ms: float
    spread_ms: float
    samples_ms: tuple[float, ...]
    calls_per_round: int


def measure(
    candidates: Mapping[str, Call],
    *,
    rounds: int = 20,
    warmup: int = 3,
    budget_seconds: float | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Timing]:
    """Time calls against each other, in interleaved rounds that alternate their direction.

    Args:
        candidates: What to call, by name.
        rounds: Samples of each candidate.
        warmup: Untimed calls of each candidate before the first round.
        budget_seconds: No round starts later than this after the beginning; three rounds are always made.
        device: Where the calls do their work, the CPU or a CUDA device; CUDA work is timed by events.

    Raises ValueError without a candidate, for counts that are no positive integers, and for any other device.
    """
    if not candidates:
        raise ValueError("measure needs at least one candidate, got none; give a mapping of name to callable")
    check_positive("rounds", rounds)
    check_positive("warmup", warmup)
    if budget_seconds is not None and not 0 < budget_seconds < math.inf:
        raise ValueError(f"budget_seconds must be positive and finite, got {budget_seconds}; None means no limit")
    device = check_device(device)
    burst = partial(_cuda_burst, device=device) if device.type == "cuda" else _burst
    names = list(candidates)
    samples: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    with _no_garbage_collection():
        calls = {name: _calls_per_round(call, burst, warmup) for name, call in candidates.items()}
        for done in range(rounds):
            if budget_seconds and done >= FEWEST_ROUNDS and time.perf_counter() - start > budget_seconds:
                break
            for name in names if done % 2 == 0 else reversed(names):
                if len(names) > 1:
                    candidates[name]()
                samples[name].append(1e3 * burst(candidates[name], calls[name]) / calls[name])
    return {name: _timing(samples[name], calls[name]) for name in names}


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch compute with `count` threads inside the block (None: as many as now), and as before after it."""
    before = torch.get_num_threads()
    if count is not None:
        check_positive("threads", count)
    if count in (None, before):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_positive(name: str, value: int) -> None:
    """Raise ValueError for anything but a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def check_device(device: torch.device | str) -> torch.device:
    """The device, which must be one that is here and whose work can be timed; else ValueError."""
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; give cpu, cuda or cuda:1") from error
    if found.type not in ("cpu", "cuda") or (found.index or 0) >= (
        torch.cuda.device_count() if found.type == "cuda" else 1
    ):
        raise ValueError(f"the device must be the CPU or a CUDA device of this machine, got {device}; give cpu")
    return found


def _timing(samples: list[float], calls: int) -> Timing:
    middle = median(samples)
    return Timing(middle, median(abs(sample - middle) for sample in samples), tuple(samples), calls)


def _calls_per_round(call: Call, burst: Callable[[Call, int], float], warmup: int) -> int:
    for _ in range(warmup):
        call()
    calls = 1
    while (seconds := burst(call, calls)) < SHORTEST_SAMPLE_SECONDS:
        # At most tenfold a step: the time of a few calls of a microsecond says little.
        calls = min(10 * calls, math.ceil(1.2 * calls * SHORTEST_SAMPLE_SECONDS / max(seconds, 1e-9)))
    return calls


def _burst(call: Call, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - start


def _cuda_burst(call: Call, calls: int, device: torch.device) -> float:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
