"""`convsmith latency --target`, with ssh pretended by a script that runs the command here."""

import json
import os
import sys

import pytest

import convsmith as cs
from convsmith.nn import Classifier, ConvNormAct

TINY = cs.Architecture(stem=[cs.spec(ConvNormAct, 4)], stages=[], head=cs.spec(Classifier, 10), in_channels=1)


@pytest.fixture
def convsmith(run_command, monkeypatch, tmp_path):
    """Run a command in a folder with a network and files; its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    TINY.save("tiny.json")
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin/ssh"
    ssh.write_text('#!/bin/sh\nfor line; do :; done\nexec sh -c "$line"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    for name in ("a.onnx", "a.pte"):
        (tmp_path / name).write_bytes(b"no model")

    return lambda *arguments: run_command("latency", *arguments)


@pytest.mark.slow
def test_networks_are_exported_sent_and_measured(convsmith):
    options = ("--target", "ssh://pi", "--python", sys.executable, "--rounds", 3, "--input-size", 8)
    code, out, err = convsmith("tiny.json", *options, "--batch", 3, "--json")
    assert code == 0, err
    (row,) = json.loads(out)
    assert (row["name"], row["target"], row["batch"], row["rounds"]) == ("tiny.json", "ssh://pi", 3, 3)
    assert row["low_ms"] <= row["median_ms"] <= row["high_ms"]
    code, out, _ = convsmith("tiny.json", *options)
    assert code == 0
    assert "onnxruntime" in out.splitlines()[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.onnx", "--target", "pi"), "a target is ssh://[user@]host[:port] or adb:[SERIAL], got 'pi'"),
        (("a.onnx", "--target", "ssh://pi:99999"), "a target is ssh://"),
        (("none.onnx", "--target", "ssh://pi"), "there is no file none.onnx; look at the path, or write it with"),
        (("tiny.json", "none.onnx", "--target", "ssh://pi"), "there is no file none.onnx; look at the path"),
        (("a.onnx", "a.pte", "--target", "ssh://pi"), "of one format, got .onnx and .pte"),
        (("a.pte", "--target", "adb:"), ".pte files need a runner"),
        (("a.pte", "--target", "adb:", "--runner", "none"), "there is no runner none"),
        (("a.onnx", "--target", "ssh://pi", "--ssh-config", "none"), "there is no ssh configuration none"),
        (("a.onnx", "--target", "ssh://pi", "--timeout", "0"), "must be a finite positive number"),
        (("a.onnx", "--target", "ssh://pi", "--backend", "openvino"), "--backend is for this device"),
        (("a.onnx", "--target", "ssh://pi", "--layout", "channels_last"), "--layout is for this device"),
        (("resnet5", "--target", "ssh://pi"), "unknown architecture 'resnet5'"),
        (("a.onnx",), "exported files are run on the device of --target"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(convsmith, arguments, message):
    code, out, err = convsmith(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    lines = err.splitlines()
    assert len(lines) == 1 or lines[0].startswith("Usage:")


def test_a_host_out_of_reach_is_told_before_anything_is_exported(convsmith, tmp_path):
    (tmp_path / "bin/ssh").write_text("#!/bin/sh\necho 'ssh: connect to host pi: Connection refused' >&2\nexit 255\n")
    code, out, err = convsmith("tiny.json", "--target", "ssh://pi", "--input-size", 8)
    assert (code, out) == (1, "")
    assert "nothing answers there" in err
    assert "exporting" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--python", "/nowhere/python"), "Python is needed on the device"),
        (("--python", sys.executable), "the device could not measure: InvalidProtobuf"),
    ],
)
def test_a_failure_there_is_one_line_and_exit_code_1(convsmith, arguments, message):
    code, out, err = convsmith("a.onnx", "--target", "ssh://pi", *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("convsmith: ")
    assert "RemoteError" not in err
    assert message in err
    assert len(err.splitlines()) == 1
