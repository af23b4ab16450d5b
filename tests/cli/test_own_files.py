import json

import pytest

import convsmith as cs
from convsmith.cli.sizes import parse_size, shown_size
from tests.cli.tiny import TINY

OWN = """
import convsmith as cs
from torch import nn
from helping import WIDTH

class Net(nn.Sequential):
    def __init__(self, classes=10):
        layers = nn.Conv2d(2, WIDTH, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, classes)
        super().__init__(*layers)

def small():
    return cs.zoo.get("mobilenet_v1_x0_25")

def volumes():
    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())

def asks(width):
    return nn.Linear(width, width)

def fails():
    raise RuntimeError("no such luck")

MADE = Net(7)
TINY = cs.Architecture.load("tiny.json")
NUMBER = 3
"""


@pytest.fixture
def own(convsmith, tmp_path):
    """A folder with a user's file that imports its neighbour."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/own.py").write_text(OWN)
    (tmp_path / "models/helping.py").write_text("WIDTH = 8\n")
    return convsmith


def rows(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


def test_a_users_functions_classes_modules_and_architectures_are_networks(own):
    names = [f"models/own.py:{name}" for name in ("Net", "MADE", "small", "TINY")]
    found = {row["name"].partition(":")[2]: row for row in rows(own("cost", *names, "--input-size", "32", "--json"))}
    weights = 8 * 2 * 9
    assert found["Net"]["params"] == weights + 8 + 10 * 8 + 10
    assert found["Net"]["macs"] == weights * 30 * 30 + 10 * 8
    assert found["MADE"]["params"] == weights + 8 + 7 * 8 + 7
    assert found["small"]["params"] == cs.zoo.variants()["mobilenet_v1_x0_25"].params
    assert found["TINY"]["macs"] == cs.measure.cost(TINY, (1, 1, 32, 32)).macs
    assert rows(own("show", "models/own.py:TINY", "--json"))["params"] == found["TINY"]["params"]


def test_a_users_network_is_measured_and_exported(own, tmp_path):
    pytest.importorskip("onnxruntime")
    (row,) = rows(own("latency", "models/own.py:Net", "--input-size", "12x20", "--rounds", 2, "--json"))
    assert row["input_size"] == "12x20"
    code, _, err = own("export", "models/own.py:Net", "--input-size", "12x20")
    assert code == 0, err
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "Net.onnx")
    assert session.get_inputs()[0].shape[1:] == [2, 12, 20]


def test_inputs_need_not_be_square_nor_images(own):
    (row,) = rows(own("cost", "resnet18", "--input-size", "64x96", "--json"))
    assert row["input_size"] == "64x96"
    assert row["macs"] == cs.measure.cost(cs.zoo.get("resnet18"), (1, 3, 64, 96)).macs
    (row,) = rows(own("cost", "models/own.py:volumes", "--input-size", "1x5x6x7", "--json"))
    assert (row["input_size"], row["macs"]) == ("1x5x6x7", 4 * 27 * 3 * 4 * 5)
    code, out, _ = own("cost", "torchvision:r3d_18", "--input-size", "3x2x32x48")
    assert code == 0
    assert "3 × 2 × 32 × 48" in out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models/own.py:Nett", "'Nett' is none; did you mean 'Net'?"),
        ("models/own.py:qqqq", "'qqqq' is none; it has Net, small, volumes, asks, fails"),
        ("models/own.py:asks", "is called without arguments, and it needs some (missing a required argument: 'width')"),
        ("models/own.py:NUMBER", "must be an architecture, a module, or a function that makes one, got int"),
        ("models/none.py:Net", "there is no file models/none.py"),
        ("resnet18 --input-size 0", "must be SIDE, HxW, CxHxW or CxDxHxW in positive numbers, got '0'"),
        ("resnet18 --input-size 3x", "got '3x'"),
        ("resnet18 --input-size 1x2x3x4x5", "got '1x2x3x4x5'"),
        ("resnet18 --input-size 4x64x64", "resnet18"),
        ("resnet18 --input-size 3x8x64x64", "and --input-size is 3x8x64x64; give SIDE, HxW or CxHxW"),
    ],
)
def test_wrong_names_and_sizes_are_told_in_one_line(own, name, message):
    code, out, err = own("cost", *name.split())
    assert code == 2
    assert out == ""
    assert message in " ".join(err.replace("│", " ").split())


def test_an_error_of_the_file_itself_is_told_as_such(own):
    code, _, err = own("cost", "models/own.py:fails")
    assert code == 1
    assert "RuntimeError: no such luck" in err


@pytest.mark.parametrize(
    ("text", "shape", "shown"),
    [
        ("8", (2, 3, 8, 8), 8),
        ("8x9", (2, 3, 8, 9), "8x9"),
        ("1x8x9", (2, 1, 8, 9), "8x9"),
        ("1x4x8x9", (2, 1, 4, 8, 9), "1x4x8x9"),
    ],
)
def test_sizes(text, shape, shown):
    size = parse_size(text)
    assert parse_size(size) == size
    assert size.shape(2, 3) == shape
    assert shown_size(shape) == shown


def test_a_users_architecture_is_trained_as_it_is(own):
    from convsmith.cli.subjects import architecture_for

    data = cs.data.load("digits")
    assert architecture_for("models/own.py:TINY", data) == TINY.replace(reference=cs.arch.Reference(438, 6992, 8))
    with pytest.raises(ValueError, match=r"models/own\.py:Net is a module"):
        architecture_for("models/own.py:Net", data)
