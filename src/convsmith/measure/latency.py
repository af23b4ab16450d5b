"""How long a network takes on this machine: medians of interleaved rounds, with what says how far to trust them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from convsmith.deploy import allocator, clock, prepare
from convsmith.deploy.agreement import OutputsError
from convsmith.deploy.conditions import Watch
from convsmith.deploy.cores import pinned
from convsmith.deploy.precision import precision_of
from convsmith.deploy.prepare import Prepared
from convsmith.deploy.rounds import Call
from convsmith.deploy.snapshot import module_of, snapshot
from convsmith.deploy.timed import Timed, timed
from convsmith.measure.cuda_graph import captured
from convsmith.measure.outputs import FirstOutput
from convsmith.network.shapes import check_shape

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
LAYOUT_BACKENDS = ("eager", "compile")  # the others lay out activations as they like


@dataclass(frozen=True)
class Latency(Timed):
    """What `Timed` says, measured on this machine.

    `precision` is the type that was computed in. `cuda_graph` says that the device replayed a recorded pass, so that
    no launch from Python is in the figure. `keeps_memory` says that the allocator kept freed memory
    (`deploy.allocator`), which a comparison needs on both sides or on neither. Of `auto`, `tried_ms` are the times of
    all back ends that it chose from, and `passed_over` says why it left others out.
    """

    backend: str
    device: str
    batch: int
    precision: str
    layout: str
    cuda_graph: bool
    keeps_memory: bool
    torch_version: str
    tried_ms: Mapping[str, float]
    passed_over: Mapping[str, str]


def latency(
    module: nn.Module,
    input_shape: tuple[int, ...],
    *,
    backend: str = "eager",
    device: str = "cpu",
    threads: int = 1,
    precision: str | None = None,
    layout: str = "contiguous",
    rounds: int = 20,
    budget_seconds: float = 5.0,
    cuda_graph: bool = True,
) -> Latency:
    """The time of one forward pass; the arguments are those of `latencies`."""
    return latencies(
        {"": module},
        input_shape,
        backend=backend,
        device=device,
        threads=threads,
        precision=precision,
        layout=layout,
        rounds=rounds,
        budget_seconds=budget_seconds,
        cuda_graph=cuda_graph,
    )[""]


def latencies(
    modules: Mapping[str, nn.Module],
    input_shape: tuple[int, ...],
    *,
    backend: str = "eager",
    device: str = "cpu",
    threads: int = 1,
    precision: str | None = None,
    layout: str = "contiguous",
    rounds: int = 20,
    budget_seconds: float = 5.0,
    cuda_graph: bool = True,
) -> dict[str, Latency]:
    """The time of one forward pass of several networks, taken in turns, so that their ratios can be trusted.

    The networks are copied first, without what `torch.compile` put around them: neither their mode nor their running
    statistics change. On the CPU every thread of this process is held on as many cores as threads compute, and may run
    where it could before afterwards.

    Args:
        modules: Any networks from one tensor to one tensor, in eager also to several, by name; ratios are to the first.
        input_shape: The input's shape, batch included; the input is normal noise of the network's own type.
        backend: A name of `deploy.backends.names()`, or `auto`: for each network the fastest.
        device: Where to run, as torch names it.
        threads: How many threads compute; torch's own number is restored.
        precision: What `deploy.prepare` computes in (default: the network's own type).
        layout: `contiguous`, or `channels_last` for weights and inputs in eager and compile.
        rounds: Samples of each network.
        budget_seconds: Time per network after which no further round starts; three rounds are always made.
        cuda_graph: On a CUDA device, replay recorded passes where all networks can be recorded; else, and elsewhere,
            every pass is launched from Python.

    Raises ValueError for wrong arguments and for a network that the back end cannot run.
    """
    if not modules:
        raise ValueError("latencies needs at least one network, got none; give a mapping of name to module")
    input_shape = check_shape(input_shape)
    clock.check_threads(threads)
    on_cuda = clock.check_device(device).type == "cuda"
    _check_layout(layout, backend, input_shape)
    runs: dict[str, tuple[Prepared, Tensor]] = {}
    with clock.threads(threads):
        for name, given in modules.items():
            module = module_of(given)
            example = torch.randn(input_shape, generator=torch.Generator().manual_seed(0)).to(device, _dtype(module))
            if layout != "contiguous":
                module, example = _laid_out(module, example, LAYOUTS[layout])
            prepared = partial(prepare, backend=backend, threads=threads, precision=precision)
            try:
                runs[name] = prepared(module, example=example), example
            except OutputsError:
                if backend != "eager":  # exported, what computes the others would be left out
                    raise
                runs[name] = prepared(FirstOutput(module), example=example), example
        replays = _replays(runs) if on_cuda and cuda_graph else None
        calls: Mapping[str, Call] = replays or {
            name: partial(prepared.run, example) for name, (prepared, example) in runs.items()
        }
        # Threads of a CUDA device's driver stay where they are.
        with contextlib.nullcontext() if on_cuda else pinned(threads) as cores:
            watch = Watch(cores)
            timings = clock.measure(
                calls, rounds=rounds, budget_seconds=budget_seconds * len(runs), device=device, watch=watch.note
            )
            conditions = watch.conditions()
    return {
        name: Latency(
            **vars(found),
            backend=runs[name][0].backend,
            device=device,
            batch=input_shape[0],
            precision=precision or precision_of(runs[name][1]),
            layout=layout,
            cuda_graph=replays is not None,
            keeps_memory=allocator.keeps_memory(),
            torch_version=torch.__version__,
            tried_ms=runs[name][0].timings,
            passed_over=runs[name][0].rejected,
        )
        for name, found in timed(timings, conditions, threads=threads).items()
    }


def _check_layout(layout: str, backend: str, input_shape: tuple[int, ...]) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; the layouts are {', '.join(LAYOUTS)}")
    if layout == "contiguous":
        return
    if backend not in LAYOUT_BACKENDS:
        raise ValueError(
            f"the layout {layout} can be chosen for {' and '.join(LAYOUT_BACKENDS)}, and {backend} chooses its own; "
            "leave it out"
        )
    if len(input_shape) != 4:
        raise ValueError(f"the layout {layout} is of inputs (N, C, H, W), got the shape {input_shape}; leave it out")


def _laid_out(module: nn.Module, example: Tensor, layout: torch.memory_format) -> tuple[nn.Module, Tensor]:
    return snapshot(module).to(memory_format=layout), example.contiguous(memory_format=layout)


def _replays(runs: Mapping[str, tuple[Prepared, Tensor]]) -> Mapping[str, Call] | None:
    """Recorded passes of all networks, or None: a ratio of a recorded to a launched pass would say nothing."""
    found = {}
    for name, (prepared, example) in runs.items():
        replay = captured(prepared.run, example)
        if replay is None:
            return None
        found[name] = replay
    return found


def _dtype(module: nn.Module) -> torch.dtype:
    """The type of the first parameter: a network of one type takes inputs of that type."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
