import os
import threading
import time
from types import SimpleNamespace

import pytest

from convsmith.deploy import cores
from convsmith.deploy.cores import choose, pinned
from tests.deploy.machine import stat, write

ALLOWED = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
needs_two_cores = pytest.mark.skipif(len(ALLOWED) < 2, reason="needs two cores on which this process may run")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(cores, "LOOK_SECONDS", 0.01)


@needs_two_cores
def test_the_process_is_held_on_as_many_cores_as_asked_and_released():
    with pinned(1) as chosen:
        assert len(chosen) == 1
        assert os.sched_getaffinity(0) == set(chosen)
    assert os.sched_getaffinity(0) == ALLOWED
    with pinned(len(ALLOWED) + 3) as chosen:
        assert set(chosen) == ALLOWED


@needs_two_cores
def test_it_is_released_after_an_exception():
    with pytest.raises(KeyError), pinned(1):
        raise KeyError
    assert os.sched_getaffinity(0) == ALLOWED


@needs_two_cores
def test_other_threads_are_held_too_and_get_back_what_they_had():
    allowed_one = {max(ALLOWED)}
    seen = {}
    go, done = threading.Event(), threading.Event()

    def work(name, own):
        if own:
            os.sched_setaffinity(0, own)
        seen[name, "ready"] = threading.get_native_id()
        go.wait(10)
        seen[name] = os.sched_getaffinity(0)
        done.wait(10)

    def wait_for(*keys):
        while not set(keys) <= seen.keys():
            time.sleep(0.001)

    def start(name, own=None):
        thread = threading.Thread(target=work, args=(name, own))
        thread.start()
        wait_for((name, "ready"))
        return thread

    threads = [start("free"), start("own", allowed_one)]
    with pinned(1) as chosen:
        threads.append(start("born inside"))
        go.set()
        wait_for("free", "own", "born inside")
    after = {name: os.sched_getaffinity(seen[name, "ready"]) for name in ("free", "own", "born inside")}
    done.set()
    for thread in threads:
        thread.join()
    assert all(seen[name] == set(chosen) for name in after)
    assert after == {"free": ALLOWED, "own": allowed_one, "born inside": ALLOWED}


def test_a_system_that_cannot_hold_threads_gives_none(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pinned(1) as chosen:
        assert chosen is None


def test_the_idlest_cores_are_chosen(tmp_path, monkeypatch):
    before = {core: [0, 0, 0, 0, 0, 0, 0, 0] for core in range(4)}
    spent = {0: (5, 0, 0, 5), 1: (9, 0, 1, 0), 2: (1, 0, 0, 9), 3: (10, 0, 0, 0)}
    after = {core: [*ticks, 0, 0, 0, 0] for core, ticks in spent.items()}
    write(tmp_path, {"proc/stat": stat(before)})
    monkeypatch.setattr(cores, "time", SimpleNamespace(sleep=lambda _: write(tmp_path, {"proc/stat": stat(after)})))
    assert choose(1, range(4), root=tmp_path) == (2,)
    write(tmp_path, {"proc/stat": stat(before)})
    assert choose(2, range(4), root=tmp_path) == (0, 2)
    write(tmp_path, {"proc/stat": stat(before)})
    assert choose(1, (1, 3), root=tmp_path) == (3,)  # both busy: the last


def test_the_callers_core_is_chosen_among_equals(tmp_path):
    fields = ["S", *["0"] * 35, "1", "0"]
    write(tmp_path, {"proc/thread-self/stat": f"77 (odd) name) {' '.join(fields)}"})
    assert choose(1, range(4), root=tmp_path) == (1,)
    assert choose(2, range(4), root=tmp_path) == (1, 3)
    assert choose(1, (0, 2), root=tmp_path) == (2,)


def test_large_cores_come_first_and_hardware_threads_last(tmp_path):
    folder = "sys/devices/system/cpu/cpu{}/{}"
    files = {folder.format(core, "cpu_capacity"): "1024" if core >= 2 else "400" for core in range(6)}
    pairs = {0: "0", 1: "1", 2: "2-3", 3: "2-3", 4: "4,5", 5: "4,5"}
    files |= {folder.format(core, "topology/thread_siblings_list"): text for core, text in pairs.items()}
    write(tmp_path, files)
    assert choose(1, range(6), root=tmp_path) == (5,)
    assert choose(2, range(6), root=tmp_path) == (3, 5)
    assert choose(3, range(6), root=tmp_path) == (1, 3, 5)
    assert choose(5, range(6), root=tmp_path) == (0, 1, 3, 4, 5)
