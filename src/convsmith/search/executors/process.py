"""Jobs in worker processes, each with a limit of time; a worker that dies takes one trial with it, not the search."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

from convsmith.search.executors.base import Evaluate, Job, OnReport, Outcome, reason, run_job

SPAWN = multiprocessing.get_context("spawn")  # a forked child would share locks and threads of torch in any state
SECONDS_TO_DIE = 5.0
STILLBORN_IN_A_ROW = 3
MOST_UNREAD = 1000  # messages that are read of a trial whose time is over: one that sends without end must end, too


class ProcessExecutor:
    """Evaluate in `workers` processes with one torch thread each; None is one worker per usable core.

    A trial that takes longer than `timeout_s` is killed and recorded as failed, as is one whose process dies (a crash,
    out of memory); the worker is replaced. Workers end with the process of the search, however that ends. `evaluate`
    is pickled, so it must be importable: a function of a module, `functools.partial` of one, or an object of a
    module's class. A script needs `if __name__ == "__main__":` around the search.
    """

    def __init__(self, workers: int | None = None, *, timeout_s: float | None = None):
        self.capacity = _usable_cores() if workers is None else workers
        if type(self.capacity) is not int or self.capacity < 1:
            raise ValueError(f"workers must be a positive integer, got {workers!r}")
        if timeout_s is not None and not timeout_s > 0:
            raise ValueError(f"timeout_s must be positive, or None for no limit, got {timeout_s!r}")
        self.timeout_s = timeout_s
        self._workers: list[_Worker] = []
        self._outcomes: deque[Outcome] = deque()

    def open(self, evaluate: Evaluate) -> None:
        """Start the workers. TypeError for an `evaluate` that cannot be pickled."""
        try:
            self._payload = bytes(ForkingPickler.dumps(evaluate))
        except Exception as error:  # pickling runs any object's own code
            raise TypeError(
                f"evaluate must be picklable for worker processes, got {evaluate!r} ({error}); "
                "take a function or class of a module, or executor='inline'"
            ) from None
        self._stillborn = self._patience = 0  # where not even the first worker starts, no other will
        self._workers = [_Worker(self._payload) for _ in range(self.capacity)]

    def submit(self, job: Job) -> None:
        """Send the job to an idle worker."""
        next(worker for worker in self._workers if worker.job is None).send(job)

    def wait(self, on_report: OnReport) -> Outcome:
        """The next job that finished, failed, died, or ran out of its time."""
        while not self._outcomes:
            busy = {worker.connection: worker for worker in self._workers if worker.job is not None}
            limits = [worker.deadline for worker in busy.values() if worker.deadline is not None]
            patience = max(0.0, min(limits) - time.monotonic()) if limits else None
            for connection in wait(list(busy), patience):
                self._receive(busy[connection], on_report)  # type: ignore[index]
            for worker in busy.values():
                if worker.deadline is not None and time.monotonic() >= worker.deadline:
                    self._expire(worker, on_report)
        return self._outcomes.popleft()

    def close(self) -> None:
        """Kill the workers: a trial that has finished has sent its outcome."""
        for worker in self._workers:
            worker.kill()
        self._workers = []
        self._outcomes.clear()

    def _expire(self, worker: _Worker, on_report: OnReport) -> None:
        """End a trial whose time is over, behind what it sent in time: reports, or that it has finished."""
        for _ in range(MOST_UNREAD):
            if worker.deadline is None or not worker.connection.poll():
                break
            self._receive(worker, on_report)
        if worker.deadline is not None:
            self._fail(worker, f"TimeoutError: the trial took longer than {self.timeout_s:g} s")

    def _receive(self, worker: _Worker, on_report: OnReport) -> None:
        try:
            kind, *values = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if kind == "unusable":
            raise TypeError(f"evaluate must be importable in worker processes, got {values[0]}; move it to a module")
        if kind == "started":
            worker.proven = worker.running = True
            self._stillborn, self._patience = 0, STILLBORN_IN_A_ROW
            worker.deadline = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        elif kind == "report":
            on_report(*values)
        else:
            self._outcomes.append(values[0])
            worker.job = worker.deadline = None

    def _bury(self, worker: _Worker) -> None:
        worker.process.join(SECONDS_TO_DIE)
        cause = _exit(worker.process.exitcode)
        self._stillborn += not worker.proven
        if self._stillborn > self._patience:
            raise RuntimeError(
                f"a worker process ended before its first trial ({cause}); its own message is above, and a script "
                "needs `if __name__ == '__main__':` around the search"
            )
        if worker.running:
            self._fail(worker, f"the worker process died ({cause})")
        else:  # it died before the job began
            assert worker.job is not None
            self._replace(worker).send(worker.job)

    def _fail(self, worker: _Worker, error: str) -> None:
        assert worker.job is not None
        self._outcomes.append(Outcome(worker.job.number, {}, error))
        self._replace(worker)

    def _replace(self, worker: _Worker) -> _Worker:
        worker.kill()
        worker.deadline = None
        successor = _Worker(self._payload)
        self._workers[self._workers.index(worker)] = successor
        return successor


class _Worker:
    """The parent's side of a worker process: the connection to it, and the job it is busy with."""

    def __init__(self, payload: bytes):
        self.connection, theirs = SPAWN.Pipe()
        self.process: SpawnProcess = SPAWN.Process(target=_serve, args=(theirs,))
        self.process.start()
        theirs.close()
        self.job: Job | None = None
        self.deadline: float | None = None
        self.running = False  # whether it has begun its job
        self.proven = False  # whether it ever began one
        with suppress(OSError):  # dead already: `recv` finds out
            self.connection.send_bytes(payload)

    def send(self, job: Job) -> None:
        self.job, self.running = job, False
        with suppress(OSError):
            self.connection.send(job)

    def kill(self) -> None:
        """Kill the worker and the processes that it started."""
        with suppress(ProcessLookupError, PermissionError):
            assert self.process.pid is not None
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection[Any, Any]) -> None:
    """A worker: the function to call, then jobs, until the parent ends."""
    os.setpgid(0, 0)  # Ctrl-C goes to the parent alone, and a kill reaches the worker's own children
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"  # for processes that evaluate starts
    import torch  # in the child: the parent needs none of it here

    torch.set_num_threads(1)
    try:
        evaluate = connection.recv()
    except Exception as error:  # unpickling imports the module of evaluate, which may raise anything
        connection.send(("unusable", reason(error)))
        return
    with suppress(EOFError):
        while True:
            job = connection.recv()
            connection.send(("started",))
            outcome = run_job(evaluate, job, partial(_report, connection, job.number))
            connection.send(("finished", outcome))


def _report(connection: Connection[Any, Any], number: int, step: int, value: float) -> None:
    connection.send(("report", number, int(step), float(value)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _exit(code: int | None) -> str:
    if code is None:
        return "it closed its connection"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
