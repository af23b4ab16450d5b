"""Image folders: splits, what is refused, modes of images, and decoding in workers."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convsmith.data.folder import folder

CLASSES = ("bird", "cat", "dog")


def write_image(path: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> None:
    """A coarse pattern of random colours, so that JPEG keeps it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    Image.fromarray(coarse[..., :3]).resize(size, Image.Resampling.NEAREST).convert(mode).save(path)


@pytest.fixture
def root(tmp_path):
    for label, name in enumerate(CLASSES):
        for index in range(20):
            suffix = ".jpg" if index % 2 else ".PNG"
            write_image(tmp_path / "pets" / name / f"{index:02}{suffix}", seed=100 * label + index)
    return tmp_path / "pets"


def splits(data):
    return data.train, data.validation, data.test


def paths(split) -> list[Path]:
    return [Path(path) for (path,) in split.sources]


def one_pass(split, batch_size=8, **options):
    batches = list(split.batches(batch_size, **options))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def assert_refused(root: Path, *parts: str) -> None:
    with pytest.raises(ValueError, match=".*".join(map(re.escape, parts))) as caught:
        folder(root, input_size=16)
    assert "\n" not in str(caught.value)


def test_classes_and_splits(root):
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "dog" / ".hidden.jpg").write_text("no image")
    (root / ".cache").mkdir()
    write_image(root / "bird" / "more" / "nested.webp", seed=1)
    data = folder(root, input_size=16, seed=0)
    assert data.class_names == CLASSES
    assert data.input_shape == (3, 16, 16)
    assert data.name == str(root.resolve())
    assert [len(split) for split in splits(data)] == [43, 9, 9]
    for split in splits(data):
        assert [CLASSES[label] for label in split.labels] == [path.relative_to(root).parts[0] for path in paths(split)]
    used = [path for split in splits(data) for path in paths(split)]
    assert len(set(used)) == len(used) == 61
    assert data.validation.labels.bincount().tolist() == [3, 3, 3]


def test_the_seed_and_the_files_make_the_fingerprint_not_the_place(root, tmp_path):
    data = folder(root, input_size=16)
    assert folder(root, input_size=16).fingerprint == data.fingerprint
    assert folder(root, input_size=16, seed=1).fingerprint != data.fingerprint
    assert folder(root, input_size=24).fingerprint != data.fingerprint
    moved = shutil.copytree(root, tmp_path / "moved")
    assert folder(moved, input_size=16).fingerprint == data.fingerprint
    write_image(moved / "cat" / "00.PNG", seed=99)
    assert folder(moved, input_size=16).fingerprint != data.fingerprint


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_folders_of_splits_are_taken(root, tmp_path, name):
    for index, part in enumerate(("train", name, "test")):
        shutil.copytree(root, tmp_path / "cut" / part)
        write_image(tmp_path / "cut" / part / "cat" / f"of_{part}.png", seed=500 + index)
    data = folder(tmp_path / "cut", input_size=16)
    for split, part in zip(splits(data), ("train", name, "test"), strict=True):
        assert len(split) == 61
        assert {path.relative_to(tmp_path / "cut").parts[0] for path in paths(split)} == {part}


def test_with_train_and_val_only_val_is_the_test_split(root, tmp_path):
    for part in ("train", "val"):
        shutil.copytree(root, tmp_path / "cut" / part)
    data = folder(tmp_path / "cut", input_size=16)
    assert [len(split) for split in splits(data)] == [51, 9, 60]
    assert {path.relative_to(tmp_path / "cut").parts[0] for path in paths(data.test)} == {"val"}


def test_a_class_may_be_called_train(root):
    (root / "cat").rename(root / "train")
    assert folder(root, input_size=16).class_names == ("bird", "dog", "train")


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "absent"))):
        folder(tmp_path / "absent")


def test_a_file_is_no_folder(root):
    assert_refused(root / "cat" / "00.PNG", "got the file", "cat/00.PNG")


def test_truncated_jpeg_is_named(root):
    broken = root / "dog" / "01.jpg"
    write_image(broken, seed=0, size=(200, 200))
    broken.write_bytes(broken.read_bytes()[:-300])
    Image.open(broken).verify()  # Pillow's own check sees nothing wrong
    assert_refused(root, "every image must decode", str(broken), "truncated", "replace or remove")


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n and no more"])
def test_a_file_that_is_no_image_is_named(root, content):
    broken = root / "cat" / "02.PNG"
    broken.write_bytes(content)
    assert_refused(root, str(broken), "replace or remove")


def test_truncated_png_is_named(root):
    broken = root / "cat" / "02.PNG"
    broken.write_bytes(broken.read_bytes()[:-30])
    assert_refused(root, str(broken))


def test_of_many_broken_images_three_are_named(root):
    for index in range(0, 10, 2):
        (root / "cat" / f"{index:02}.PNG").write_bytes(b"")
    assert_refused(root, "cat/00.PNG", "cat/02.PNG", "cat/04.PNG", "and 2 more")


def test_an_image_that_breaks_later_is_seen_when_the_folder_is_opened_again(root):
    folder(root, input_size=16)
    (root / "cat" / "02.PNG").write_bytes(b"")
    assert_refused(root, "cat/02.PNG")


def test_empty_class_is_named(root):
    (root / "fish").mkdir()
    (root / "fish" / "notes.txt").write_text("no image")
    assert_refused(root, "every class folder must hold images", str(root / "fish"), "add images or remove")


def test_a_class_with_two_images_is_named(root):
    for index in range(2):
        write_image(root / "fish" / f"{index}.png", seed=index)
    assert_refused(root, "at least 3 images", "got 2", str(root / "fish"), "add images or remove")


def test_one_class_is_too_few(root):
    shutil.rmtree(root / "bird")
    shutil.rmtree(root / "dog")
    assert_refused(root, "at least two class folders, got 1", str(root))


def test_images_without_class_folders(tmp_path):
    write_image(tmp_path / "a.png", seed=0)
    assert_refused(tmp_path, "at least two class folders, got 0", str(tmp_path), "FOLDER/CLASS/IMAGE")


def test_a_class_that_train_lacks_is_named(root, tmp_path):
    for part in ("train", "test"):
        shutil.copytree(root, tmp_path / "cut" / part)
    (tmp_path / "cut" / "test" / "cat").rename(tmp_path / "cut" / "test" / "cats")
    assert_refused(tmp_path / "cut", "every class must also be in train", "test/cats")


@pytest.mark.parametrize("names", [("val", "test"), ("train", "val", "validation")])
def test_unclear_folders_of_splits_are_refused(root, tmp_path, names):
    for part in names:
        shutil.copytree(root, tmp_path / "cut" / part)
    assert_refused(tmp_path / "cut", "needs train and at most one", str(tmp_path / "cut"), "rename")


def sole_image(root: Path, mode_image: Image.Image, suffix: str = ".png") -> torch.Tensor:
    """How the image comes out of a data set, in 0 ... 255: (3, H, W)."""
    for name in ("a", "b"):
        for index in range(3):
            write_image(root / name / f"{index}.png", seed=index)
    path = root / "a" / f"0{suffix}"
    mode_image.save(path)
    data = folder(root, input_size=14)
    (image,) = [
        split[position][0] for split in splits(data) for position, source in enumerate(paths(split)) if source == path
    ]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (image * std.view(3, 1, 1) + mean.view(3, 1, 1)) * 255


@pytest.mark.parametrize("grey", [np.uint8(90), np.uint16(90 * 256 + 7)])
def test_a_grey_image_becomes_rgb_whether_of_8_or_16_bits(tmp_path, grey):
    image = sole_image(tmp_path, Image.fromarray(np.full((20, 20), grey)))
    torch.testing.assert_close(image, torch.full((3, 14, 14), 90.0), atol=1e-3, rtol=0)


def test_an_image_with_alpha_becomes_rgb(tmp_path):
    image = sole_image(tmp_path, Image.new("RGBA", (20, 20), (10, 20, 30, 128)))
    expected = torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1).expand(3, 14, 14)
    torch.testing.assert_close(image, expected, atol=1e-3, rtol=0)


def test_a_palette_with_transparency_becomes_rgb_without_a_warning(tmp_path):
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.info["transparency"] = bytes([255, 100])
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=bytes([255, 100]))
    image = sole_image(tmp_path, Image.open(buffer))
    torch.testing.assert_close(image[:, 0, 0], torch.tensor([10.0, 20.0, 30.0]), atol=1e-3, rtol=0)


def test_an_image_of_floats_is_refused(root):
    Image.fromarray(np.zeros((20, 20), dtype=np.float32)).save(root / "cat" / "zz.tiff")
    assert_refused(root, "cat/zz.tiff", "8 or 16 bits", "'F'")


def test_evaluation_resizes_the_shorter_side_and_crops_the_centre(tmp_path):
    pixels = np.zeros((256, 512, 3), dtype=np.uint8)
    pixels[:, 144:368, 0] = 255  # the columns of the centre crop: 144 = (512 - 224) / 2
    for name in ("a", "b"):
        for index in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    image, _ = folder(tmp_path).test[0]
    assert image.shape == (3, 224, 224)
    torch.testing.assert_close(image[0], torch.full((224, 224), (1 - 0.485) / 0.229))


def test_batches_are_those_of_single_images_without_augmentation(root):
    split = folder(root, input_size=16).validation
    images, labels = one_pass(split, 4)
    assert torch.equal(images, torch.stack([split[index][0] for index in range(len(split))]))
    assert torch.equal(labels, split.labels)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64


def test_augmented_pass_depends_on_the_seed_alone(root):
    split = folder(root, input_size=16).train
    torch.manual_seed(1)
    first = one_pass(split, shuffle_seed=3, augment=True)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = one_pass(split, batch_size=5, shuffle_seed=3, augment=True)
    other = one_pass(split, shuffle_seed=4, augment=True)
    plain = one_pass(split, shuffle_seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.equal(first[1], plain[1])
    assert not torch.equal(first[0], plain[0])
    assert not torch.equal(first[0], other[0])


def test_workers_change_nothing(root):
    split = folder(root, input_size=16).train
    alone = one_pass(split, shuffle_seed=3, augment=True)
    before = torch.get_rng_state()
    shared = one_pass(split, shuffle_seed=3, augment=True, workers=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(alone[0], shared[0])
    assert torch.equal(alone[1], shared[1])
