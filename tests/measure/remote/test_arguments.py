import ast
import io
import subprocess
import sys
import zipfile

import pytest

from convsmith.measure import Target, parse_target, remote_latency
from convsmith.measure.remote import on_device
from convsmith.measure.remote.onnx import archive


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("ssh://pi", Target("ssh", "pi")),
        ("ssh://me@pi.local:2222", Target("ssh", "pi.local", "me", 2222)),
        ("ssh://me@[fe80::1%eth0]:22", Target("ssh", "[fe80::1%eth0]", "me", 22)),
        ("ssh://127.0.0.1/", Target("ssh", "127.0.0.1")),
        ("adb:", Target("adb", "")),
        ("adb:emulator-5554", Target("adb", "emulator-5554")),
        ("adb:192.168.1.2:5555", Target("adb", "192.168.1.2:5555")),
    ],
)
def test_targets(text, target):
    assert parse_target(text) == target
    assert str(target) == text.rstrip("/")


@pytest.mark.parametrize(
    "text",
    [
        *("", "pi", "ssh://", "ssh:pi", "http://pi", "ssh://pi:0", "ssh://pi:65536", "ssh://pi:x", "ssh://pi/folder"),
        *("ssh://-oProxyCommand=id", "ssh://-l@pi", "ssh://a b", "ssh://pi;id", "ssh://$(id)", "ssh://pi\n"),
        *("adb", "adb:-d", "adb:a b", "adb:x;id"),
    ],
)
def test_other_targets_are_refused(text):
    with pytest.raises(ValueError, match=r"a target is ssh://\[user@\]host\[:port\] or adb:\[SERIAL\], got"):
        parse_target(text)


@pytest.fixture
def files(tmp_path):
    for name in ("a.onnx", "b.onnx", "a.pte", "a.txt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ((), {}, "at least one file"),
        (("a.txt",), {}, "files must be .onnx or .pte"),
        (("a.onnx", "a.pte"), {}, "of one format, got .onnx and .pte"),
        (("a.pte",), {}, "need a runner"),
        (("a.onnx",), {"batch": 0}, "batch must be a positive integer"),
        (("a.onnx",), {"threads": 1.5}, "threads must be a positive integer"),
        (("a.onnx",), {"rounds": 0}, "rounds must be a positive integer"),
        (("a.onnx",), {"budget_seconds": float("inf")}, "budget_seconds must be positive and finite"),
        (("a.onnx",), {"timeout_seconds": 0}, "timeout_seconds must be positive and finite"),
        (("a.onnx",), {"target": "pi"}, "a target is ssh://"),
    ],
)
def test_wrong_arguments_are_refused_before_the_device_is_asked(files, monkeypatch, names, options, message):
    monkeypatch.setenv("PATH", "")  # asking would fail otherwise
    target = options.pop("target", "ssh://pi") if "target" in options else "ssh://pi"
    with pytest.raises(ValueError, match=message):
        remote_latency({name: files / name for name in names}, target, **options)


def test_a_batch_cannot_be_asked_of_a_program(files):
    target = parse_target("adb:", runner=files / "a.txt")
    with pytest.raises(ValueError, match=r"a \.pte file has its batch in it, and 2 is asked for"):
        remote_latency({"a": files / "a.pte"}, target, batch=2)


def test_missing_files_are_told(files):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*c\.onnx"):
        remote_latency({"c": files / "c.onnx"}, "ssh://pi")
    with pytest.raises(FileNotFoundError, match="there is no runner"):
        parse_target("adb:", runner=files / "none")
    with pytest.raises(FileNotFoundError, match="there is no ssh configuration"):
        parse_target("ssh://pi", ssh_config=files / "none")
    with pytest.raises(ValueError, match="an ssh configuration is for ssh:// targets"):
        parse_target("adb:", ssh_config=files / "a.txt")
    with pytest.raises(ValueError, match="python must name an interpreter"):
        parse_target("ssh://pi", python="-c")


def test_what_is_sent_is_python_of_3_9_and_imports_the_standard_library_alone():
    allowed = sys.stdlib_module_names | {"convsmith"}
    with zipfile.ZipFile(io.BytesIO(archive())) as packed:
        sources = {name: packed.read(name).decode() for name in packed.namelist()}
    assert {"__main__.py", "convsmith/deploy/rounds.py", "convsmith/measure/remote/on_device.py"} <= sources.keys()
    for name, source in sources.items():
        tree = ast.parse(source, feature_version=(3, 9))
        at_once = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
        for node in at_once:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            for module in names:
                inside = module in ("numpy", "onnxruntime") and node.col_offset > 0  # told to be missing when called
                assert module.partition(".")[0] in allowed or inside, (name, module)
                if module.startswith("convsmith"):
                    assert f"{module.replace('.', '/')}.py" in sources


def test_it_runs_alone_and_tells_what_is_missing(tmp_path):
    path = tmp_path / "clock.pyz"
    path.write_bytes(archive())
    settings = '{"models": {}, "seconds": 60}'
    command = [sys.executable, "-I", "-S", str(path), settings]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout == f'\n{on_device.MARK}{{"missing": "onnxruntime"}}\n'


@pytest.mark.parametrize(
    ("sizes", "batch", "expected"),
    [(["batch", 3, 8, 8], 4, [4, 3, 8, 8]), ([None, 3], 2, [2, 3]), ([2, 3], 2, [2, 3])],
)
def test_the_batch_takes_the_place_of_a_free_size(sizes, batch, expected):
    assert on_device.shape("x", sizes, batch) == expected


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([1, 3], "the batch of the input x is fixed to 1, and 4 is asked for"),
        (["batch", 3, "height", 8], "only the batch of an input may be free"),
        ([], "only the batch of an input may be free"),
    ],
)
def test_other_inputs_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        on_device.shape("x", sizes, 4)
