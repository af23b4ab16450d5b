"""What a profile holds: the time of each operator of one pass, and the same time by category, operator and module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from convsmith.measure.profile.categories import CATEGORIES, Category
from convsmith.measure.roofs import Roofs

UNATTRIBUTED = "unattributed"
VIEWS = ("category", "operator", "module", "layer")


@dataclass(frozen=True)
class Step:
    """One operator that ran in the pass, in the order of execution.

    Attributes:
        module: Path of the innermost module around it as in `named_modules`, "" where no name is known.
        operator: Its name in the back end: ATen's, ONNX's or OpenVINO's.
        kernel: What the back end chose to run, where it tells.
        category: One of `CATEGORIES`.
        shape: Of its first output.
        macs: Multiply-accumulates over the whole batch.
        memory_bytes: Bytes of its inputs and weights, plus those that it writes.
        ms: Milliseconds in one pass.
        reads: Positions of the steps whose outputs it reads, where the back end tells.
    """

    module: str
    operator: str
    kernel: str
    category: Category
    shape: tuple[int, ...]
    macs: int
    memory_bytes: int
    ms: float = 0.0
    reads: tuple[int, ...] = ()


@dataclass(frozen=True)
class Share:
    """A part of the pass: how many operators ran in it, their time, and its share of the whole."""

    calls: int
    ms: float
    share: float
    macs: int
    memory_bytes: int


@dataclass(frozen=True)
class Slowdown:
    """Something that makes this network slower on this back end than it need be, and the share of the time in it."""

    name: str
    share: float
    message: str


@dataclass(frozen=True)
class Profile:
    """Where the time of one forward pass goes, in eval mode and without gradients.

    Attributes:
        steps: Every operator of the pass, in order.
        latency_ms: The pass as it is, without profiling; taken in turns with the profiled passes. On one thread of the
            CPU it is processor time.
        profiled_ms: The pass while it is profiled, likewise: what is above `latency_ms` is the profiler's own time.
        attributed_ms: The sum of the steps.
        total_ms: The whole that shares are shares of: the larger of `latency_ms` and `attributed_ms`.
        unattributed_ms: What of the whole is in no operator: Python, dispatch, views, freeing memory. 0 where
            profiling made the operators so much slower that they exceed the pass.
        unknown: Operators that have no category, which count as `other`.
        page_faults: Pages that the kernel had to provide in one pass, because freed memory had been given back to it.
        roofs: What the device can do at best.
        slowdowns: What is known to slow the pass, the largest share first.
    """

    steps: tuple[Step, ...]
    latency_ms: float
    profiled_ms: float
    passes: int
    unknown: tuple[str, ...]
    page_faults: int
    roofs: Roofs
    slowdowns: tuple[Slowdown, ...]
    backend: str
    device: str
    batch: int
    threads: int
    torch_version: str

    @cached_property
    def attributed_ms(self) -> float:
        """The sum of the steps' times."""
        return sum(step.ms for step in self.steps)

    @property
    def total_ms(self) -> float:
        """The whole that shares are shares of."""
        return max(self.latency_ms, self.attributed_ms)

    @property
    def unattributed_ms(self) -> float:
        """The part of the whole that is in no operator."""
        return self.total_ms - self.attributed_ms

    @cached_property
    def by_category(self) -> Mapping[str, Share]:
        """The lecture's pie: every category, and what is in none; the shares add up to 1."""
        found = self._grouped(lambda step: (step.category,))
        empty = Share(0, 0.0, 0.0, 0, 0)
        unattributed = Share(0, self.unattributed_ms, self.unattributed_ms / self.total_ms, 0, 0)
        return {**{name: found.get(name, empty) for name in CATEGORIES}, UNATTRIBUTED: unattributed}

    @cached_property
    def by_operator(self) -> Mapping[str, Share]:
        """By operator and what ran it, the longest first."""
        return _longest_first(self._grouped(lambda step: (f"{step.operator} {step.kernel}".strip(),)))

    @cached_property
    def by_module(self) -> Mapping[str, Share]:
        """By module path, children included, in the order of execution; "" is all that is attributed."""
        return self._grouped(lambda step: _with_parents(step.module))

    def rows(self, view: str) -> list[dict[str, Any]]:
        """One of `VIEWS` as plain rows; a step's row says how near it is to the device's roofs.

        Raises ValueError for another view.
        """
        check_view(view)
        if view == "layer":
            return [self._step_row(step) for step in self.steps]
        shares: Mapping[str, Share] = getattr(self, f"by_{view}")
        return [{view: name, **asdict(share)} for name, share in shares.items()]

    def document(self) -> dict[str, Any]:
        """Everything as plain data for JSON: the figures, all views, the roofs and the roofline's points."""
        figures = {
            name: getattr(self, name)
            for name in (
                *("backend", "device", "batch", "threads", "torch_version", "passes", "latency_ms", "profiled_ms"),
                *("total_ms", "attributed_ms", "unattributed_ms", "page_faults"),
            )
        }
        return {
            **figures,
            "unknown": list(self.unknown),
            "slowdowns": [asdict(slowdown) for slowdown in self.slowdowns],
            "roofs": asdict(self.roofs),
            **{f"by_{view}": self.rows(view) for view in VIEWS},
        }

    def _step_row(self, step: Step) -> dict[str, Any]:
        row = asdict(step)
        del row["reads"]
        return row | {"share": step.ms / self.total_ms} | self.roofs.place(step.macs, step.memory_bytes, step.ms)

    def _grouped(self, keys: Callable[[Step], Iterable[str]]) -> dict[str, Share]:
        members: dict[str, list[Step]] = {}
        for step in self.steps:
            for key in keys(step):
                members.setdefault(key, []).append(step)
        return {key: self._share(steps) for key, steps in members.items()}

    def _share(self, steps: list[Step]) -> Share:
        ms = sum(step.ms for step in steps)
        return Share(
            calls=len(steps),
            ms=ms,
            share=ms / self.total_ms,
            macs=sum(step.macs for step in steps),
            memory_bytes=sum(step.memory_bytes for step in steps),
        )


def check_view(view: str) -> None:
    """Raise ValueError for anything but one of `VIEWS`."""
    if view not in VIEWS:
        raise ValueError(f"unknown view {view!r} of a profile; the views are {', '.join(VIEWS)}")


def _longest_first(shares: Mapping[str, Share]) -> dict[str, Share]:
    return dict(sorted(shares.items(), key=lambda item: -item[1].ms))


def _with_parents(path: str) -> list[str]:
    parts = path.split(".") if path else []
    return ["", *(".".join(parts[: i + 1]) for i in range(len(parts)))]
