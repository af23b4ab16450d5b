import dataclasses
import time

import pytest

from convsmith.deploy import clock, conditions, cores
from convsmith.deploy.conditions import Watch, frequency_mhz
from tests.deploy.machine import stat, write

TICKS = conditions.TICKS_PER_SECOND


def at(first, second, *, running=1, load="0.50", mhz=3000.0, schedule=(0, 0)):
    """The kernel's files of a machine of two cores with these ticks."""
    cpuinfo = "\n\n".join(f"processor\t: {core}\nmodel name\t: X\ncpu MHz\t\t: {mhz + core}" for core in (0, 1))
    return {
        "proc/stat": stat({0: first, 1: second}, running=running),
        "proc/loadavg": f"{load} 0.40 0.30 2/99 1234\n",
        "proc/cpuinfo": cpuinfo,
        "proc/self/task/7/schedstat": f"{schedule[0]} {schedule[1]} 5",
    }


@pytest.fixture
def own_seconds(monkeypatch):
    """Sets what this process computed so far."""

    def set_to(seconds):
        monkeypatch.setattr(conditions.time, "process_time", lambda: seconds)

    set_to(10.0)
    return set_to


def test_shares_are_of_the_watched_cores_time(tmp_path, own_seconds):
    watch = Watch([1], root=tmp_path)
    write(tmp_path, at([0] * 8, [100, 0, 50, 800, 10, 5, 5, 30], schedule=(10**9, 10**8), running=3))
    watch.note()
    # Core 1: a second passed in all; a tenth idle, a twentieth stolen; this process had half of it.
    new = [100 + TICKS * 6 // 10, 0, 50 + TICKS // 5, 800 + TICKS // 20, 10 + TICKS // 20, 5, 5 + TICKS // 20]
    new.append(30 + TICKS // 20)
    write(tmp_path, at([9 * TICKS] * 8, new, load="2.25", mhz=2500.0, schedule=(15 * 10**8, 3 * 10**8), running=2))
    own_seconds(10.5)
    watch.note()
    found = watch.conditions()
    assert (found.cores, found.pinned) == ((1,), True)
    assert found.others_share == pytest.approx(0.85 - 0.5)
    assert found.stolen_share == pytest.approx(0.05)
    assert found.waited_share == pytest.approx(0.2 / (0.2 + 0.5))
    assert found.runnable == pytest.approx(1.5)
    assert found.load_average == 2.25
    assert (found.slowest_mhz, found.fastest_mhz) == (2501.0, 3001.0)
    assert found.governor is None


def test_a_few_ticks_tell_no_share(tmp_path, own_seconds):
    watch = Watch([0], root=tmp_path)
    for ticks, seconds in ((0, 10.0), (conditions.FEWEST_TICKS - 1, 10.0)):
        write(tmp_path, at([ticks, *[0] * 7], [0] * 8))
        own_seconds(seconds)
        watch.note()
    assert watch.conditions().others_share is None
    write(tmp_path, at([conditions.FEWEST_TICKS, *[0] * 7], [0] * 8))
    watch.note()
    assert watch.conditions().others_share == 1.0


def test_a_kernel_that_tells_nothing_is_no_error(tmp_path):
    watch = Watch(None, root=tmp_path)
    watch.note()
    watch.note()
    found = dataclasses.asdict(watch.conditions())
    assert found.pop("cores")
    assert found.pop("seconds") >= 0
    assert found.pop("pinned") is False
    assert set(found.values()) == {None}


def test_cpufreq_is_asked_before_cpuinfo(tmp_path):
    write(tmp_path, at([0] * 8, [0] * 8, mhz=3000.0))
    assert frequency_mhz([0, 1], root=tmp_path) == 3000.5
    folder = "sys/devices/system/cpu/cpu{}/cpufreq/"
    for core, khz in ((0, 1_400_000), (1, 1_600_000)):
        write(tmp_path, {folder.format(core) + "scaling_cur_freq": f"{khz}\n"})
    write(tmp_path, {folder.format(0) + "scaling_governor": "powersave\n"})
    assert frequency_mhz([0, 1], root=tmp_path) == 1500.0
    watch = Watch([0, 1], root=tmp_path)
    watch.note()
    watch.note()
    assert watch.conditions().governor == "powersave"


def test_threads_that_began_or_ended_do_not_disturb(tmp_path):
    watch = Watch([0], root=tmp_path)
    write(tmp_path, {"proc/self/task/1/schedstat": "5000000000 1 1", "proc/self/task/2/schedstat": "900 900 1"})
    watch.note()
    (tmp_path / "proc/self/task/2/schedstat").unlink()
    write(tmp_path, {"proc/self/task/1/schedstat": "8000000000 1 1", "proc/self/task/3/schedstat": "0 1000000000 1"})
    watch.note()
    assert watch.conditions().waited_share == pytest.approx(0.25)


def test_the_clock_looks_before_each_round_and_after_the_last_with_warm_caches():
    called = []

    def call():
        called.append("c")
        time.sleep(0.025)

    clock.measure({"one": call}, rounds=3, warmup=1, watch=lambda: called.append("w"))
    # One untimed call and one that finds how many make a sample; in a round an untimed and a timed call.
    assert "".join(called) == "cc" + "wcc" * 3 + "w"


@pytest.mark.skipif(not cores.core_times(), reason="the kernel does not tell the cores' times")
def test_this_machine_tells_its_conditions():
    with cores.pinned(1) as chosen:
        watch = Watch(chosen)
        clock.measure({"one": lambda: sum(range(10000))}, rounds=20, watch=watch.note)
        found = watch.conditions()
    assert found.cores == chosen
    assert found.seconds > 0
    shares = (found.others_share, found.stolen_share, found.waited_share)
    assert all(share is None or 0 <= share <= 1 for share in shares)
