"""What a network costs and how fast it runs, for any module: counts, latency, and the device beside them."""

from convsmith.measure.cost import Cost, cost
from convsmith.measure.count import Counts, ModuleCounts, OperatorCounts, count
from convsmith.measure.device import DeviceSpeed, device_speed
from convsmith.measure.latency import Latency, latencies, latency

__all__ = [
    "Cost",
    "Counts",
    "DeviceSpeed",
    "Latency",
    "ModuleCounts",
    "OperatorCounts",
    "cost",
    "count",
    "device_speed",
    "latencies",
    "latency",
]
