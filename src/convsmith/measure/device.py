"""What this machine is and how fast it can be: the yardstick beside which a network's latency is read."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F

from convsmith.deploy import clock
from convsmith.deploy.cores import pinned

CHANNELS, SIDE = (
    256,
    56,
)  # a 3 x 3 convolution of this size runs near the peak of any core; a large matrix product may not
COPIED_BYTES = 64 * 2**20  # more than the caches hold


@dataclass(frozen=True)
class DeviceSpeed:
    """One thread of this machine, in float32: the rate of a large convolution, and of copying (read plus written)."""

    name: str
    cores: int
    threads: int
    convolution_gmacs_per_s: float
    copy_gbytes_per_s: float
    torch_version: str


def device_speed(*, threads: int = 1) -> DeviceSpeed:
    """Measure this machine's convolution rate and memory bandwidth, in about a second."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, CHANNELS, SIDE, SIDE, generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, generator=generator)
    weight = weight.contiguous(memory_format=torch.channels_last)
    source = torch.zeros(COPIED_BYTES // 4)
    target = torch.empty_like(source)
    runs = {"convolution": partial(F.conv2d, x, weight, padding=1), "copy": partial(target.copy_, source)}
    with clock.threads(threads), pinned(threads), torch.inference_mode():
        timings = clock.measure(runs, rounds=10, budget_seconds=2.0)
    macs = SIDE**2 * CHANNELS**2 * 9
    return DeviceSpeed(
        name=processor_name(),
        cores=len(os.sched_getaffinity(0)),
        threads=threads,
        convolution_gmacs_per_s=macs / timings["convolution"].median_ms / 1e6,
        copy_gbytes_per_s=2 * COPIED_BYTES / timings["copy"].median_ms / 1e6,
        torch_version=torch.__version__,
    )


def processor_name() -> str:
    """The processor as the kernel names it, else as Python does."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
