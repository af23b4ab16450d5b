"""The page of a profile: its figures are those of the profile, and it fetches nothing."""

import re
import sys
from dataclasses import replace
from importlib.metadata import version

import pytest

import convsmith as cs
from tests.report.profiles import made_profile
from tests.report.runs import Page

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def page(tmp_path, profile, **options):
    options = {"name": "net", "input_shape": (1, 3, 4, 4), **options}
    return Page(cs.report.write_profile(profile, tmp_path / "page.html", **options))


def test_the_tables_hold_the_profile(tmp_path):
    profile = made_profile(slowdowns=[("slow", "it is")])
    found = page(tmp_path, profile, keeping_memory_ms=7.0, command=["convsmith", "profile", "a net"])
    assert list(found.figures) == ["roofline", "traffic", "pie", "operators"]
    layers = found.table("Time of one pass by layer")
    assert len(layers) == 1 + len(profile.steps)
    row = dict(zip(layers[0], layers[1], strict=True))
    assert row == {
        "module": "stem.0", "operator": "convolution", "kernel": "fast", "category": "convolution",
        "time (ms)": "4.000", "share": "40.0%", "MACs": "200,000,000", "bytes": "1,000,000", "MAC/byte": "200.0",
        "GMAC/s": "50.0", "of the peak": "50%", "GB/s": "0.2", "of its roof": "50%", "roof": "compute",
    }  # fmt: skip
    assert ["convolution", "2", "6.000", "60.0%"] in found.table("Time of one pass by category")
    assert ["convolution slow", "1", "2.000", "20.0%"] in found.table("Time of one pass by operator")
    for text in ("21 GMAC/s", "21% of the peak", "slow : it is", "7.000 ms", "convsmith profile 'a net'", "made up"):
        assert text in found.text


def test_a_profile_without_arithmetic_has_no_roofline(tmp_path):
    whole = made_profile()
    moves = [step for step in whole.steps if not step.macs]
    found = page(tmp_path, cs.measure.Profile(**{**vars(whole), "steps": tuple(moves)}))
    assert list(found.figures) == ["traffic", "pie", "operators"]


def test_layers_of_which_the_back_end_tells_no_bytes_have_no_plot(tmp_path):
    whole = made_profile()
    untold = [step if step.macs else replace(step, memory_bytes=0) for step in whole.steps]
    found = page(tmp_path, replace(whole, steps=tuple(untold), backend="onnxruntime"))
    assert list(found.figures) == ["roofline", "pie", "operators"]
    assert f"onnxruntime {version('onnxruntime')}" in found.text


def test_it_is_one_file_whose_text_is_text(tmp_path):
    found = page(tmp_path, made_profile(module=EVIL, slowdowns=[(EVIL, EVIL)]), name=EVIL, command=[EVIL])
    tags = [tag for tag, _ in found.elements]
    assert tags.count("script") == 3
    assert not {"link", "iframe", "img", "base"} & set(tags)
    assert not any(name.startswith("on") or name in ("src", "href") for _, a in found.elements for name in a)
    assert re.search(r"default-src 'none'; ", found.html)
    plots = [a for _, a in found.elements if a.get("class") == "plot"]
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)
    identifiers = [a["id"] for _, a in found.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_where_it_cannot_be_written_is_told_first(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"the path must name a file, and \S* is a folder; add"):
        cs.report.check_page(tmp_path)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"pip install 'convsmith\[report\]'"):
        cs.report.check_page(tmp_path / "page.html")
