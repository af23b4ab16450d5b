"""The clock: candidates timed in turns, so that a slow minute of the machine meets all of them alike."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch

from convsmith.deploy.rounds import Call, Timing, burst, in_turns

__all__ = ["Call", "Timing", "check_device", "check_positive", "check_threads", "measure", "threads"]


def measure(
    candidates: Mapping[str, Call],
    *,
    rounds: int = 20,
    warmup: int = 3,
    budget_seconds: float | None = None,
    device: torch.device | str = "cpu",
    watch: Call | None = None,
) -> dict[str, Timing]:
    """Time calls against each other, in interleaved rounds in which each has each place equally often.

    Args:
        candidates: What to call, by name.
        rounds: Samples of each candidate.
        warmup: Untimed calls of each candidate before the first round.
        budget_seconds: No round starts later than this after the beginning; three rounds are always made.
        device: Where the calls do their work, the CPU or a CUDA device; CUDA work is timed by events.
        watch: Called, untimed, before each round and after the last: `conditions.Watch.note`.

    Raises ValueError without a candidate, for counts that are no positive integers, and for any other device.
    """
    if not candidates:
        raise ValueError("measure needs at least one candidate, got none; give a mapping of name to callable")
    check_positive("rounds", rounds)
    check_positive("warmup", warmup)
    if budget_seconds is not None and not 0 < budget_seconds < math.inf:
        raise ValueError(f"budget_seconds must be positive and finite, got {budget_seconds}; None means no limit")
    device = check_device(device)
    return in_turns(
        candidates,
        partial(_cuda_burst, device=device) if device.type == "cuda" else burst,
        rounds=rounds,
        warmup=warmup,
        budget_seconds=budget_seconds,
        watch=watch,
    )


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


def check_threads(count: int | None, *, most_per_core: int = 4) -> None:
    """Raise ValueError for anything but a positive integer, and for many more threads than there are cores.

    Runtimes end the process, without a word, where they are asked for thousands. None is as many as torch uses now.
    """
    if count is None:
        return
    check_positive("threads", count)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count > most_per_core * cores:
        raise ValueError(
            f"threads must be at most {most_per_core * cores}, {most_per_core} for each core that this process may "
            f"use, got {count}; give {cores}"
        )


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
