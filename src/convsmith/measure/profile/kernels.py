"""The time of each operator's kernels on a CUDA device, as the device's own records (CUPTI) have it.

Events around an operator would not do: a kernel of a light network takes less time than the gap that two events leave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity

from convsmith.measure.profile.watch import Watch

MARK = "convsmith operator "


class KernelWatch(Watch):  # type: ignore[no-untyped-call]
    """Names each operator in the record."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def operator(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run one operator under its name."""
        self.count += 1
        with record_function(f"{MARK}{self.count}"):
            return func(*args, **kwargs)


def kernel_milliseconds(call: Callable[[], object]) -> list[float]:
    """The milliseconds of the kernels that each operator of a call launches, in order."""
    watch = KernelWatch()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, acc_events=True) as record:  # without it torch 2.11 warns
        with watch:
            call()
        torch.cuda.synchronize()
    found = [0.0] * watch.count
    for event in record.events() or ():
        # The device's own records of the names are events too, of the span from the first kernel to the last.
        if event.name.startswith(MARK) and event.device_type == torch._C._autograd.DeviceType.CPU:
            found[int(event.name.removeprefix(MARK)) - 1] = event.device_time_total / 1e3
    return found
