"""The page of a search against its history."""

import json
import re
from collections import Counter

import pytest

import convsmith as cs
from convsmith.search import Constraint, History
from tests.report.runs import LIMIT, MACS, SHAPE, Evaluation, Page, change_document, results, search_run, space

ERRORS = [ValueError(f"no <b>luck</b> with {i}") for i in range(3)] + [MemoryError("host")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    search_run(folder, evaluation=Evaluation(ERRORS))
    return folder


@pytest.fixture(scope="module")
def history(folder):
    return History.open(folder)


@pytest.fixture(scope="module")
def page(folder):
    return Page(cs.report.write(folder))


def test_the_headline_is_the_best_trial(page, history):
    best = history.best
    assert "Search of small on digits" in page.text
    assert f"Best accuracy {100 * best.metrics['accuracy']:.2f} % trial {best.number}".lower() in page.text.lower()
    assert f"at most {LIMIT:,}" in page.text
    assert "complete trials 24 of 24 asked for" in page.text
    assert "not finished" not in page.text


def test_the_front_is_tabled_with_decisions_in_words(page, history):
    head, *rows = page.table("Trials of the front")
    assert head == ["trial", "accuracy (%)", "MACs", "params", "loss", "time (s)", "decisions"]
    complete = list(history.complete)
    front = [
        t for t in complete
        if not any(
            o.metrics["accuracy"] >= t.metrics["accuracy"] and o.metrics["macs"] <= t.metrics["macs"] and o is not t
            for o in complete
        )
    ]  # fmt: skip
    front.sort(key=lambda t: t.metrics["macs"])
    assert [int(row[0]) for row in rows] == [t.number for t in front]
    for row, trial in zip(rows, front, strict=True):
        assert row[1] == f"{100 * trial.metrics['accuracy']:.2f}"
        assert row[2] == f"{trial.metrics['macs']:,.0f}"
        architecture = space().resolve(trial.decisions)
        block = architecture.stages[0][0]
        assert f"block {block.block}" in row[-1]
        assert f"width {block.get('out_channels')}" in row[-1]
        assert f"depth {len(architecture.stages[0])} block" in row[-1]


def test_states_are_counted_and_reasons_grouped(page, history):
    counts = Counter(trial.state for trial in history)
    assert counts["failed"] == 4
    assert counts["infeasible"] > 0
    assert dict(page.table("States")[1:]) == {state: str(count) for state, count in counts.items()}
    reasons = {row[2]: (row[0], row[1]) for row in page.table("Why trials failed")[1:]}
    assert reasons.pop(f"MACs: at most {LIMIT:,}") == ("infeasible", str(counts["infeasible"]))
    (luck, host) = sorted(reasons, reverse=True)
    assert luck.startswith("ValueError: no <b>luck</b> with 0")
    assert host.startswith("MemoryError: host")
    assert (reasons[luck], reasons[host]) == (("failed", "3"), ("failed", "1"))


def test_every_trial_has_a_hover(page, history):
    heads = page.heads()
    assert [head[0] for head in heads] == [
        f"trial {t.number}, {t.state}" + (f", the network of trial {t.same_as}" if t.same_as is not None else "")
        for t in sorted(history, key=lambda trial: trial.number)
    ]
    hover = json.loads(page.data["hover"])
    for trial, (_, options) in zip(sorted(history, key=lambda t: t.number), hover["trials"], strict=True):
        assert [option for option in options if option >= 0] == [
            trial.decisions[key] for key, _ in space().choices() if key in trial.decisions
        ]
    assert [choice[:2] for choice in hover["choices"]][-1] == ["stage 1", "expansion"]


def test_the_architecture_is_the_best_one(page, folder):
    best = cs.Architecture.load(folder / "best.json")
    counted = cs.measure.cost(best, SHAPE)
    head, *rows, total = page.table("small, one image of 1 × 8 × 8")
    assert head == ["stage", "block", "arguments that differ from the defaults", "output (C × H × W)", "params", "MACs"]
    assert total == ["total", "", f"{counted.params:,}", f"{counted.macs:,}"]
    assert rows[0][:3] == ["stem", "conv_norm_act", page.table("small")[1][2]]
    assert len(rows) == len(best.blocks())
    assert f"Found by {best.found_by}" in page.text


def test_it_says_how_to_obtain_the_result_again(folder, page):
    assert "cs.search.search( space, strategy, evaluate, trials=24, objective='accuracy'" in page.text
    assert ["data", "digits 0123456789abcdef"] in page.table("Settings")
    assert ["strategy.name", "random"] in page.table("Settings")
    document = json.loads((folder / "run.json").read_text())
    assert page.table("Versions") == [list(item) for item in document["versions"].items()]
    assert page.table("Device") == [[name, str(value)] for name, value in document["device"].items()]
    size = (folder / "best.json").stat().st_size
    assert ["best.json", "best architecture of the search", f"{size:,}"] in page.table("Files")
    change_document(folder, command=["convsmith", "search", "--data", "my digits"])
    again = Page(cs.report.write(folder))
    assert "convsmith search --data 'my digits'" in again.text
    assert "cs.search.search(" not in again.text


def test_results_of_a_demo_are_the_headline(folder, tmp_path):
    other = cs.zoo.for_small_inputs(cs.zoo.get("resnet18", num_classes=10, in_channels=1), 8)
    files = {"results.json": json.dumps(results(export={"opset": 18})), "winner.json": other.to_json()}
    for name, text in files.items():
        (folder / name).write_text(text)
    try:
        page = Page(cs.report.write(folder, tmp_path / "demo.html"))
    finally:
        for name in files:
            (folder / name).unlink()
    assert "test accuracy 98.89 % ± 0.55 latency 0.310 ms budget 0.330 ms" in page.text
    _, winner, baseline = page.table("All trained in full. Accuracy on 360 images")
    assert winner == ["winner found here", "98.89 ± 0.55", "0.310", "1,234", "9,000"]
    assert baseline == ["resnet18", "99.17 ± 0.48", "0.660", "11,172,810", "8,000,000"]
    labels = [trace["text"][0] for trace in page.figures["pareto-1"]["figure"]["data"] if "text" in trace]
    assert labels == ["<b>winner</b>", "resnet18"]
    assert ["measured.name", "a CPU"] in page.table("Device")
    assert ["opset", "18"] in page.table("The exported file")
    assert page.table("resnet18, one image of")[1][1] == "conv_norm_act"


@pytest.mark.parametrize("trials", [1, 2])
def test_few_trials(tmp_path, trials):
    search_run(tmp_path, trials=trials, constraints=())
    page = Page(cs.report.write(tmp_path))
    assert len(page.heads()) == trials
    assert len(page.table("Trials of the front")) >= 2
    assert set(page.figures) == {"pareto-1", "history"}
    assert page.figures["pareto-1"]["heading"] == "accuracy against params"


def test_no_complete_trial(tmp_path):
    with pytest.raises(RuntimeError, match="in a row"):
        search_run(tmp_path, evaluation=Evaluation(ERRORS[:1] * 100))
    page = Page(cs.report.write(tmp_path))
    assert "complete trials 0 of 24 asked for" in page.text
    assert "not finished" in page.text
    assert not any(caption.startswith("Trials of the front") for caption in page.tables)
    assert set(page.figures) == {"pareto-1", "history"}
    assert "Architecture" not in page.text


def test_a_search_that_has_just_started(tmp_path):
    search_run(tmp_path, trials=1)
    for path in tmp_path.glob("history.sqlite*"):
        path.unlink()
    (tmp_path / "best.json").unlink()
    change_document(tmp_path, finished=None)
    page = Page(cs.report.write(tmp_path))
    assert "No trial has finished yet." in page.text
    assert "not finished" in page.text
    assert page.figures == {}


def test_the_page_of_a_search_that_goes_on(tmp_path):
    pages = []

    class Watched(Evaluation):
        def __call__(self, architecture, *, seed, report):
            pages.append(Page(cs.report.write(tmp_path)))
            return super().__call__(architecture, seed=seed, report=report)

    search_run(tmp_path, trials=5, constraints=(), evaluation=Watched())
    assert [len(page.heads()) for page in pages] == [0, 1, 2, 3, 4]
    for page in pages:
        assert "not finished" in page.text
        assert ["running", "1"] in page.table("States")


def test_a_minimised_objective_with_limits_on_several_metrics(tmp_path):
    limits = (MACS, Constraint("params", maximum=900), Constraint("accuracy", minimum=0.2))
    history = search_run(tmp_path, objective="-loss", constraints=limits)
    page = Page(cs.report.write(tmp_path))
    assert [page.figures[name]["heading"] for name in ("pareto-1", "pareto-2", "pareto-3", "history")] == [
        "loss against MACs", "loss against params", "loss against accuracy", "loss over the search",
    ]  # fmt: skip
    assert f"Best loss {history.best.metrics['loss']:.3f}".lower() in page.text.lower()
    infeasible = [t for t in history if t.state == "infeasible" and "loss" in t.metrics]
    assert infeasible
    traces = {trace["name"]: trace for trace in page.figures["pareto-2"]["figure"]["data"]}
    above = [t.metrics["params"] for t in sorted(infeasible, key=lambda t: t.number)]
    assert traces["infeasible"]["x"] == above
    best = next(t for t in page.figures["history"]["figure"]["data"] if t["name"] == "best so far")
    assert best["y"][-1] == min(t.metrics["loss"] for t in history.complete)
    numbers = [int(row[1]) for row in page.table("Why trials failed")[1:]]
    assert sum(numbers) == sum(t.state == "infeasible" for t in history)


def test_blocks_that_are_not_registered_here(tmp_path):
    import sqlite3

    search_run(tmp_path, trials=3, constraints=())
    with sqlite3.connect(tmp_path / "history.sqlite") as connection:
        connection.execute("UPDATE facts SET value = replace(value, 'inverted_residual', 'my_own_block')")
    connection.close()
    text = (tmp_path / "best.json").read_text()
    (tmp_path / "best.json").write_text(re.sub("conv_norm_act|inverted_residual", "my_own_block", text))
    page = Page(cs.report.write(tmp_path))
    assert "unknown block 'my_own_block'" in page.text
    assert "width option" in page.table("Trials of the front")[1][-1]


def test_a_history_that_is_none_is_said(tmp_path):
    search_run(tmp_path, trials=1)
    (tmp_path / "history.sqlite").write_text("no database, but long enough to be taken for one" * 100)
    with pytest.raises(ValueError, match=r"history\.sqlite is no history of a search"):
        cs.report.write(tmp_path)
