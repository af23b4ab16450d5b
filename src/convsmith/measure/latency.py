"""How long a network takes on this machine: medians of interleaved rounds, with their spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from convsmith.deploy import clock, prepare

NOISY_SPREAD = 0.05


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass over a whole batch, in eval mode and without gradients.

    `median_ms` is over `rounds` samples, each the mean of `calls_per_round` passes; `spread_ms` is their median
    absolute deviation from it. `noisy` says that the spread exceeds a twentieth of the median: measure again on a
    quieter machine.
    """

    median_ms: float
    spread_ms: float
    noisy: bool
    rounds: int
    calls_per_round: int
    backend: str
    device: str
    batch: int
    threads: int
    torch_version: str


def latency(
    module: nn.Module,
    input_shape: tuple[int, ...],
    *,
    backend: str = "eager",
    device: str = "cpu",
    threads: int = 1,
    rounds: int = 20,
    budget_seconds: float = 5.0,
) -> Latency:
    """The time of one forward pass; the arguments are those of `latencies`."""
    return latencies(
        {"": module},
        input_shape,
        backend=backend,
        device=device,
        threads=threads,
        rounds=rounds,
        budget_seconds=budget_seconds,
    )[""]


def latencies(
    modules: Mapping[str, nn.Module],
    input_shape: tuple[int, ...],
    *,
    backend: str = "eager",
    device: str = "cpu",
    threads: int = 1,
    rounds: int = 20,
    budget_seconds: float = 5.0,
) -> dict[str, Latency]:
    """The time of one forward pass of several networks, taken in turns, so that their ratios can be trusted.

    The networks are copied first: neither their mode nor their running statistics change.

    Args:
        modules: Any networks from one tensor to one tensor, by name.
        input_shape: The input's shape, batch included; the input is normal noise of the network's own type.
        backend: A name of `deploy.backends.names()`, or `auto`: for each network the fastest.
        device: Where to run, as torch names it.
        threads: How many threads compute; torch's own number is restored.
        rounds: Samples of each network.
        budget_seconds: Time per network after which no further round starts; three rounds are always made.

    Raises ValueError for wrong arguments and for a network that the back end cannot run.
    """
    if not modules:
        raise ValueError("latencies needs at least one network, got none; give a mapping of name to module")
    for size in input_shape:
        clock.check_positive("each size of input_shape", size)
    clock.check_device(device)
    runs = {}
    with clock.threads(threads):
        for name, module in modules.items():
            example = torch.randn(input_shape, generator=torch.Generator().manual_seed(0)).to(device, _dtype(module))
            prepared = prepare(module, example, backend=backend, threads=threads)
            runs[name] = prepared.backend, partial(prepared.run, example)
        timings = clock.measure(
            {name: run for name, (_, run) in runs.items()},
            rounds=rounds,
            budget_seconds=budget_seconds * len(runs),
            device=device,
        )
    return {
        name: Latency(
            median_ms=timing.median_ms,
            spread_ms=timing.spread_ms,
            noisy=timing.spread_ms > NOISY_SPREAD * timing.median_ms,
            rounds=len(timing.samples_ms),
            calls_per_round=timing.calls_per_round,
            backend=runs[name][0],
            device=device,
            batch=input_shape[0],
            threads=threads,
            torch_version=torch.__version__,
        )
        for name, timing in timings.items()
    }


def _dtype(module: nn.Module) -> torch.dtype:
    """The type of the first parameter: a network of one type takes inputs of that type."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
