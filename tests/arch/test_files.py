import json
import os
from pathlib import Path

import pytest

import convsmith as cs
from convsmith.arch import Reference
from convsmith.nn import Classifier, ConvNormAct

FILES = Path(__file__).parent / "files"
TINY = cs.Architecture(
    stem=[cs.spec(ConvNormAct, 8)],
    stages=[[cs.spec(ConvNormAct, 16, stride=2)]],
    head=cs.spec(Classifier, 10),
    name="tiny",
    aux=[(0, 0, cs.spec(Classifier, 10))],
)


def changed(**changes):
    return json.dumps({**json.loads(TINY.to_json()), **changes})


def test_the_frozen_example_of_format_1_still_loads():
    architecture = cs.Architecture.load(FILES / "v1_tiny.json")
    assert architecture == TINY
    assert architecture.reference == Reference(params=1756, macs=32_416, input_size=8)
    assert architecture.found_by == "random seed 0, trial 3"


def test_a_missing_argument_takes_the_default():
    document = json.loads(TINY.to_json())
    document["stem"][0]["args"] = {"out_channels": 8}
    assert cs.Architecture.from_json(json.dumps(document)) == TINY


def test_notes_are_no_part_of_equality():
    noted = TINY.replace(reference=Reference(1, 2, 3), found_by="hand")
    assert noted == TINY
    assert cs.Architecture.from_json(noted.to_json()).found_by == "hand"


def test_one_block_a_line():
    lines = TINY.to_json().splitlines()
    assert sum('"conv_norm_act"' in line for line in lines) == 2
    assert all(line.count('"conv_norm_act"') <= 1 for line in lines)


def spec_of(block, **arguments):
    return {"block": block, "args": arguments}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[]", "must hold an object"),
        ("{}", "format must be 'convsmith/architecture/1', got None"),
        (changed(format="convsmith/architecture/2"), "a newer file needs a newer convsmith"),
        (changed(colour="red"), "unknown key 'colour'"),
        (changed(stages={}), "stages must be a list, got {}"),
        (changed(stem=[spec_of("os_system", command="x")]), r"stem\[0\]: unknown block 'os_system'"),
        (
            changed(stem=[spec_of("conv_norm_act", out_channels=8, x=1)]),
            r"stem\[0\]: conv_norm_act: unknown argument 'x'",
        ),
        (changed(stem=[spec_of("conv_norm_act", out_channels="8")]), r"stem\[0\]: .*out_channels must be int, got '8'"),
        (changed(stem=[spec_of("conv_norm_act")]), r"stem\[0\]: .*'out_channels' is missing"),
        (changed(stem=[{"block": "relu", "arg": {}}]), r"stem\[0\]: unknown key 'arg'"),
        (changed(stem=["relu"]), r"stem\[0\] must be a recorded block"),
        (changed(in_channels=0), "in_channels must be a positive int, got 0"),
        (
            changed(aux=[[5, 0, spec_of("classifier", num_classes=2)]]),
            "auxiliary head must read behind an existing block",
        ),
        (changed(reference={"params": 1}), "reference must give the integers"),
        (changed(name=3), "name must be a non-empty string"),
        ('{"format": 1, "format": 2}', "the key 'format' occurs twice"),
        (changed().replace('"in_channels": 3', '"in_channels": NaN'), "numbers must be finite, got NaN"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_malformed_file_says_what_is_wrong_and_where(tmp_path, text, message):
    path = tmp_path / "network.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        cs.Architecture.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "network.json"
    TINY.save(path)
    before = path.read_bytes()

    def full_disk(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        TINY.replace(name="other").save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_block_is_refused_at_once():
    with pytest.raises(
        TypeError, match=r"stages\[0\]\[0\] must be a recorded block, spec\(Block, ...\), got ConvNormAct"
    ):
        cs.Architecture(stages=[[ConvNormAct]])
    with pytest.raises(TypeError, match=r"stem must be a list of recorded blocks"):
        cs.Architecture(stem=cs.spec(ConvNormAct, 8), stages=[])
