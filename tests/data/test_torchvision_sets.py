"""Data sets of torchvision, made small in their formats on disk."""

import inspect
import pickle
import re
import struct

import numpy as np
import pytest
import torch
from torchvision import datasets

from convsmith.data.array_split import ArraySplit
from convsmith.data.image_split import ImageSplit
from convsmith.data.torchvision_sets import LAYOUTS, torchvision_set


def write_idx(path, values: np.ndarray) -> None:
    """The format of the MNIST files: two zeros, type 8 (unsigned byte), number of dimensions, sizes, values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes())


@pytest.fixture
def mnist(tmp_path):
    """Pixels and labels of a small MNIST, by part, written under `tmp_path`."""
    rng = np.random.default_rng(0)
    made = {}
    for part, prefix, count in (("train", "train", 100), ("test", "t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(tmp_path / "MNIST" / "raw" / f"{prefix}-images-idx3-ubyte", images)
        write_idx(tmp_path / "MNIST" / "raw" / f"{prefix}-labels-idx1-ubyte", labels)
        made[part] = images, labels
    return made


def splits(data):
    return data.train, data.validation, data.test


def test_mnist_from_its_files(mnist, tmp_path):
    data = torchvision_set("MNIST", root=tmp_path)
    assert data.name == "torchvision:MNIST"
    assert data.input_shape == (1, 28, 28)
    assert data.num_classes == 10
    assert data.class_names[3] == "3 - three"
    assert [len(split) for split in splits(data)] == [80, 20, 20]
    for split in splits(data):
        assert isinstance(split, ArraySplit)
        assert not split.flip
        assert split.max_shift == 3
        for image, label, (source,) in zip(split.images, split.labels, split.sources, strict=True):
            part, index = source.split("/")
            assert np.array_equal(image[0].numpy(), mnist[part][0][int(index)])
            assert label == mnist[part][1][int(index)]
    assert {source[0].split("/")[0] for source in data.test.sources} == {"test"}
    assert set(data.train.sources).isdisjoint(data.validation.sources)
    assert data.validation.labels.bincount().tolist() == [2] * 10


def test_validation_and_fingerprint_follow_seed_and_content(mnist, tmp_path):
    data, again, other = (torchvision_set("MNIST", root=tmp_path, seed=seed) for seed in (0, 0, 1))
    assert data.validation.sources == again.validation.sources != other.validation.sources
    assert data.test.sources == other.test.sources
    assert data.fingerprint == again.fingerprint != other.fingerprint
    changed = mnist["train"][0].copy()
    changed[5, 3, 3] ^= 1
    write_idx(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte", changed)
    assert torchvision_set("MNIST", root=tmp_path).fingerprint != data.fingerprint


def test_another_input_size_resizes_in_the_channels_of_the_set(mnist, tmp_path):
    data = torchvision_set("MNIST", root=tmp_path, input_size=64)
    assert data.input_shape == (1, 64, 64)
    assert isinstance(data.train, ImageSplit)
    images, labels = next(data.train.batches(8, shuffle_seed=0, augment=True))
    assert images.shape == (8, 1, 64, 64)
    native = torchvision_set("MNIST", root=tmp_path)
    assert native.train.sources == data.train.sources
    assert torch.equal(labels, next(native.train.batches(8, shuffle_seed=0))[1])


def test_cifar_images_lie_as_torchvision_gives_them(monkeypatch, tmp_path):
    # the small files cannot have the digests of the real ones
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda path, digest=None: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        batch = {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(20)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    data = torchvision_set("CIFAR10", root=tmp_path)
    assert data.class_names == tuple("abcdefghij")
    assert data.input_shape == (3, 32, 32)
    assert data.train.flip
    assert data.train.max_shift == 4
    reference = datasets.CIFAR10(tmp_path, train=True)
    for image, label, (source,) in zip(data.train.images, data.train.labels, data.train.sources, strict=True):
        expected, expected_label = reference[int(source.removeprefix("train/"))]
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(expected))
        assert label == expected_label


def test_fake_data(tmp_path):
    before = torch.get_rng_state()
    data = torchvision_set("FakeData", root=tmp_path / "absent", input_size=20)
    assert torch.equal(torch.get_rng_state(), before)
    assert data.input_shape == (3, 20, 20)
    assert data.num_classes == 10
    assert sum(len(split) for split in splits(data)) == 1000
    assert abs(len(data.test) - 150) < 6
    images, labels = next(data.test.batches(6))
    assert images.shape == (6, 3, 20, 20)
    reference = datasets.FakeData(image_size=(3, 20, 20))
    indices = [int(source.removeprefix("train/")) for (source,) in data.test.sources[:6]]
    assert labels.tolist() == [reference[index][1] for index in indices]


def test_absent_data_names_the_folder_and_the_download(tmp_path):
    call = re.escape(f"torchvision.datasets.SVHN({str(tmp_path)!r}, split='train', download=True)")
    with pytest.raises(FileNotFoundError, match=f"under the root {re.escape(str(tmp_path))}.*{call}"):
        torchvision_set("SVHN", root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"download it with torchvision\.datasets\.Caltech101"):
        torchvision_set("Caltech101", root=tmp_path / "absent")  # torchvision would create the folder
    assert not (tmp_path / "absent").exists()


def test_damaged_data_is_said_to_be_so(mnist, tmp_path):
    images = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    with pytest.raises(FileNotFoundError, match=r"must lie complete under the root"):
        torchvision_set("MNIST", root=tmp_path)


def test_unknown_name_has_close_matches_or_the_list():
    with pytest.raises(ValueError, match=r"unknown .* 'cifar10'; did you mean .*'CIFAR10'"):
        torchvision_set("cifar10", root=None)
    with pytest.raises(ValueError, match=r"unknown .* 'VOCDetection'; "):
        torchvision_set("VOCDetection", root=None)


@pytest.mark.parametrize("name", LAYOUTS)
def test_constructors_take_what_the_table_says(name, tmp_path):
    """Every set exists, and refuses for want of data rather than for an unknown argument or split."""
    if name == "FakeData":
        assert "root" not in inspect.signature(datasets.FakeData).parameters
        return
    layout = LAYOUTS[name]
    with pytest.raises(FileNotFoundError) as caught:
        torchvision_set(name, root=tmp_path)
    assert not isinstance(caught.value.__cause__, TypeError)
    for arguments in (layout.train, layout.validation, layout.test):
        if arguments and "split" in arguments:
            with pytest.raises(Exception, match=r".") as caught:
                getattr(datasets, name)(tmp_path, **arguments)
            assert "Unknown value" not in str(caught.value)
