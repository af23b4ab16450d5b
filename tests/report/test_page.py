"""What holds for every page: one whole file that fetches nothing and runs nothing but its own scripts."""

import base64
import hashlib
import json
import os
import re
import shutil
import sys

import pytest

import convsmith as cs
from tests.report.runs import Evaluation, Page, change_document, multiply, results, search_run, train_run

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    parent = tmp_path_factory.mktemp("runs")
    search_run(parent / "search", trials=8)
    train_run(parent / "train")
    return parent


@pytest.fixture(params=["search", "train"])
def folder(request, folders):
    return folders / request.param


def test_the_page_is_written_into_the_run_or_where_it_is_asked_for(folder, tmp_path):
    assert cs.report.write(folder) == folder / "report.html"
    assert cs.report.write(str(folder), str(tmp_path / "new" / "page.html")) == tmp_path / "new" / "page.html"
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!doctype html>")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_a_page_replaces_an_earlier_one_as_a_whole(folder, monkeypatch):
    page = cs.report.write(folder)
    before = page.read_bytes()

    def no_room(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="no space left"):
        cs.report.write(folder)
    assert page.read_bytes() == before
    assert not list(folder.glob(".report*"))


def test_nothing_is_fetched(folder):
    page = Page(cs.report.write(folder))
    addresses = [
        value for _, a in page.elements for name, value in a.items() if name in ("src", "href", "srcset", "action")
    ]
    assert addresses == []
    assert {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "img", "base"} == set()
    style = re.search(r"<style>(.*?)</style>", page.html, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_only_its_own_scripts_may_run(folder):
    page = Page(cs.report.write(folder))
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")
    allowed = re.search(r"script-src([^;]*)", policy)[1].split()
    scripts = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert allowed == [f"'sha256-{digest}'" for digest in digests]
    assert len(scripts) == 2
    assert "plotly.js" in scripts[0][:100]


def test_it_can_be_read_without_seeing_it(folder):
    page = Page(cs.report.write(folder))
    assert page.elements[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert set(levels[1:]) == {2}
    plots = [a for tag, a in page.elements if a.get("class") == "plot"]
    assert [a["id"] for a in plots] == list(page.figures)
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)
    tables = [tag for tag, _ in page.elements if tag in ("table", "caption")]
    assert tables == ["table", "caption"] * (len(tables) // 2)
    assert all(a.get("scope") for tag, a in page.elements if tag == "th")
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_text_of_the_run_is_text(tmp_path):
    width = cs.choice(4, 8)
    space = cs.Architecture(
        name=EVIL, in_channels=1, stages=[[cs.spec(cs.nn.ConvNormAct, width)]], head=cs.spec(cs.nn.Classifier, 2)
    )
    trouble = Evaluation([ValueError(EVIL)], {"data": f"{EVIL} 0123", EVIL: EVIL})
    search_run(tmp_path, trials=1, constraints=(), space=space, evaluation=trouble)
    change_document(tmp_path, command=EVIL, device={"name": EVIL}, versions={EVIL: EVIL}, started=EVIL, finished=EVIL)
    named = {"name": EVIL, "test_accuracy": 0.5, "params": 5}
    (tmp_path / "results.json").write_text(
        json.dumps(results(winner=named, baselines=[named], device={"name": EVIL}, export={EVIL: EVIL}))
    )
    page = Page(cs.report.write(tmp_path))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 4
    assert "img" not in tags
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count("<script>alert(1)</script>") >= 10
    assert "alert(1)" in page.heads()[0][2]
    labels = [trace["text"][0] for trace in page.figures["pareto-1"]["figure"]["data"] if "text" in trace]
    assert labels
    assert not any("<script" in label or "<img" in label for label in labels)


def test_10_000_trials_are_a_page_of_a_few_megabytes(folders, tmp_path):
    folder = tmp_path / "many"
    shutil.copytree(folders / "search", folder)
    multiply(folder, 10_000)
    page = Page(cs.report.write(folder))
    assert len(page.heads()) == 10_000
    assert sum(len(trace.get("customdata", ())) for trace in page.figures["history"]["figure"]["data"]) == 10_000
    assert len(page.html) < 15_000_000
    assert 2 <= len(page.table("Trials of the front")) <= 101


def test_a_folder_that_is_no_run_is_said(tmp_path, folders):
    with pytest.raises(FileNotFoundError, match=r"a run is a folder, and \S*nowhere is none; name"):
        cs.report.write(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has a run\.json, and \S* has none; name"):
        cs.report.write(tmp_path)
    for text, message in (
        ("{", r"run\.json must be JSON"),
        ("[]", r"run\.json must hold a JSON object, got a list"),
        ('{"format": "convsmith/run/9"}', r"must have the format 'convsmith/run/1', got 'convsmith/run/9'; name"),
        ('{"format": "convsmith/run/1", "kind": "walk"}', r"of kind search or train, got 'walk' in \S*run\.json; name"),
        ('{"format": "convsmith/run/1", "kind": "train", "settings": 3}', r"settings in \S* must be an object, got 3"),
    ):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            cs.report.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    with pytest.raises(ValueError, match=r"the path must name a file, and \S* is a folder"):
        cs.report.write(folders / "train", tmp_path)


@pytest.mark.parametrize("missing", ["jinja2", "plotly.offline"])
def test_a_missing_extra_is_named(folder, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    with pytest.raises(ImportError, match=rf"a page needs {missing}.*; pip install 'convsmith\[report\]'"):
        cs.report.write(folder)
