"""Latency by adb, against a program that pretends to be it: no Android device was there."""

import shutil

import pytest

from convsmith.measure import RemoteError, parse_target, remote_latency
from convsmith.measure.remote.adb import Adb

QUICK = {"rounds": 3, "budget_seconds": 30.0, "timeout_seconds": 100.0}

# Android's shell is this machine's, its temporary files lie in `device`; `push` copies.
ADB = """
serial=none
[ "$1" = -s ] && serial=$2 && shift 2
{before}
case $1 in
    push) cp "$2" "$3" ;;
    shell) exec sh -c "$(printf %s "$2" | sed "s|/data/local/tmp|${{0%/bin/adb}}/device|g")" ;;
esac
"""

# ExecuTorch's runner: the first two executions are cold, a program of n bytes takes n / 100 ms afterwards.
RUNNER = """#!/bin/sh
for word in "$@"; do
    case $word in
        --model_path=*) size=$(wc -c < "${word#*=}") ;;
        --num_executions=*) count=${word#*=} ;;
        --cpu_threads=*) threads=${word#*=} ;;
    esac
done
say() { echo "$@" SINK; }
say "I 00:00:00.000001 executorch:executor_runner.cpp:1] Resetting threadpool with num threads = $threads"
number=0
while [ $number -lt $count ]; do
    number=$((number + 1))
    hundredths=$size
    [ $number -le 2 ] && hundredths=99999
    ms=$(printf '%d.%02d' $((hundredths / 100)) $((hundredths % 100)))
    ITERATIONS say "I 00:00:00.000002 executorch:executor_runner.cpp:2] Iteration $number of $count: $ms ms"
done
say "Model executed successfully $count time(s) in $((size * count)).000000 ms."
"""


@pytest.fixture
def android(program, tmp_path):
    """Sets up the stand-in for adb; `before` runs first in it."""
    (tmp_path / "device").mkdir()

    def set_up(before="", sink=">&2", iterations="", runner=RUNNER):
        program("adb", ADB.format(before=before))
        path = tmp_path / "executor_runner"
        path.write_text(runner.replace("SINK", sink).replace("ITERATIONS", iterations))
        programs = {}
        for name, size in (("a", 300), ("b", 450)):
            programs[name] = tmp_path / f"{name} of it's.pte"
            programs[name].write_bytes(b"x" * size)
        return programs, parse_target("adb:X1", runner=path)

    return set_up


def left(tmp_path):
    return list((tmp_path / "device").iterdir())


def test_programs_are_measured_there_in_turns_without_the_cold_executions(android, tmp_path):
    programs, target = android()
    found = remote_latency(programs, target, threads=1, **QUICK)
    assert {name: round(one.median_ms, 9) for name, one in found.items()} == {"a": 3.0, "b": 4.5}
    assert found["b"].ratio.median == pytest.approx(1.5)
    first = found["a"]
    assert (first.rounds, first.calls_per_round, first.threads, first.batch) == (3, 1, 1, None)
    assert (first.target, first.runtime, first.file_bytes) == ("adb:X1", "executorch", 300)
    assert first.conditions.pinned == (shutil.which("taskset") is not None)
    assert len(first.conditions.cores) == 1
    assert first.conditions.seconds > 0
    assert left(tmp_path) == []


def test_short_executions_are_repeated_until_a_sample_is_long_enough(android, tmp_path):
    programs, target = android()
    programs["a"].write_bytes(b"x" * 30)  # 0.3 ms
    found = remote_latency({"a": programs["a"]}, target, **QUICK)["a"]
    assert found.median_ms == pytest.approx(0.3)
    assert found.calls_per_round >= 7


def test_times_are_read_from_androids_log(android, program, tmp_path):
    programs, target = android(sink=f">> '{tmp_path}'/log.$$")
    program("logcat", f"""for last; do :; done; cat '{tmp_path}'/log."${{last#--pid=}}" """)
    found = remote_latency(programs, target, **QUICK)
    assert round(found["a"].median_ms, 9) == 3.0


def test_a_runner_that_tells_only_the_total(android):
    programs, target = android(iterations=":")
    found = remote_latency(programs, target, **QUICK)
    assert found["a"].median_ms == pytest.approx(300.0)
    assert found["b"].ratio.median == pytest.approx(1.5)


def test_exit_codes_come_back_from_any_android(android):
    _, target = android()
    device = Adb(target)
    answer = device.run(["sh", "-c", "printf 'no end of line'; exit 7"], seconds=30)
    assert (answer.code, answer.out) == (7, "no end of line")
    words = ["a b", "$(echo no)", "it's", '"', "*", "~", "-n"]
    assert device.run(["printf", "%s\\n", *words], seconds=30).out.split("\n")[:-1] == words


def says(words, step=""):
    return {"before": f"""case "$*" in *"{step}"*) echo "{words}" >&2; exit 1 ;; esac"""}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (says("adb: no devices/emulators found"), "no such device is connected"),
        (says("adb: more than one device/emulator"), "name one as adb:SERIAL"),
        (says("adb: device unauthorized."), "confirm its question about debugging"),
        (says("adb: device offline"), "does not answer"),
        (says("adb: error: closed", "push"), "the connection was lost"),
        ({"before": 'case "$*" in *num_executions*) exit 0 ;; esac'}, "the connection was lost"),
        (
            says("write failed: No space left on device", "push"),
            "adb:X1 could not store executor_runner (write failed: No space left on device); make room there",
        ),
        ({"runner": "#!/bin/sh\necho Aborted\nexit 134\n"}, "runner failed on the device with exit code 134 (Abort"),
        ({"runner": "#!/bin/sh\necho hello\n"}, "the runner on the device told no times (hello)"),
        ({"runner": "#!/bin/sh\nexec sleep 50\n"}, "did not finish within"),
    ],
)  # fmt: skip
def test_failures_are_one_line_and_leave_nothing(android, tmp_path, settings, message):
    programs, target = android(**settings)
    seconds = 4.0 if "within" in message else 100.0
    with pytest.raises(RemoteError) as caught:
        remote_latency(programs, target, **{**QUICK, "timeout_seconds": seconds})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == []


def test_the_serial_number_is_handed_to_adb_where_there_is_one(android):
    programs, target = android(before='echo "adb: no devices, serial=$serial" >&2; exit 1')
    with pytest.raises(RemoteError, match="serial=X1"):
        remote_latency(programs, target)
    with pytest.raises(RemoteError, match="serial=none"):
        remote_latency(programs, parse_target("adb:", runner=target.runner))
