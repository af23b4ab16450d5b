"""A profile with round figures: one layer of each kind under two roofs."""

from convsmith.measure import Profile
from convsmith.measure.profile import Slowdown, Step
from convsmith.measure.roofs import Roofs

# 100 GMAC/s; 50 GB/s in memory, 200 GB/s in a cache of 1 MiB.
ROOFS = Roofs(100.0, "made up", ((2**10, 80.0), (2**15, 80.0), (2**20, 200.0), (2**25, 60.0), (2**30, 50.0)))


def made_profile(*, module="stem.0", latency_ms=10.0, slowdowns=(), extra=()):
    steps = (
        Step(module, "convolution", "fast", "convolution", (1, 8, 4, 4), 200_000_000, 1_000_000, 4.0),
        Step("stages.0.1", "convolution", "slow", "convolution", (1, 8, 4, 4), 10_000_000, 10_000_000, 2.0),
        Step("stages.0.1", "relu", "", "elementwise", (1, 8, 4, 4), 0, 50_000_000, 1.0),
        Step("", "cat", "", "data", (1, 16, 4, 4), 0, 1_000, 0.5),
        Step("head", "empty", "", "data", (1, 1), 0, 0, 0.5),
        *extra,
    )
    return Profile(
        steps=steps,
        latency_ms=latency_ms,
        profiled_ms=12.0,
        passes=3,
        unknown=(),
        page_faults=0,
        roofs=ROOFS,
        slowdowns=tuple(Slowdown(name, 0.1, message) for name, message in slowdowns),
        backend="eager",
        device="cpu",
        batch=1,
        threads=1,
        torch_version="2",
    )
