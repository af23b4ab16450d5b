"""What is asked of another device, what comes back, and what the user gets."""

from __future__ import annotations

from dataclasses import dataclass

from convsmith.deploy.conditions import Conditions
from convsmith.deploy.rounds import Timing
from convsmith.deploy.timed import Timed


@dataclass(frozen=True)
class Settings:
    """How to measure: see `remote_latency`."""

    batch: int
    threads: int
    rounds: int
    budget_seconds: float


@dataclass(frozen=True)
class Found:
    """A timing of each file, what the device did meanwhile, what it is, and what ran the files."""

    timings: dict[str, Timing]
    conditions: Conditions
    device: str
    runtime: str


@dataclass(frozen=True)
class RemoteLatency(Timed):
    """What `Timed` says, measured on another device; `batch` is None where the file alone knows it."""

    target: str
    device: str
    runtime: str
    batch: int | None
    file_bytes: int
