"""A profile: plain and watched passes in turns, what they say of each operator, and what the device could do."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from convsmith.deploy import backends, clock
from convsmith.deploy.agreement import check_example, check_run, eager_run
from convsmith.deploy.precision import precision_of
from convsmith.deploy.snapshot import snapshot
from convsmith.measure.profile.eager import Eager
from convsmith.measure.profile.executorch import ExecuTorch
from convsmith.measure.profile.faults import page_faults
from convsmith.measure.profile.onnxruntime import OnnxRuntime
from convsmith.measure.profile.openvino import OpenVino
from convsmith.measure.profile.result import Profile, Step
from convsmith.measure.profile.slowdowns import eager_slowdowns
from convsmith.measure.roofs import Roofs, device_roofs
from convsmith.network.shapes import check_shape

WARM_UP, FEWEST_PASSES = 3, 3


class Passes(Protocol):
    """A network on a back end, run plain or watched; `unknown` are operators that have no category."""

    unknown: tuple[str, ...]

    def plain(self) -> None:
        """One pass as it is."""

    def timed(self) -> None:
        """One pass that is watched."""

    def result(self) -> tuple[tuple[Step, ...], Sequence[Sequence[float]]]:
        """The steps, without times, and the milliseconds of each in each watched pass."""


PROFILERS: dict[str, Callable[[nn.Module, Tensor, int], Passes]] = {
    "eager": Eager,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "executorch": ExecuTorch,
}

# Why the others are not among them.
NOT_PROFILED = {
    "compile": "its kernels compute parts of several layers and categories at once, and tell one time for all",
    "tensorrt": "the profile that its engine writes is not read here",
}


def profile(
    module: nn.Module,
    input_shape: tuple[int, ...],
    *,
    backend: str = "eager",
    device: str = "cpu",
    threads: int = 1,
    passes: int = 30,
    budget_seconds: float = 10.0,
    roofs: Roofs | None = None,
) -> Profile:
    """Where the time of one forward pass goes, in eval mode and without gradients, on this device and back end.

    A copy of the module runs, without what `torch.compile` put around it; the module is left untouched, also where its
    `forward` raises. Plain and watched passes take turns. The time of each operator, and of the plain pass, is the mean
    of the middle half of its samples. On a CUDA device the plain pass is replayed from a recording, where it can be
    recorded, so that Python's launches are in none of the figures; what they cost is among the slowdowns. On one thread
    of the CPU a pass is timed by the processor time of this process, which other work on the machine does not lengthen:
    a whole pass is seldom undisturbed, while a single operator mostly is.

    Args:
        module: Any network from one tensor to one tensor, and of float32; in eager to several tensors, and of any type.
        input_shape: The input's shape, batch included; the input is normal noise of the network's own type.
        backend: A name of `PROFILERS`.
        device: Where to run, as torch names it.
        threads: How many threads compute; torch's own number is restored.
        passes: Watched passes, and as many plain ones.
        budget_seconds: Time after which no further pass starts; three of each are always made.
        roofs: What the device can do (default: measured by `device_roofs`, once per process).

    Raises ValueError for wrong arguments and for a network that the back end cannot run, and ImportError for a back end
    that is not installed.
    """
    input_shape = check_shape(input_shape)
    clock.check_threads(threads)
    clock.check_positive("passes", passes)
    place = clock.check_device(device)
    _check_backend(backend)
    network = snapshot(module).to(place)
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.get_default_dtype())
    example = torch.randn(input_shape, generator=torch.Generator().manual_seed(0)).to(place, dtype)
    check_example(example)
    if backend != "eager" and dtype != torch.float32:
        raise ValueError(
            f"{backend} is profiled in float32, and the network is of {precision_of(example)}; give network.float()"
        )
    with clock.threads(threads):
        check_run(eager_run(network, any_output=backend == "eager"), example)
    run = PROFILERS[backend](network, example, threads)
    now = time.process_time if threads == 1 and place.type == "cpu" else time.perf_counter
    plain_ms, watched_ms, faults = _in_turns(run, now, passes, budget_seconds)
    bare, samples = run.result()
    samples = samples[-len(watched_ms) :]
    roofs = roofs or device_roofs(device=device, threads=threads, dtype=dtype)
    times = [middle(of_layer) for of_layer in zip(*samples, strict=True)]
    steps = tuple(replace(step, ms=ms) for step, ms in zip(bare, times, strict=True))
    found = Profile(
        steps=steps,
        latency_ms=middle(plain_ms),
        profiled_ms=middle(watched_ms),
        passes=len(samples),
        unknown=run.unknown,
        page_faults=round(middle(faults)),
        roofs=roofs,
        slowdowns=(),
        backend=backend,
        device=device,
        batch=input_shape[0],
        threads=threads,
        torch_version=torch.__version__,
    )
    if not isinstance(run, Eager):
        return found
    launched_ms = middle([_ms(run.launched, now) for _ in plain_ms]) if place.type == "cuda" else None
    return replace(
        found,
        slowdowns=eager_slowdowns(
            steps,
            total_ms=found.total_ms,
            faults=found.page_faults,
            roofs=roofs,
            between_ms=found.unattributed_ms,
            launched_ms=launched_ms,
        ),
    )


def _check_backend(name: str) -> None:
    """Raise ValueError, with those that can be profiled, for any other name; ImportError for one without packages."""
    can = f"give {', '.join(list(PROFILERS)[:-1])} or {list(PROFILERS)[-1]}"
    if name not in PROFILERS and name in backends.names():
        why = NOT_PROFILED.get(name, "it tells no time of an operator")
        raise ValueError(f"the back end {name} cannot be profiled: {why}; {can}")
    if name not in PROFILERS:
        close = difflib.get_close_matches(str(name), PROFILERS, n=1)
        raise ValueError(f"unknown back end {name!r}; {f'did you mean {close[0]!r}?' if close else can}")
    backends.get(name)


def middle(values: Sequence[float]) -> float:
    """The mean of the middle half: as steady as a median, and finer where a runtime tells whole microseconds."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    kept = ordered[cut : len(ordered) - cut]
    return sum(kept) / len(kept)


def _in_turns(
    run: Passes, now: Callable[[], float], passes: int, budget_seconds: float
) -> tuple[list[float], list[float], list[int]]:
    """Milliseconds of plain and of watched passes, and page faults of plain ones."""
    for _ in range(WARM_UP):
        run.plain()
        run.timed()
    plain: list[float] = []
    watched: list[float] = []
    faults: list[int] = []
    start = time.perf_counter()
    while len(plain) < passes:
        if len(plain) >= FEWEST_PASSES and time.perf_counter() - start > budget_seconds:
            break
        before = page_faults()
        plain.append(_ms(run.plain, now))
        faults.append(page_faults() - before)
        watched.append(_ms(run.timed, now))
    return plain, watched, faults


def _ms(call: Callable[[], None], now: Callable[[], float]) -> float:
    start = now()
    call()
    return 1e3 * (now() - start)
