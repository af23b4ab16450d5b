"""Worker processes: what they compute, how they fail, and that none is left over."""

import itertools
import os
import signal
from types import SimpleNamespace

import pytest

from convsmith.search import ProcessExecutor, search
from convsmith.search.executors import Job, process
from convsmith.search.strategies import Random
from tests.search import toy

SPACE = toy.toy_space(blocks=1)


@pytest.fixture(autouse=True)
def _importable(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(toy.ROOT)
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))


@pytest.mark.slow
def test_trials_that_crash_hang_or_raise_are_failed_and_the_search_goes_on(tmp_path, monkeypatch):
    # 8 crashes, 16 hangs, 24 raises, 32 works.
    strategy = toy.Scripted([toy.decisions(width, 0) for width in (0, 1, 2, 3)])
    executor = ProcessExecutor(workers=2, timeout_s=0.5)

    def now():  # its time is over once the hanging trial, which did what it does before, is the only one that runs
        running = {own.job.number for own in executor._workers if own.job is not None and own.deadline is not None}
        if running == {1} and toy.lines(tmp_path / "log", "child"):
            over.append(True)
        return 1000.0 * bool(over)

    over = []
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=now))
    history = search(SPACE, strategy, toy.troubled, trials=1, objective="score", executor=executor, run_dir=tmp_path)
    found = {trial.number: trial for trial in history}
    assert list(found) == [0, 1, 2, 3]
    assert found[0].error == "the worker process died (signal SIGSEGV)"
    assert found[1].error == "TimeoutError: the trial took longer than 0.5 s"
    assert found[1].reports == ((1, 0.25),)
    assert found[2].error.startswith("ZeroDivisionError: no luck (toy.py, line")
    assert found[3].metrics == toy.evaluate(
        SPACE.resolve(found[3].decisions), seed=found[3].seed, report=lambda step, value: None
    )
    assert found[3].reports == ((0, 0.5),)
    # What a killed trial had started is gone too, and so are the workers.
    children = toy.lines(tmp_path / "log", "child")
    assert len(children) == 1
    toy.wait_for(lambda: not any(toy.alive(pid) for pid in children))
    assert executor._workers == []


@pytest.mark.slow
def test_what_a_trial_reported_before_its_time_was_over_is_kept(tmp_path, monkeypatch):
    clock = itertools.count(0.0, 1000.0)  # another hour each time that it is asked
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    executor = ProcessExecutor(workers=1, timeout_s=0.5)
    executor.open(toy.troubled)
    reports = []
    try:
        executor.submit(Job(7, SPACE.resolve(toy.decisions(1, 0)), 0))  # it reports, says so in the log, and hangs
        toy.wait_for(lambda: toy.lines(tmp_path / "log", "child"))
        outcome = executor.wait(lambda *report: reports.append(report))
    finally:
        executor.close()
    assert (outcome.number, outcome.error) == (7, "TimeoutError: the trial took longer than 0.5 s")
    assert reports == [(7, 1, 0.25)]


@pytest.mark.slow
def test_workers_are_reused_and_replaced_where_they_died_between_trials():
    executor = ProcessExecutor(workers=1)
    executor.open(toy.threads)
    architecture = SPACE.resolve(toy.decisions(0, 0))
    outcomes = []
    try:
        for number in range(3):
            if number == 2:
                os.kill(int(outcomes[-1].metrics["pid"]), signal.SIGKILL)
                toy.wait_for(lambda: not toy.alive(int(outcomes[-1].metrics["pid"])))
            executor.submit(Job(number, architecture, 0))
            outcomes.append(executor.wait(lambda number, step, value: None))
    finally:
        executor.close()
    assert [outcome.number for outcome in outcomes] == [0, 1, 2]
    # The score is the number of torch's threads.
    assert {(outcome.metrics["score"], outcome.metrics["parent"]) for outcome in outcomes} == {
        (1.0, float(os.getpid()))
    }
    first, second, third = (int(outcome.metrics["pid"]) for outcome in outcomes)
    assert first == second != third
    assert not toy.alive(third)


CODE = """
from convsmith.search import ProcessExecutor, search
from convsmith.search.strategies import Random
from tests.search.toy import hanging, toy_space

if __name__ == "__main__":
    search(toy_space(), Random(), hanging, trials=9, objective="score", executor=ProcessExecutor(workers=2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_search(tmp_path, number):
    process = toy.start(CODE, tmp_path / "log")
    pids = toy.wait_for(lambda: len(found := toy.lines(tmp_path / "log", "pid")) == 2 and found)
    assert all(toy.alive(pid) for pid in pids)
    process.send_signal(number)
    assert process.wait() != 0
    toy.wait_for(lambda: not any(toy.alive(pid) for pid in pids))


@pytest.mark.slow
def test_a_module_that_workers_cannot_import_is_named(monkeypatch):
    monkeypatch.setattr("sys.path", [path for path in os.sys.path if path != str(toy.ROOT)])
    monkeypatch.chdir("/")
    with pytest.raises(TypeError, match="evaluate must be importable in worker processes, got ModuleNotFoundError"):
        search(SPACE, Random(), toy.evaluate, trials=1, objective="score", executor=ProcessExecutor(workers=1))


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(CODE.replace('if __name__ == "__main__":', "if True:"))
    done = toy.run_script(script, tmp_path / "log")
    assert done.returncode == 1
    assert "a worker process ended before its first trial" in done.stderr
    assert "needs `if __name__ == '__main__':` around the search" in done.stderr


def test_what_cannot_be_pickled_is_refused_before_anything_is_written(tmp_path):
    executor = ProcessExecutor(workers=1)
    with pytest.raises(TypeError, match=r"evaluate must be picklable .* take a function or class of a module"):
        search(
            SPACE, Random(), lambda a, **_: {}, trials=1, objective="score", executor=executor, run_dir=tmp_path / "run"
        )
    assert executor._workers == []
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_workers_are_counted(workers):
    with pytest.raises(ValueError, match="workers must be a positive integer"):
        ProcessExecutor(workers=workers)


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan")])
def test_a_time_limit_is_positive(timeout_s):
    with pytest.raises(ValueError, match="timeout_s must be positive"):
        ProcessExecutor(timeout_s=timeout_s)


def test_there_is_a_worker_per_usable_core():
    assert ProcessExecutor().capacity == len(os.sched_getaffinity(0))
