"""Latency on other devices, reached by ssh or adb."""

from convsmith.measure.remote.latency import check_reachable, remote_latency
from convsmith.measure.remote.result import RemoteLatency
from convsmith.measure.remote.target import Target, parse_target
from convsmith.measure.remote.transport import RemoteError

__all__ = ["RemoteError", "RemoteLatency", "Target", "check_reachable", "parse_target", "remote_latency"]
