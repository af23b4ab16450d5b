"""What the plots of a profile hold, by hand; and that plotly knows every property."""

import math

import plotly.graph_objects as go
import pytest

from convsmith.measure.profile import Step
from convsmith.report.roofline import COLOURS, MOST_BARS, bars, pie, roofline, traffic
from tests.report.profiles import made_profile


def by_name(figure):
    go.Figure(figure)  # raises for a property or value that plotly does not have
    return {trace["name"]: trace for trace in figure["data"]}


def test_layers_that_multiply_stand_under_the_roofs():
    traces = by_name(figure := roofline(made_profile()))
    assert {figure["layout"][axis]["type"] for axis in ("xaxis", "yaxis")} == {"log"}
    points = traces["convolution"]
    assert points["x"] == [200.0, 1.0]  # multiply-accumulates per byte
    assert points["y"] == [50.0, 5.0]  # GMAC/s
    assert set(traces) == {
        "convolution",
        "200 GB/s in 1 MiB",
        "50 GB/s in 1024 MiB",
        "peak 100 GMAC/s",
    }
    left, right = 0.5 / 1.5, 200 * 1.5
    cache, memory, peak = (traces[name] for name in ("200 GB/s in 1 MiB", "50 GB/s in 1024 MiB", "peak 100 GMAC/s"))
    # 100 GMAC/s are 0.5 MAC for each of 200 GB/s, and 2 MAC for each of 50.
    assert (cache["x"], cache["y"]) == (pytest.approx([left, 0.5]), pytest.approx([200 * left, 100]))
    assert (memory["x"], memory["y"]) == (pytest.approx([left, 2]), pytest.approx([50 * left, 100]))
    assert (peak["x"], peak["y"]) == (pytest.approx([0.5, right]), [100, 100])


def test_a_point_says_which_layer_it_is_and_how_near_to_the_roofs():
    points = by_name(roofline(made_profile(module="<b>&")))["convolution"]
    first, second = (text.split("<br>") for text in points["hovertext"])
    assert first[0] == "<b>&lt;b&gt;&amp;</b>"
    assert first[1:] == [
        "convolution fast",
        "1 × 8 × 4 × 4, convolution",
        "4 ms, 40.0% of the pass",
        "50 GMAC/s, 50% of the peak",
        "0.25 GB/s, 50% of its roof (compute)",
    ]
    # 10 MB at 60 GB/s take 0.167 ms, its arithmetic at the peak 0.1 ms.
    assert second[-2:] == ["5 GMAC/s, 5% of the peak", "5 GB/s, 8% of its roof (bandwidth)"]
    small, large = sorted(points["marker"]["size"])
    assert (large**2 - 36) / (small**2 - 36) == pytest.approx(2)  # 4 ms and 2 ms, beside what any point has


def test_layers_that_only_move_stand_by_their_traffic():
    traces = by_name(traffic(made_profile()))
    assert (traces["elementwise"]["x"], traces["elementwise"]["y"]) == ([50_000_000], [50.0])
    assert traces["data"]["x"] == [1_000]  # what moves nothing has no place
    assert traces["data"]["y"] == [pytest.approx(0.002)]
    (roof,) = (trace for trace in traces.values() if trace["mode"] == "lines")
    assert (roof["x"][0], roof["y"]) == (2**10, [200.0, 200.0, 200.0, 60.0, 50.0])


def test_the_pie_is_the_pass():
    (slices,) = pie(made_profile())["data"]
    go.Figure({"data": [slices]})
    assert dict(zip(slices["labels"], slices["values"], strict=True)) == {
        "convolution": 6.0, "elementwise": 1.0, "data": 1.0, "unattributed": 2.0,
    }  # fmt: skip
    assert slices["marker"]["colors"] == [COLOURS[name] for name in slices["labels"]]


def test_bars_are_the_longest_operators_and_one_of_all_others():
    extra = [Step("", f"op{i}", "", "other", (1,), 0, 8, 0.01 * (i + 1)) for i in range(20)]
    figure = bars(made_profile(extra=extra))
    go.Figure(figure)
    (bar,) = figure["data"]
    assert len(bar["x"]) == MOST_BARS + 1
    assert bar["y"][-1] == "convolution fast"
    assert bar["y"][0] == "9 others"
    assert math.isclose(sum(bar["x"]), 8.0 + sum(step.ms for step in extra))
    assert bar["x"][1:] == sorted(bar["x"][1:])
