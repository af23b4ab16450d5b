"""What advice consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from convsmith.arch import Architecture

Task = Literal["classification", "detection", "segmentation", "gan", "multi-task", "weights"]
TASKS: tuple[Task, ...] = get_args(Task)
LOCALISATION = ("detection", "segmentation")

SPEED = ("G1", "G2", "G3", "G4")  # rules whose edit is for speed; the others' may cost some

GUIDELINES = "Ma et al. 2018, arXiv:1807.11164"
LECTURE = "the lecture on CNN model design"


@dataclass(frozen=True)
class Gain:
    """An edited network over the original one, so that below 1 is a gain.

    MACs, memory traffic and params are counted. `how` says where `latency_ratio` is from: `measured` is the median
    ratio of interleaved rounds on this device, between `latency_low` and `latency_high` with the probability that
    `measure.latencies` states; `predicted` is a calibration's, without bounds; `counted` has none.
    """

    macs_ratio: float
    memory_ratio: float
    params_ratio: float
    latency_ratio: float | None = None
    latency_low: float | None = None
    latency_high: float | None = None
    how: Literal["counted", "measured", "predicted"] = "counted"

    @property
    def is_none(self) -> bool:
        """Whether the edited network is not faster: surely, where it was measured; else by the figures there are."""
        if self.latency_ratio is None:
            return self.macs_ratio >= 1 and self.memory_ratio >= 1
        return (self.latency_ratio if self.latency_low is None else self.latency_low) >= 1


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
        architecture: The architecture with the edit made, None of a module, where it takes more than an edit, and where
            an edit for speed gains none.
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

    @property
    def is_note(self) -> bool:
        """Whether there is nothing to change, only something to know: why a rule was not judged."""
        return self.value is None and not self.edit
