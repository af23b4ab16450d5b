"""What advice consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from convsmith.arch import Architecture

Task = Literal["classification", "detection", "segmentation", "gan", "multi-task", "weights"]
TASKS: tuple[Task, ...] = get_args(Task)
LOCALISATION = ("detection", "segmentation")

GUIDELINES = "Ma et al. 2018, arXiv:1807.11164"
LECTURE = "the lecture on CNN model design"


@dataclass(frozen=True)
class Gain:
    """An edited network over the original one, so that below 1 is a gain.

    `latency_ratio` is the median ratio of interleaved rounds on this device, between `latency_low` and `latency_high`
    with the probability that `measure.latencies` states; None where nothing was measured. The others are counted.
    """

    macs_ratio: float
    memory_ratio: float
    params_ratio: float
    latency_ratio: float | None = None
    latency_low: float | None = None
    latency_high: float | None = None

    @property
    def how(self) -> str:
        """Where the figures are from."""
        return "counted" if self.latency_ratio is None else "measured"


@dataclass(frozen=True)
class Finding:
    """One thing to change, or to know.

    Attributes:
        rule: Its short name: "G1" to "G4", "norm", "receptive field", "channel receptive field", "shortcuts",
            "attention", "use".
        where: Paths of the modules or blocks, as in `named_modules`.
        value: The figure that breaks the rule, in `unit`; None where the rule has none.
        unit: What the figure counts.
        reason: Why, with the source.
        edit: What to do, in words.
        architecture: The architecture with the edit made, None of a module and where it takes more than an edit.
        gain: The edited architecture over the original one.
        time_share: The share of the measured time that is spent at `where`, None where nothing was measured.
    """

    rule: str
    where: tuple[str, ...]
    value: float | None
    unit: str
    reason: str
    edit: str
    architecture: Architecture | None = None
    gain: Gain | None = None
    time_share: float | None = None
