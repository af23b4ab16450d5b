import math

import pytest

from convsmith.train import cosine, with_warmup
from convsmith.train.epoch import learning_rate


@pytest.mark.parametrize(("progress", "factor"), [(0, 1), (1 / 3, 0.75), (0.5, 0.5), (2 / 3, 0.25), (1, 0)])
def test_cosine(progress, factor):
    assert cosine(progress) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("progress", "factor"), [(0, 0), (0.05, 0.25), (0.1, 0.5), (0.2, 1), (0.6, 0.5), (0.2 + 0.8 / 3, 0.75), (1, 0)]
)
def test_warmup_rises_linearly_and_leaves_the_rest_to_the_schedule(progress, factor):
    assert with_warmup(cosine, 0.2)(progress) == pytest.approx(factor)


def test_without_warmup_nothing_changes():
    schedule = with_warmup(cosine, 0)
    assert [schedule(p / 7) for p in range(8)] == [cosine(p / 7) for p in range(8)]


@pytest.mark.parametrize("share", [1, 1.5, -0.1, math.nan])
def test_a_warmup_that_leaves_no_room_is_refused(share):
    with pytest.raises(ValueError, match="below 1, got"):
        with_warmup(cosine, share)


def test_the_rate_of_a_step_is_that_of_its_middle():
    # Four steps, the first two of them warm-up: 1/4, 3/4 of the ramp, then the cosine at 1/4 and 3/4.
    rates = [learning_rate(2.0, with_warmup(cosine, 0.5), step, 4) for step in range(4)]
    half = math.sqrt(0.5)
    assert rates == pytest.approx([0.5, 1.5, 1 + half, 1 - half])
