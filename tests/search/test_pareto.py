"""The front against its definition."""

import random

import pytest

from convsmith.search import pareto_front


def dominated(a, b):
    """Whether b dominates a, by the definition."""
    return all(y <= x for x, y in zip(a, b, strict=True)) and any(y < x for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("coordinates", [1, 2, 3, 4])
def test_the_front_is_what_nothing_dominates(coordinates):
    rng = random.Random(coordinates)
    for values in (3, 6, 1000):  # few values: many ties
        points = [tuple(rng.randrange(values) for _ in range(coordinates)) for _ in range(120)]
        expected = [i for i, a in enumerate(points) if not any(dominated(a, b) for b in points)]
        assert pareto_front(points) == expected


def test_equal_points_are_all_kept():
    assert pareto_front([(1, 2), (2, 1), (1, 2), (2, 2), (1, 3)]) == [0, 1, 2]
    assert pareto_front([(1, 2, 3), (1, 2, 3), (1, 2, 4)]) == [0, 1]


def test_no_points_have_no_front():
    assert pareto_front([]) == []


def test_points_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="equally many coordinates"):
        pareto_front([(1, 2), (1, 2, 3)])


def test_two_coordinates_take_no_quadratic_time():
    # Comparisons are counted, not seconds: all points are on the front, the worst case of a quadratic method.
    count = 0

    class Counted(float):
        def __le__(self, other):
            nonlocal count
            count += 1
            return float.__le__(self, other)

    points = [(Counted(i), Counted(-i)) for i in range(2000)]
    assert len(pareto_front(points)) == 2000
    assert count <= 4 * 2000
