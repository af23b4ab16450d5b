"""Latency by ssh: the whole way to a server of the tests' own, and each way to fail."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convsmith.measure import RemoteError, parse_target, remote_latency
from convsmith.measure.remote import onnx
from convsmith.measure.remote.ssh import Ssh
from convsmith.measure.remote.transport import execute

QUICK = {"rounds": 3, "budget_seconds": 1e-3, "timeout_seconds": 120.0}


def target(sshd, url=None, **settings):
    return parse_target(url or sshd.url, **{"python": sys.executable, "ssh_config": sshd.config, **settings})


def test_models_are_measured_there_in_turns_and_nothing_is_left(sshd, models, tmp_path):
    chatty = tmp_path / "chatty"  # as a login that greets
    chatty.write_text(f'#!/bin/sh\necho Welcome\n"{sys.executable}" "$@"\necho Goodbye\n')
    chatty.chmod(0o755)
    found = remote_latency(models, target(sshd, python=str(chatty)), batch=2, threads=1, rounds=6)
    assert list(found) == ["small", "large"]
    small, large = found.values()
    assert large.median_ms > small.median_ms  # of two hundred times the work
    assert small.ratio is None
    assert large.ratio.to == "small"
    assert large.ratio.low <= large.ratio.median <= large.ratio.high
    assert (small.rounds, small.coverage, small.batch, small.threads) == (6, 0.96875, 2, 1)
    assert small.runtime.startswith("onnxruntime ")
    assert small.target == sshd.url
    assert small.file_bytes == models["small"].stat().st_size
    assert len(small.conditions.cores) == 1
    assert json.loads(json.dumps(dataclasses.asdict(small)))["median_ms"] == small.median_ms
    assert list(sshd.device.iterdir()) == []


def test_words_reach_the_host_as_they_are(sshd):
    words = ["a b", "$(echo no)", "it's", '"quoted"', "*", "~", "`id`", "", "-n", "a\nb", "ü"]
    script = "import sys, json; print(json.dumps(sys.argv[1:]))"
    answer = Ssh(target(sshd)).run([sys.executable, "-c", script, *words], seconds=30)
    assert json.loads(answer.out) == words


def test_exit_codes_and_signals_are_the_commands_own(sshd):
    device = Ssh(target(sshd))
    assert device.run(["sh", "-c", "echo out; echo err >&2; exit 3"], seconds=30).code == 3
    assert device.run(["sh", "-c", "kill -9 $$"], seconds=30).code == 128 + signal.SIGKILL


def failing(*arguments, **options):
    with pytest.raises(RemoteError) as caught:
        remote_latency(*arguments, **{**QUICK, **options})
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_host_whose_server_is_off(sshd, models):
    assert "nothing answers there" in failing(models, target(sshd, "ssh://127.0.0.1:1"))


def test_a_host_that_is_unknown_is_not_trusted(sshd, models, tmp_path):
    config = tmp_path / "config"
    config.write_text(sshd.config.read_text().replace("known_hosts", "nobody_known"))
    message = failing(models, target(sshd, ssh_config=config))
    assert "its host key is unknown here; connect once by hand with `ssh -p " in message
    assert not (sshd.folder / "nobody_known").exists()


def test_a_host_with_another_key(sshd, models, tmp_path):
    other = (sshd.folder / "user_key.pub").read_text()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{sshd.port} {other}")
    config = tmp_path / "config"
    config.write_text(sshd.config.read_text().replace(str(sshd.folder / "known_hosts"), str(tmp_path / "known")))
    assert "its host key is not the one known" in failing(models, target(sshd, ssh_config=config))


def test_a_host_that_refuses_the_key(sshd, models, tmp_path):
    config = tmp_path / "config"
    config.write_text(sshd.config.read_text().replace("user_key", "host_key"))
    message = failing(models, target(sshd, ssh_config=config))
    assert "it refused every key" in message
    assert "must work without a password" in message


def test_a_host_without_python(sshd, models):
    message = failing(models, target(sshd, python="/nowhere/python3"))
    assert "Python is needed on the device, and /nowhere/python3 does not run there" in message
    assert list(sshd.device.iterdir()) == []


def test_a_host_without_onnxruntime(sshd, models, tmp_path):
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')  # without the installed packages
    bare.chmod(0o755)
    message = failing(models, target(sshd, python=str(bare)))
    assert f"onnxruntime is missing in the device's Python; run `{bare} -m pip install onnxruntime` there" in message
    assert list(sshd.device.iterdir()) == []


def test_a_host_that_hangs_is_given_up(sshd, models, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    message = failing(models, target(sshd, python=str(slow)), timeout_seconds=3.0)
    assert "did not finish within" in message
    assert list(sshd.device.iterdir()) == []


def test_a_host_that_answers_nonsense(sshd, models, tmp_path):
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("#!/bin/sh\necho Segmentation fault\n")
    nonsense.chmod(0o755)
    assert "gave no result but: 'Segmentation fault'" in failing(models, target(sshd, python=str(nonsense)))


def test_a_model_that_cannot_run_there(sshd, tmp_path, models):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    assert "the device could not measure: InvalidProtobuf" in failing({"a": broken}, target(sshd))
    assert list(sshd.device.iterdir()) == []


# A stand-in for ssh runs the command here, but for the step that fails as ssh or the host would.
PRETENDED = """
for line; do :; done
case $line in
    {step}) {does} ;;
    *) exec sh -c "$line" ;;
esac
"""
SENDS_MODEL = """*"cat >"*.onnx*"""
MAKES_FOLDER = "*mktemp*"


@pytest.mark.parametrize(
    ("step", "says", "code", "message"),
    [
        ("*", "ssh: Could not resolve hostname pi: Name or service not known", 255, "there is no host of that name"),
        ("*", "ssh: connect to host pi port 22: Connection timed out", 255, "ssh://pi: nothing answers there"),
        (SENDS_MODEL, "client_loop: send disconnect: Broken pipe", 255, "ssh://pi: the connection was lost"),
        (SENDS_MODEL, "something new", 255, "ssh://pi: ssh failed (something new)"),
        (
            SENDS_MODEL,
            "cat: write error: No space left on device",
            1,
            "could not store large of it's.onnx (cat: write error: No space left on device); make room there",
        ),
        (MAKES_FOLDER, "mktemp: No space left", 1, "not make a temporary folder (mktemp: No space left); make room"),
        (MAKES_FOLDER, "/", 0, "could not make a temporary folder (/)"),
    ],
)  # fmt: skip
def test_what_ssh_or_the_host_says_is_one_line(program, models, tmp_path, monkeypatch, step, says, code, message):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program("ssh", PRETENDED.format(step=step, does=f"echo '{says}' >&2; exit {code}"))
    assert message in failing({"large": models["large"]}, parse_target("ssh://pi", python=sys.executable))
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_what_is_left_on_a_host_that_is_gone_is_told(program, models, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program("ssh", PRETENDED.format(step='*"cat >"*|*"rm -rf"*', does="echo 'Connection closed' >&2; exit 255"))
    message = failing(models, parse_target("ssh://pi"))
    assert message.startswith("ssh://pi: the connection was lost")
    (left,) = tmp_path.glob("convsmith.*")
    assert message.endswith(f"; {left} is left there")


def test_a_folder_that_stays_is_told_with_the_result(program, models, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program("ssh", PRETENDED.format(step='*"rm -rf"*', does="exit 1"))
    found = remote_latency({"small": models["small"]}, parse_target("ssh://pi", python=sys.executable), **QUICK)
    (left,) = tmp_path.glob("convsmith.*")
    assert f"{left} on the device could not be removed" in found["small"].warnings


def test_the_folder_is_removed_after_ctrl_c(program, models, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program("ssh", PRETENDED.format(step="nothing", does=":"))

    def interrupted(*_, **__):
        assert list(tmp_path.glob("convsmith.*"))
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        remote_latency(models, "ssh://pi")
    assert not list(tmp_path.glob("convsmith.*"))


def test_nothing_weakens_the_check_of_host_keys(program, models):
    program("ssh", 'echo "$@" >&2; exit 255')
    message = failing(models, parse_target("ssh://me@pi:2222"))
    assert "BatchMode=yes" in message
    assert "StrictHostKeyChecking" not in message
    assert "KnownHostsFile" not in message
    assert "-p 2222 -l me pi sh -c" in message


def test_no_ssh_here(models, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert failing(models, "ssh://pi") == "the program ssh is needed on this machine and not on its PATH"


def test_what_a_client_started_ends_with_it(program, monkeypatch, tmp_path):
    path = program("hanging", f"sleep 60 & echo $! > '{tmp_path}/part'; mv '{tmp_path}/part' '{tmp_path}/pid'; wait")
    communicate = subprocess.Popen.communicate

    def out_of_time(process, timeout):  # once the child is there, however long that takes
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        return communicate(process, timeout=0.01)

    monkeypatch.setattr(subprocess.Popen, "communicate", out_of_time)
    with pytest.raises(TimeoutError, match="took longer than 1 s"):
        execute([str(path)], seconds=1.0)
    child = int((tmp_path / "pid").read_text())
    for _ in range(1000):  # a killed process is gone once it was given a core and its new parent has looked
        try:
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.01)
    pytest.fail("the client's child is still running")
