"""How numbers are shown."""

import math

import pytest

from convsmith.report import unit_of
from convsmith.report.units import shortened


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("latency_ms", "latency (ms)"),
        ("memory_bytes", "memory (bytes)"),
        ("seconds", "time (s)"),
        ("macs", "MACs"),
        ("lr", "learning rate"),
        ("train_loss", "train loss"),
        ("accuracy", "accuracy (%)"),
        ("items", "items"),
    ],
)
def test_the_label_has_the_unit(metric, label):
    assert unit_of(metric, [0.5]).label == label


def test_a_fraction_is_shown_in_percent_and_percent_as_it_is():
    assert unit_of("test_accuracy", [0.5, 0.98765, None]).text(0.98765) == "98.77"
    assert unit_of("test_accuracy", [50.0, 98.765]).text(98.765) == "98.8"
    assert unit_of("test_accuracy", [50.0]).label == "test accuracy"


def test_a_column_has_as_many_decimals_as_its_largest_and_smallest_number_need():
    unit = unit_of("latency_ms", [0.4123, 0.0512])
    assert [unit.text(0.4123), unit.text(0.0512), unit.text(1234.5678)] == ["0.412", "0.051", "1,234.568"]
    assert unit_of("latency_ms", [123.4]).text(123.4) == "123"
    assert unit_of("params", [3_504_872.0, 5.0]).text(3_504_872.0) == "3,504,872"
    assert unit_of("lr", [0.05, 4.9e-9]).text(4.9e-9) == "4.9e-09"


def test_what_is_no_number_is_a_dash():
    unit = unit_of("loss", [math.nan, None, 0.25, math.inf])
    assert [unit.text(value) for value in (None, math.nan, math.inf, 0.25)] == ["–", "–", "–", "0.250"]
    assert unit_of("loss", []).text(0.0) == "0"


def test_a_number_outside_of_a_column_has_its_unit_and_its_own_decimals():
    unit = unit_of("latency_ms", [0.4123, 99.0])
    assert unit.phrase(0.4123) == "0.412 ms"
    assert unit_of("accuracy", [0.5]).phrase(0.98765) == "98.77 %"
    assert unit_of("macs", [5.0]).phrase(1_066_624.0) == "1,066,624"


def test_large_counts_of_a_headline_are_short():
    assert [shortened(count) for count in (999, 113_938, 3_504_872, 1.53e10)] == ["999", "114 k", "3.5 M", "15.3 G"]
