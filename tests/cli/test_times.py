from convsmith.cli.times import print_times


def row(name, median, ratio=None, warnings=(), coverage=0.9586):
    times = {"median_ms": median, "low_ms": median - 0.1, "high_ms": median + 0.1, "spread_ms": 0.01}
    return {"name": name, **times, "coverage": coverage, "ratio": ratio, "warnings": warnings, "threads": 2}


def test_ratios_intervals_and_each_warning_once(capsys):
    ratio = {"to": "a", "median": 0.5, "low": 0.48, "high": 0.53, "coverage": 0.9586}
    print_times([row("a", 2.0, warnings=("busy", "wide")), row("b", 1.0, ratio, ("busy",))], ("threads",))
    out, err = capsys.readouterr()
    header, first, second = out.splitlines()
    assert header.split("  ")[0] == "name"
    assert first.split() == ["a", "2.000", "1.900", "-", "2.100", "0.010", "1", "2"]
    assert second.split() == ["b", "1.000", "0.900", "-", "1.100", "0.010", "0.500", "0.480", "-", "0.530", "2"]
    assert err.splitlines() == [
        "an interval holds the true median with 96% probability; ratios are to a",
        "all: busy",
        "a: wide",
    ]


def test_one_network_has_no_ratio(capsys):
    print_times([row("a", 2.0, coverage=0.75)], ("threads",))
    out, err = capsys.readouterr()
    assert "ratio" not in out
    assert err == "an interval holds the true median with 75% probability\n"
