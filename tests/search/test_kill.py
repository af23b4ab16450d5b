"""`kill -9` at any moment, and the same search again."""

import multiprocessing
import os
import random
import signal
import time

import pytest

from convsmith.search import History, search, strategies
from tests.search.toy import ROOT, evaluate, lines, logged, start, toy_space, wait_for

TRIALS = 50


@pytest.fixture(scope="module")
def server():
    """Starts processes that need not import torch each, and share nothing with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.search.toy", "convsmith.search"])
    return context


def search_in_a_process(folder, log, strategy, options, most):
    os.environ["TOY_LOG"], os.environ["TOY_MOST"] = str(log), str(most)
    strategy = strategies.get(strategy, **options)
    search(toy_space(), strategy, logged, trials=TRIALS, objective="score", seed=5, run_dir=folder)


def facts(history):
    return [(t.number, t.state, t.decisions, t.metrics, t.seed, t.reports, t.same_as) for t in history]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "options"), [("regularized_evolution", {"population_size": 8, "sample_size": 3}), ("local_search", {})]
)
def test_nothing_is_lost_and_nothing_runs_twice(tmp_path, server, monkeypatch, strategy, options):
    monkeypatch.syspath_prepend(ROOT)
    rng = random.Random(strategy)
    log, folder = tmp_path / "log", tmp_path / "run"
    finished = []
    for _ in range(6):
        started, ended = len(lines(log, "start")), len(lines(log, "end"))
        # Killed somewhere behind its second trial, in its seventh at the latest.
        process = server.Process(target=search_in_a_process, args=(folder, log, strategy, options, started + 7))
        process.start()
        wait_for(lambda: len(lines(log, "end")) > ended + 1)  # noqa: B023
        time.sleep(rng.uniform(0.0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        history = History.open(folder)
        # What had finished is there, unchanged; of what had ended, one trial at most was not yet written.
        assert facts(history)[: len(finished)] == finished
        ended = set(lines(log, "end"))
        assert {str(trial.seed) for trial in history} <= ended
        assert len(ended) - len(history) in (0, 1)
        # And nothing of it had been started again.
        again = lines(log, "start")[started:]
        assert not {str(seed) for *_, seed, _, _ in finished} & set(again)
        finished = facts(history)
    assert 0 < len(finished) < TRIALS
    process = server.Process(target=search_in_a_process, args=(folder, log, strategy, options, None))
    process.start()
    process.join()
    assert process.exitcode == 0
    once = search(toy_space(), strategies.get(strategy, **options), evaluate, trials=TRIALS, objective="score", seed=5)
    assert facts(History.open(folder)) == facts(once)
    assert History.open(folder).best.number == once.best.number


WITH_PROCESSES = """
from convsmith.search import ProcessExecutor, search, strategies
from tests.search.toy import logged, toy_space

if __name__ == "__main__":
    search(
        toy_space(), strategies.get("random"), logged, trials={trials}, objective="score", seed=5, run_dir={folder!r},
        executor=ProcessExecutor(workers=2),
    )
"""


@pytest.mark.slow
def test_workers_lose_nothing_either(tmp_path):
    log, folder = tmp_path / "log", tmp_path / "run"
    process = start(WITH_PROCESSES.format(trials=TRIALS, folder=str(folder)), log)
    wait_for(lambda: len(lines(log, "end")) >= 5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = facts(History.open(folder))
    started = len(lines(log, "start"))
    assert len(History.open(folder).running) <= 2
    process = start(WITH_PROCESSES.format(trials=TRIALS, folder=str(folder)), log)
    assert process.wait() == 0
    history = History.open(folder)
    assert facts(history)[: len(finished)] == finished
    assert len(history.complete) == TRIALS
    assert not {str(seed) for *_, seed, _, _ in finished} & set(lines(log, "start")[started:])
    # The order in which trials finish is the workers'; what they are is not.
    once = search(toy_space(), strategies.get("random"), evaluate, trials=TRIALS, objective="score", seed=5)
    assert sorted(facts(history), key=lambda fact: fact[0]) == facts(once)
