"""What a history says of its trials, in memory and from its file."""

import math
import sqlite3

import pytest

from convsmith.search import History, Trial
from convsmith.search.store import Store
from tests.search.toy import toy_space


def complete(number, score, latency_ms=1.0, **fields):
    return Trial(number, {}, "complete", {"score": score, "latency_ms": latency_ms}, architecture=str(number), **fields)


def test_trials_are_listed_as_they_finish():
    history = History("score")
    for number in range(3):
        history.record(Trial(number, {"a": number}))
    assert (len(history), list(history.running), history.next_number) == (0, [0, 1, 2], 3)
    history.record(complete(2, 0.2))
    history.record(Trial(0, {}, "failed", error="why"))
    assert [trial.number for trial in history] == [2, 0]
    assert [trial.number for trial in history.complete] == [2]
    assert list(history.running) == [1]
    assert history[-1].error == "why"
    assert [trial.number for trial in history[:1]] == [2]


def test_a_trial_finishes_once():
    history = History("score", [complete(0, 0.5)])
    with pytest.raises(ValueError, match="trial 0 has finished before"):
        history.record(complete(0, 0.6))


def test_the_best_is_the_first_of_the_best():
    trials = [complete(0, 0.5), complete(1, 0.9), complete(2, 0.9), Trial(3, {}, "infeasible", {"score": 2.0})]
    history = History("score", trials)
    assert history.best.number == 1
    assert History("score").best is None
    assert History("-score", trials).best.number == 0
    assert History("-score", trials).score(trials[0]) == -0.5


@pytest.mark.parametrize("objective", ["", "-", "--score", " score"])
def test_an_objective_names_a_metric(objective):
    with pytest.raises(ValueError, match="an objective is the name of a metric"):
        History(objective)


def test_the_front_maximises_the_objective_and_minimises_the_rest():
    history = History("score", [complete(0, 0.9, 3.0), complete(1, 0.8, 1.0), complete(2, 0.7, 2.0)])
    assert [trial.number for trial in history.front("latency_ms")] == [0, 1]
    assert [trial.number for trial in history.front()] == [0]
    assert [trial.number for trial in History("-score", history).front("latency_ms")] == [1, 2]
    with pytest.raises(ValueError, match="no trial has the metric 'latncy_ms'; there are latency_ms, score"):
        history.front("latncy_ms")


def test_trials_without_a_metric_are_left_out_of_its_front():
    history = History("score", [complete(0, 0.5), Trial(1, {}, "complete", {"score": 0.9})])
    assert [trial.number for trial in history.front("latency_ms")] == [0]


def test_an_architecture_is_found_by_its_hash_and_copies_are_not():
    original = complete(0, 0.5)
    copy = Trial(1, {}, "complete", {"score": 0.5}, architecture="0", same_as=0)
    history = History("score", [original, copy])
    assert history.find("0") is original
    assert history.find("1") is None


FACTS = {"objective": "score", "space_file": toy_space().to_json(), "seed": 0}


def write(path, trials, facts=FACTS):
    store = Store(path, facts)
    for position, trial in enumerate(trials):
        store.write(vars(trial), position=None if trial.state == "running" else position)
    return store


def test_the_file_gives_every_field_back(tmp_path):
    trials = [
        complete(1, 0.25, seed=7, started=1.5, finished=2.5, reports=((1, 0.5), (2, 0.75))),
        Trial(0, {"stages.0.0.kernel_size": 3}, "failed", {}, 2**31 - 1, 1.0, 3.0, "ValueError: no", architecture="x"),
        Trial(2, {}, "complete", {"score": 0.25}, architecture="1", same_as=1),
        Trial(3, {"a": 0}),
    ]
    write(tmp_path / "history.sqlite", trials).close()
    history = History.open(tmp_path)
    assert [*history, *history.running.values()] == trials
    assert history.best == trials[0]
    assert history.space == toy_space()
    assert History.open(tmp_path / "history.sqlite").complete == history.complete


def test_a_report_that_is_no_number_comes_back_as_nan(tmp_path):
    write(tmp_path / "history.sqlite", [complete(0, 0.5, reports=((1, math.nan), (2, math.inf)))]).close()
    assert all(math.isnan(value) for _, value in History.open(tmp_path)[0].reports)


def test_a_reader_sees_what_a_writer_has_committed(tmp_path):
    store = write(tmp_path / "history.sqlite", [complete(0, 0.5)])
    assert [trial.number for trial in History.open(tmp_path)] == [0]
    store.write(vars(complete(1, 0.6)), position=1)
    assert [trial.number for trial in History.open(tmp_path)] == [0, 1]
    store.close()


def test_a_reader_needs_no_write_access(tmp_path, monkeypatch):
    write(tmp_path / "history.sqlite", [complete(0, 0.5)]).close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert len(History.open(tmp_path)) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_reader_leaves_the_folder_as_it_was(tmp_path):
    write(tmp_path / "history.sqlite", [complete(0, 0.5)]).close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    History.open(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_one_process_writes(tmp_path):
    store = write(tmp_path / "history.sqlite", [])
    with pytest.raises(BlockingIOError, match=r"another search is writing .*history.sqlite; wait until it ends"):
        Store(tmp_path / "history.sqlite", FACTS)
    store.close()
    Store(tmp_path / "history.sqlite", FACTS).close()


def test_another_setting_of_a_recipe_is_named_alone(tmp_path):
    write(tmp_path / "history.sqlite", [], {**FACTS, "recipe": {"epochs": 5, "lr": 0.1}}).close()
    with pytest.raises(ValueError, match=r"holds a search with the recipe\.epochs 5, this one has 3; name another"):
        Store(tmp_path / "history.sqlite", {**FACTS, "recipe": {"epochs": 3, "lr": 0.1}})


def test_another_search_is_refused_with_both_values_and_changes_nothing(tmp_path):
    write(tmp_path / "history.sqlite", [complete(0, 0.5)]).close()
    with pytest.raises(ValueError, match="holds a search with the seed 0, this one has 1; name another run_dir"):
        Store(tmp_path / "history.sqlite", {**FACTS, "seed": 1})
    with pytest.raises(ValueError, match='holds a search with the data null, this one has "digits"'):
        Store(tmp_path / "history.sqlite", {**FACTS, "data": "digits"})
    store = Store(tmp_path / "history.sqlite", FACTS)
    assert len(store.rows()) == 1
    store.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "history.sqlite.lock").mkdir()
    with pytest.raises(OSError, match=r"cannot be written \(unable to open database file\); name another run_dir"):
        Store(tmp_path / "history.sqlite", FACTS)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "history.sqlite"
    with pytest.raises(FileNotFoundError, match="there is no history"):
        History.open(tmp_path)
    path.write_text("no database, but long enough to be read as one " * 50)
    for opened in (lambda: History.open(path), lambda: Store(path, FACTS)):
        with pytest.raises(ValueError, match="is no history of a search"):
            opened()
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    for opened in (lambda: History.open(path), lambda: Store(path, FACTS)):
        with pytest.raises(ValueError, match="must have the format 1 of histories, got 0; name another run_dir"):
            opened()


def test_a_newer_file_is_left_alone(tmp_path):
    write(tmp_path / "history.sqlite", []).close()
    with sqlite3.connect(tmp_path / "history.sqlite") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ValueError, match="got 2; a newer convsmith reads it"):
        Store(tmp_path / "history.sqlite", FACTS)


def test_a_history_without_a_search_says_so(tmp_path):
    sqlite3.connect(tmp_path / "history.sqlite").execute("PRAGMA journal_mode = WAL").connection.close()
    with pytest.raises(ValueError, match="holds no search yet"):
        History.open(tmp_path)
    write(tmp_path / "history.sqlite", []).close()  # a writer takes it for a new one


def test_finished_trials_wait_for_the_disk_and_starts_do_not(tmp_path):
    store = write(tmp_path / "history.sqlite", [])
    statements = []
    store._connection.set_trace_callback(statements.append)
    store.write(vars(Trial(0, {})), position=None)
    store.write(vars(complete(0, 0.5)), position=0)
    store.close()
    modes = [line for line in statements if line.startswith(("PRAGMA synchronous", "COMMIT"))]
    assert modes == ["PRAGMA synchronous = NORMAL", "COMMIT", "PRAGMA synchronous = FULL", "COMMIT"]
