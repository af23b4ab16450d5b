import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from convsmith import deploy
from convsmith.deploy.backends.registry import _BACKENDS, Artefact, Backend
from convsmith.deploy.comparison import Candidate
from convsmith.deploy.ship import doubts, table

LOADER = """import numpy, pathlib
def load(threads=1):
    weight = numpy.load(pathlib.Path(__file__).with_name("weight.npy"))
    return lambda x: x @ weight.T
"""


def make_write(weight_factor=1.0, loader=LOADER):
    def write(network, example, folder, precision):
        np.save(folder / "weight.npy", network.weight.detach().numpy() * weight_factor)
        return Artefact(("weight.npy",), loader, ("numpy",))

    return write


@pytest.fixture
def only(monkeypatch):
    """Leaves eager alone in the registry, and adds back ends that compute as eager does."""
    for name in set(_BACKENDS) - {"eager"}:
        monkeypatch.delitem(_BACKENDS, name)

    def add(name, **settings):
        settings = {"prepare": lambda network, example, threads, precision: network, **settings}
        monkeypatch.setitem(_BACKENDS, name, Backend(name, **settings))

    return add


def linear():
    return nn.Linear(6, 3, bias=False).requires_grad_(False)


X = torch.randn(2, 6)


def test_what_is_shipped_runs_by_the_readmes_words_and_leaves_only_the_folder(only, tmp_path):
    only("numpy", write=make_write())
    network = linear()
    shipped = deploy.ship(network, tmp_path / "new" / "shipped", X, threads=1)
    assert (shipped.chosen.backend, shipped.chosen.precision) == ("numpy", "float32")
    assert sorted(path.name for path in shipped.folder.iterdir()) == ["README.md", "loader.py", "weight.npy"]
    assert [path.name for path in shipped.folder.parent.iterdir()] == ["shipped"]
    assert 0 <= shipped.loader_difference <= 1e-4
    readme = (shipped.folder / "README.md").read_text()
    words = [line.strip() for line in readme.splitlines() if line.startswith("    ") and "pip install" not in line]
    assert words[0] == "import loader"
    code = f"import numpy\nx = numpy.ones((5, 6), dtype='float32')\n{chr(10).join(words)}\nprint(y.tolist())"
    done = subprocess.run([sys.executable, "-c", code], cwd=shipped.folder, capture_output=True, text=True, check=True)
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), network(torch.ones(5, 6)))
    assert f"numpy=={np.__version__}" in readme
    assert "| eager | float32 |" in readme
    assert "| numpy | float32 |" in readme


def test_the_readme_says_where_an_agreement_shows_nothing(only, tmp_path):
    only("numpy", write=make_write())
    network = linear()
    nn.init.zeros_(network.weight)
    with pytest.warns(UserWarning, match="shows nothing"):
        shipped = deploy.ship(network, tmp_path / "shipped", X, threads=1)
    assert "Agreement with eager within 0.0001 shows nothing" in (shipped.folder / "README.md").read_text()


def test_the_fastest_with_files_is_taken_and_the_table_says_why_others_are_not(only, tmp_path, monkeypatch):
    def fails(network, example, threads, precision):
        raise ValueError("it has no Linear,\nwhich the network itself needs")

    def slow(network, example, threads, precision):
        return lambda x: (sum(range(300_000)), network(x))[1]

    only("slow", prepare=slow, write=make_write())
    only("quick", write=make_write())
    only("failing", prepare=fails, write=make_write())
    only("wrong", prepare=lambda network, example, threads, precision: lambda x: 2 * network(x), write=make_write())
    only("no_files")
    only("patient", write=make_write(), thorough=True)
    shipped = deploy.ship(linear(), tmp_path / "a", X, threads=1)
    assert shipped.chosen.backend == "quick"
    rows = {row[0]: row for row in table(shipped.candidates)}
    assert set(rows) == {"eager", "slow", "quick", "failing", "wrong", "no_files"}
    for row in (rows["eager"], rows["slow"], rows["quick"]):
        low, high = map(float, row[3].split(" - "))
        assert low <= float(row[2]) <= high
    assert rows["eager"][4] == "1.00"
    assert float(rows["slow"][4]) > 1
    assert rows["failing"][2:] == ("", "", "", "", "it has no Linear, which the network itself needs")
    assert "differs by" in rows["wrong"][6]
    thorough = deploy.ship(linear(), tmp_path / "b", X, threads=1, thorough=True)
    assert {row[0] for row in table(thorough.candidates)} == {*rows, "patient"}


def test_a_choice_is_in_doubt_where_intervals_overlap_and_where_something_disturbed_it(only):
    def timed(name, low_ms, high_ms, *warnings):
        return Candidate(
            name, "float32", median_ms=(low_ms + high_ms) / 2, low_ms=low_ms, high_ms=high_ms, warnings=warnings
        )

    only("a", write=make_write())
    only("b", write=make_write())
    only("c", write=make_write())
    only("no_files")
    chosen = timed("a", 1.0, 1.2, "busy")
    others = [timed("b", 1.1, 1.4, "busy", "noisy"), timed("c", 1.3, 1.5), timed("no_files", 0.9, 1.3)]
    assert doubts([*others, chosen, Candidate("b", "bfloat16", rejected="it differs")], chosen) == [
        "b in float32 may be as fast as a in float32: their intervals overlap",
        "b in float32, a in float32: busy",
        "b in float32: noisy",
    ]
    assert doubts([timed("c", 1.3, 1.5), timed("b", 1.0, 1.1)], timed("b", 1.0, 1.1)) == []


def test_the_readme_tells_what_makes_the_measured_times_doubtful(only, tmp_path, monkeypatch):
    monkeypatch.setattr("convsmith.deploy.timed.LARGEST_SHARES", {"others_share": (-1.0, "others took {share}")})
    monkeypatch.setattr("convsmith.deploy.conditions.FEWEST_TICKS", 0)
    only("numpy", write=make_write())
    shipped = deploy.ship(linear(), tmp_path / "a", X, threads=1)
    assert all("others took" in "; ".join(own.warnings) for own in shipped.candidates)
    assert "- eager in float32, numpy in float32: others took" in (shipped.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"write": make_write(1.01)}, r"the files of it may differ from eager by 0\.0001 .* and differ by 0\.0"),
        ({"write": make_write(loader="raise RuntimeError('no driver')")}, r"fails \(RuntimeError: no driver\)"),
        ({}, "the back end it has no files to ship; choose"),
    ],
)
def test_files_that_do_not_work_are_not_left(only, tmp_path, settings, message):
    only("it", **settings)
    with pytest.raises(ValueError, match=message):
        deploy.ship(linear(), tmp_path / "a", X, backend="it", threads=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precisions": ["int8"]}, r"int8 is calibrated with some; quantise by cs\.deploy\.quantize"),
        ({"threads": 0}, "threads must be a positive integer"),
        ({"threads": 10**6}, "threads must be at most .*, got 1000000; give"),
        ({"backend": "numy"}, "unknown back end 'numy'; did you mean 'numpy'"),
        ({"backend": "numpy", "precisions": ["bfloat16"]}, "computes in float32, and bfloat16 is asked for"),
        ({"example": torch.randn(0, 6)}, "the example must be"),
        ({"module": linear().bfloat16(), "example": X.bfloat16()}, r"have no bfloat16, .* precisions=\['bfloat16'\]"),
        ({"example": torch.randn(2, 7)}, "the network must take"),
    ],
)
def test_wrong_arguments_are_refused(only, tmp_path, options, message):
    only("numpy", write=make_write())
    with pytest.raises(ValueError, match=message):
        deploy.ship(**{"module": linear(), "folder": tmp_path / "a", "example": X, "threads": 1, **options})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(only, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be new or empty"):
        deploy.ship(linear(), tmp_path, X)


@pytest.mark.parametrize("way", ["current", "link", "open"])
def test_an_empty_folder_stays_what_it_is_and_gets_the_files(only, tmp_path, monkeypatch, way):
    only("numpy", write=make_write())
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o700)
    before = folder.stat()
    monkeypatch.chdir(folder)
    (tmp_path / "link").symlink_to(folder)
    given = {"current": ".", "link": tmp_path / "link", "open": folder}[way]
    shipped = deploy.ship(linear(), given, X, threads=1)
    assert (shipped.folder, shipped.folder.stat().st_ino) == (folder.resolve(), before.st_ino)
    assert folder.stat().st_mode == before.st_mode
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["README.md", "loader.py", "weight.npy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mine"]


def test_an_empty_folder_is_left_empty_where_nothing_can_be_shipped(only, tmp_path):
    only("numpy", write=make_write(1.01))
    with pytest.raises(ValueError, match="may differ from eager"):
        deploy.ship(linear(), tmp_path, X, threads=1)
    assert list(tmp_path.iterdir()) == []


def test_an_extra_is_named_where_nothing_writes_files(only, tmp_path):
    with pytest.raises(ImportError, match=r"needs one with files, and none is installed; pip install 'convsmith\[onnx"):
        deploy.ship(linear(), tmp_path / "a", X, threads=1)
    assert list(tmp_path.iterdir()) == []


def test_what_auto_measured_is_told(only):
    only("other")
    prepared = deploy.prepare(linear(), X, threads=1)
    assert prepared.timings.keys() == {"eager", "other"}
    assert prepared.timings[prepared.backend] == min(prepared.timings.values())
    assert prepared.rejected == {}
