"""Which of several points are worth having: the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices, ascending, of the points that no other one dominates; less is better in every coordinate.

    A point dominates another one that it nowhere exceeds and somewhere undercuts, so equal points are all kept. In
    the order of their coordinates a point can only be dominated by earlier ones: for two coordinates it is enough to
    compare with the latest of the front, O(n log n) in all; for more, each is held against the whole front so far.
    """
    lengths = {len(point) for point in points}
    if len(lengths) > 1:
        raise ValueError(f"points must have equally many coordinates, got {sorted(lengths)}")
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: tuple(points[i])):
        point = tuple(points[i])
        rivals = front[-1:] if len(point) <= 2 else front
        if not any(tuple(points[j]) != point and _nowhere_exceeds(points[j], point) for j in rivals):
            front.append(i)
    return sorted(front)


def _nowhere_exceeds(point: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(point, other, strict=True))
