"""What is known to slow PyTorch's own operators, found in a profile and told with its share of the time."""

from __future__ import annotations

from collections.abc import Sequence

from convsmith.measure.profile.eager import KERNELS
from convsmith.measure.profile.faults import fault_ms
from convsmith.measure.profile.result import Slowdown, Step
from convsmith.measure.roofs import Roofs

SLOW_CONVOLUTION = KERNELS["Slow2d"]
NORMS = frozenset(("batch_norm",))
# fmt: off
ACTIVATIONS = frozenset((
    "relu", "relu6", "hardtanh", "clamp", "clamp_min", "leaky_relu", "elu", "selu", "celu", "gelu", "sigmoid", "silu",
    "hardsigmoid", "hardswish", "mish", "tanh", "softplus", "prelu_kernel", "threshold",
))
# fmt: on
SMALLEST_SHARE = 0.02


def eager_slowdowns(
    steps: Sequence[Step],
    *,
    total_ms: float,
    faults: int,
    roofs: Roofs,
    between_ms: float,
    launched_ms: float | None = None,
) -> tuple[Slowdown, ...]:
    """The findings whose share of the time is at least a fiftieth, the largest first.

    `launched_ms` is the time of a pass that Python launches, where the others are those of a replayed one.
    """
    found = [
        _convolutions_as_products(steps, total_ms, roofs),
        _pages(total_ms, faults),
        _passes_behind(steps, total_ms, NORMS, "norm"),
        _passes_behind(steps, total_ms, ACTIVATIONS, "activation"),
        _between(total_ms, between_ms) if launched_ms is None else _launches(total_ms, launched_ms),
    ]
    told = [slowdown for slowdown in found if slowdown is not None and slowdown.share >= SMALLEST_SHARE]
    return tuple(sorted(told, key=lambda slowdown: -slowdown.share))


def _convolutions_as_products(steps: Sequence[Step], total_ms: float, roofs: Roofs) -> Slowdown | None:
    slow = [step for step in steps if step.kernel == SLOW_CONVOLUTION]
    ms = sum(step.ms for step in slow)
    if not ms:
        return None
    rate = sum(step.macs for step in slow) / ms / 1e6
    at_peak = sum(step.macs for step in slow) / roofs.gmacs_per_s / 1e6
    message = (
        f"{_count(slow, 'convolution')} took {_percent(ms / total_ms)} of the time at {rate:.0f} GMAC/s, "
        f"{_percent(rate / roofs.gmacs_per_s)} of this device's peak, at which {_percent(at_peak / total_ms)} would "
        f"do: torch sends them to {SLOW_CONVOLUTION}, a matrix product, and not to oneDNN, as it does with 1 x 1 "
        "convolutions on one thread below a batch of 16; another back end, more threads or a larger batch avoids it"
    )
    return Slowdown("convolutions_as_products", ms / total_ms, message)


def _pages(total_ms: float, faults: int) -> Slowdown | None:
    if not faults:
        return None
    ms = faults * fault_ms()
    message = (
        f"the kernel provided {faults:,} pages in each pass, about {_percent(ms / total_ms)} of the time, as the "
        "allocator gives freed activations back to it; convsmith.deploy.allocator.keep_memory() at the start of the "
        "process prevents it"
    )
    return Slowdown("returned_memory", ms / total_ms, message)


def _passes_behind(steps: Sequence[Step], total_ms: float, operators: frozenset[str], what: str) -> Slowdown | None:
    chosen = [step for step in steps if step.operator in operators and _behind_convolution(step, steps)]
    ms = sum(step.ms for step in chosen)
    if not ms:
        return None
    remedy = (
        "deploy.fold_norm puts them into the convolutions' weights"
        if what == "norm"
        else "a back end that fuses operators computes most of them inside the convolution"
    )
    message = (
        f"{_count(chosen, what)} behind convolutions are passes of their own over the map and took "
        f"{_percent(ms / total_ms)} of the time; {remedy}"
    )
    return Slowdown(f"separate_{what}s", ms / total_ms, message)


def _behind_convolution(step: Step, steps: Sequence[Step]) -> bool:
    """Whether it reads a convolution's output, maybe through norms and activations."""
    while step.reads:
        step = steps[step.reads[0]]
        if step.operator == "convolution":
            return True
        if step.operator not in NORMS | ACTIVATIONS:
            return False
    return False


def _between(total_ms: float, between_ms: float) -> Slowdown | None:
    message = (
        f"{_percent(between_ms / total_ms)} of the time passes between the operators: Python, torch's dispatch and the "
        "freeing of memory; a runtime, or a larger batch, makes it small"
    )
    return Slowdown("between_operators", between_ms / total_ms, message)


def _launches(total_ms: float, launched_ms: float) -> Slowdown | None:
    message = (
        f"launched by Python the pass takes {launched_ms:.3f} ms, {launched_ms / total_ms:.1f} times what the device "
        "needs: it waits for the next kernel; a recorded pass (torch.cuda.graph, or torch.compile with "
        "mode='reduce-overhead') or a larger batch avoids it"
    )
    return Slowdown("launches", max(0.0, 1 - total_ms / launched_ms), message)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _count(steps: Sequence[Step], what: str) -> str:
    return f"{len(steps)} {what}{'s' if len(steps) != 1 else ''}"
