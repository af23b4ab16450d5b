"""`load`: what a data argument may be."""

import re

import pytest
from PIL import Image

from convsmith.data import DataSet, Split, load


@pytest.fixture
def pets(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / "pets" / name / f"{index}.png")
    return tmp_path / "pets"


def test_digits():
    data = load("digits", seed=3)
    assert isinstance(data, DataSet)
    assert isinstance(data.train, Split)
    assert data.name == "digits"
    assert data.fingerprint == load("digits", seed=3, input_size=8).fingerprint != load("digits", seed=0).fingerprint


def test_a_folder_by_path_and_by_bare_name(pets, monkeypatch):
    assert load(str(pets)).input_shape == (3, 224, 224)
    monkeypatch.chdir(pets.parent)
    data = load("pets", input_size=32, seed=1)
    assert data.input_shape == (3, 32, 32)
    assert data.name == str(pets)


def test_torchvision_set_takes_all_arguments(tmp_path):
    data = load("torchvision:FakeData", input_size=12, seed=2, root=tmp_path)
    assert data.input_shape == (3, 12, 12)
    assert data.validation.sources != load("torchvision:FakeData", input_size=12).validation.sources


def test_the_default_root_is_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape("datasets.MNIST('data', train=True, download=True)")):
        load("torchvision:MNIST")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "digit"}, "unknown data 'digit'.* did you mean 'digits'"),
        (
            {"name": "no such thing"},
            "possible are digits, cluttered_digits, the path of a folder .*, or torchvision:NAME",
        ),
        ({"name": "digits", "input_size": 16}, "8 pixels wide, got input_size=16; leave"),
        ({"name": "cluttered_digits", "input_size": 0}, "positive integer, got 0"),
        ({"name": "digits", "root": "x"}, "root is for torchvision:NAME only, got 'x'"),
        ({"name": "torchvision:MNST"}, "unknown .* 'MNST'; did you mean .*'MNIST'"),
    ],
)
def test_wrong_arguments(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "absent"))):
        load(str(tmp_path / "absent"))
