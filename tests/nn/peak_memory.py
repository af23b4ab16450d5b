"""How much memory a call allocates."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that the call has allocated on the CPU at any time, beyond what is there before, as torch counts it.

    Without `acc_events` torch 2.11 warns that the events of earlier steps are gone; there is one step.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        call()
    kineto = profiled.profiler.kineto_results
    events = sorted((e for e in kineto.events() if e.name() == "[memory]"), key=lambda e: e.start_ns())
    if not events:
        raise RuntimeError("the profiler recorded no allocation; does this torch name its events otherwise?")
    now = peak = 0
    for event in events:
        now += event.nbytes()
        peak = max(peak, now)
    return peak
