"""Files of calibrations that are damaged, of another version, or another's: each loads, or says what is wrong."""

import copy
import json
import random
import re
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

import convsmith as cs
from convsmith.measure import LatencyPredictor
from convsmith.nn import Classifier, ConvNormAct
from tests.measure.predictor import fake

pytest.importorskip("onnx")
numpy_files = pytest.importorskip("safetensors.numpy")

ARCHITECTURE = cs.Architecture(stem=[cs.spec(ConvNormAct, 16)], stages=[[cs.spec(ConvNormAct, 24, stride=2)]])
ARCHITECTURE = ARCHITECTURE.replace(head=cs.spec(Classifier, 10))
SHAPE = (1, 3, 32, 32)
JSON_VALUES = (None, True, 0, -1, 0.5, 10**400, float("nan"), float("inf"), "", "x", [], [1, "a"], ["a"], {}, {"a": 1})
TOLD = "is no calibration|must hold a calibration in the format|must be of this machine"


@dataclass
class Content:
    """A calibration taken apart: what it says as JSON, and its arrays."""

    document: dict
    arrays: dict

    def write(self, path):
        numpy_files.save_file(self.arrays, path, metadata={"convsmith": json.dumps(self.document)})
        return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A calibration of a few networks."""
    path = tmp_path_factory.mktemp("calibration") / "file"
    with pytest.MonkeyPatch.context() as patch:
        fake.install(patch)
        LatencyPredictor.calibrate(path=path, minutes=1e-9)
    return path


@pytest.fixture
def content(file, monkeypatch):
    fake.install(monkeypatch)
    arrays = numpy_files.load_file(file)
    assert {"table.law", "model.any kernel.law"} <= arrays.keys()
    assert any(name.endswith(".left") for name in arrays)
    with numpy_files.safe_open(file, framework="numpy") as opened:
        return Content(json.loads(opened.metadata()["convsmith"]), arrays)


OTHERS = [1.0, 2.0, 3.0, 4.0]  # of the reference networks but one


def loads(path):
    """Whether a file loads, and what is loaded tells something; else one line must say what is wrong."""
    try:
        predictor = LatencyPredictor.load(path)
    except ValueError as error:
        told = str(error)
    else:
        told = None
    if told is not None:
        assert re.fullmatch(f".*({TOLD}).*", told)
        return False
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        predictor.predict_ms(ARCHITECTURE, SHAPE, unknown="ignore")
        predictor.unknown(ARCHITECTURE, SHAPE)
    return True


def test_what_is_whole_loads(content, tmp_path):
    assert loads(content.write(tmp_path / "whole"))


@pytest.mark.parametrize(
    "reference_ms", [1.5, [1.5], OTHERS, [*OTHERS, 0], [*OTHERS, "5"], [*OTHERS, float("nan")], None]
)
def test_what_the_reference_networks_took_is_several_numbers(content, tmp_path, reference_ms):
    content.document["about"]["reference_ms"] = reference_ms
    with pytest.raises(
        ValueError, match=r"is no calibration \(reference_ms must be 5 positive numbers, got .*\); take"
    ):
        LatencyPredictor.load(content.write(tmp_path / "scalar"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "convsmith/latency/3"}, ", and its format is 'convsmith/latency/3'"),
        ({"format": None}, ", and its format is None"),
        ({"numbers": 1}, " by version [0-9]+ of the rules for onnxruntime, got one by version 1"),
        ({"about": {"backend": "eager"}}, " of onnxruntime or openvino, got one of 'eager'"),
    ],
)
def test_another_version_is_named(content, tmp_path, changes, message):
    content.document.update(changes)
    with pytest.raises(ValueError, match=f"in the format convsmith/latency/7{message}; calibrate again"):
        LatencyPredictor.load(content.write(tmp_path / "other"))


def paths(node, path=()):
    """The places of a JSON document, of lists the first and the last one."""
    yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from paths(value, (*path, key))
    elif isinstance(node, list) and node:
        for place in {0, len(node) - 1}:
            yield from paths(node[place], (*path, place))


def changed(document, path, change):
    """The document with something done to the container and key of a place."""
    found = copy.deepcopy(document)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    change(inner, path[-1])
    return found


def test_whatever_its_description_says_it_loads_or_tells(content, tmp_path):
    document, refused = content.document, 0
    for path in [path for path in paths(document) if path]:
        changes = [lambda inner, key, value=value: inner.__setitem__(key, value) for value in JSON_VALUES]
        for change in (*changes, lambda inner, key: inner.__delitem__(key)):
            content.document = changed(document, path, change)
            refused += not loads(content.write(tmp_path / "changed"))
    for value in JSON_VALUES:
        content.document = value
        assert not loads(content.write(tmp_path / "changed"))
    assert refused > 300


def shaken(values, rng):
    """An array as a file of another version, or a damaged one, may have it; None where it is not there."""
    yield None
    with np.errstate(all="ignore"):
        yield from [values.astype(kind) for kind in (np.int8, bool, np.float16, np.float64, np.uint64)]
    yield values[:0]
    yield values[:-1]
    yield np.concatenate([values, values[:1]])
    yield values.ravel()[0].reshape(())
    yield values[None]
    yield values[..., None]
    for odd in (np.nan, np.inf, -1, 1e38, 2**31 - 1):
        if values.dtype.kind == "f" or odd in (-1, 2**31 - 1):
            other = values.copy()
            other.ravel()[rng.randrange(max(1, values.size))] = odd
            yield other
            yield np.full_like(values, odd)


def test_whatever_its_arrays_hold_it_loads_or_tells(content, tmp_path):
    rng, arrays, refused = random.Random(0), content.arrays, 0
    trees = {name.rpartition(".")[0] for name in arrays if name.endswith(".left")}
    looked_at = [name for name in arrays if not name.startswith("model.") or name.rpartition(".")[0] == min(trees)]
    for name in looked_at:
        for other in shaken(arrays[name], rng):
            content.arrays = {key: own for key, own in arrays.items() if key != name}
            content.arrays |= {} if other is None else {name: np.ascontiguousarray(other)}
            refused += not loads(content.write(tmp_path / "changed"))
    assert refused > 200


def test_whatever_is_left_of_its_bytes_it_loads_or_tells(file, content, tmp_path):
    rng, whole = random.Random(0), file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    path = tmp_path / "bytes"
    for length in (0, 1, 8, 9, header - 1, header, header + 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert not loads(path)
    path.write_bytes(whole + b"more")
    assert not loads(path)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3))):
            damaged[rng.randrange(header if rng.random() < 0.7 else len(whole))] = rng.randrange(256)
        path.write_bytes(damaged)
        loads(path)
    for text in (b"", b"no table", b"{}", b"PK\x03\x04", bytes(4096), b"\xff" * 64):
        path.write_bytes(text)
        assert not loads(path)


def test_a_description_without_end_is_told(content, tmp_path):
    numpy_files.save_file(content.arrays, tmp_path / "deep", metadata={"convsmith": "[" * 100_000})
    assert not loads(tmp_path / "deep")
