"""Generated digits on photographs: sources are what they are said to be, and nothing leaks between splits."""

import importlib.util
import re

import numpy as np
import pytest
import torch

from convsmith.data import cluttered_digits as module
from convsmith.data.cluttered_digits import (
    PHOTOS,
    cluttered_digits,
    paste,
    photo_folder,
    photo_patches,
    reduced_photo,
)
from convsmith.data.digits import digit_images, digits

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def data():
    return cluttered_digits()


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(module, "IMAGE_COUNTS", (120, 30, 30))


def splits(data):
    return data.train, data.validation, data.test


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def is_window(patch: np.ndarray, photo: np.ndarray) -> bool:
    """Whether the patch (32, 32, 3), or its mirror image, occurs in the photograph (H, W, 3)."""
    for candidate in (patch, patch[:, ::-1]):
        places = np.argwhere((photo[:-31, :-31] == candidate[0, 0]).all(-1))
        if any(np.array_equal(photo[y : y + 32, x : x + 32], candidate) for y, x in places):
            return True
    return False


def test_sizes_and_classes(data):
    assert [len(split) for split in splits(data)] == [10_000, 2_000, 2_000]
    assert data.input_shape == (3, 32, 32)
    for split in splits(data):
        assert split.images.shape[1:] == (3, 32, 32)
        assert not split.flip
        shares = split.labels.bincount(minlength=10) / len(split)
        assert (shares - 0.1).abs().max() < 0.02


def test_no_digit_and_no_photograph_serves_two_splits(data):
    for position in (0, 1):
        used = [{source[position] for source in split.sources} for split in splits(data)]
        assert used[0].isdisjoint(used[1] | used[2])
        assert used[1].isdisjoint(used[2])
        if position == 1:
            assert [len(photos) for photos in used] == [9, 3, 3]


def test_a_digit_is_in_the_same_split_as_in_digits(small):
    for split, plain in zip(splits(cluttered_digits(seed=1)), splits(digits(seed=1)), strict=True):
        assert {(source[0],) for source in split.sources} <= set(plain.sources)


def test_digits_are_those_of_the_sources(small, monkeypatch):
    monkeypatch.setattr(module, "paste", lambda digits, patches, generator: (digits * 16).to(torch.uint8))
    images, labels = digit_images()
    for split in splits(cluttered_digits()):
        indices = [int(digit.removeprefix("digits/")) for digit, _ in split.sources]
        assert torch.equal(split.images, images[indices])
        assert torch.equal(split.labels, labels[indices])


def test_patches_are_windows_of_the_photographs_in_the_sources(small, monkeypatch):
    monkeypatch.setattr(module, "paste", lambda digits, patches, generator: (patches * 255).round().to(torch.uint8))
    for split in splits(cluttered_digits()):
        for image, (_, photo) in list(zip(split.images, split.sources, strict=True))[:30]:
            pixels = reduced_photo(photo_folder() / photo.removeprefix("photo/")).numpy()
            assert is_window(image.permute(1, 2, 0).numpy(), pixels)


def test_patches_reach_every_place_and_half_are_mirrored(monkeypatch):
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(36), indexing="ij")
    photo = torch.stack([rows, columns, rows], dim=2).to(torch.uint8)  # a pixel tells where it is
    monkeypatch.setattr(module, "reduced_photo", lambda path: photo)
    patches = photo_patches([photo_folder()], torch.zeros(2000, dtype=torch.int64), generator()) * 255
    mirrored = patches[:, 1, 0, 0] > patches[:, 1, 0, 31]
    assert 900 < mirrored.sum() < 1100
    assert set(patches[:, 0, 0, 0].round().tolist()) == set(range(40 - 31))
    assert set(patches[~mirrored, 1, 0, 0].round().tolist()) == set(range(36 - 31))


def test_photographs_are_reduced_and_grey_ones_get_three_channels():
    for names in PHOTOS.values():
        for name in names:
            assert min(reduced_photo(photo_folder() / name).shape[:2]) == 192
    grey = reduced_photo(photo_folder() / "camera.png")
    assert torch.equal(grey[..., 0], grey[..., 1])
    assert torch.equal(grey[..., 0], grey[..., 2])


def test_without_ink_the_patch_stays():
    patches = torch.rand(20, 3, 32, 32, generator=generator())
    pasted = paste(torch.zeros(20, 1, 8, 8), patches, generator())
    assert torch.equal(pasted, (patches * 255).round().to(torch.uint8))


def test_a_digit_takes_the_area_of_its_scale_at_every_place_and_contrasts():
    grey = torch.full((2000, 3, 32, 32), 0.4)
    pasted = paste(torch.ones(2000, 1, 8, 8), grey, generator())  # full squares in place of digits
    distance = (pasted.float() / 255 - 0.4).mean(1)
    assert (distance > -0.2).all(), "ink on a dark patch is bright, but for its tint"
    inked = distance > distance.amax((1, 2), keepdim=True) / 2
    area = inked.sum((1, 2))
    assert 13**2 < area.min() < 17**2
    assert 24**2 < area.max() < 28**2
    rows = inked.any(2)
    assert rows[:, 0].any()
    assert rows[:, -1].any()
    bright_patches = paste(torch.ones(2000, 1, 8, 8), torch.full((2000, 3, 32, 32), 0.7), generator())
    assert (bright_patches.float().mean((1, 2, 3)) < 0.7 * 255).float().mean() > 0.95


def test_a_digit_is_turned_and_scaled_but_not_deformed():
    """The second moments of a drawn square are those of a square: equal in both directions, without covariance."""
    pasted = paste(torch.ones(200, 1, 8, 8), torch.zeros(200, 3, 32, 32), generator())
    weight = pasted.float().amax(1)
    weight = weight / weight.amax((1, 2), keepdim=True)
    total = weight.sum((1, 2))
    place = torch.arange(32.0)
    y, x = ((weight.sum(axis) * place).sum(1) / total for axis in (2, 1))
    dy, dx = place.view(1, -1, 1) - y.view(-1, 1, 1), place.view(1, 1, -1) - x.view(-1, 1, 1)
    vertical, horizontal, mixed = ((weight * product).sum((1, 2)) / total for product in (dy * dy, dx * dx, dy * dx))
    inside = (weight[:, [0, -1]].sum((1, 2)) == 0) & (weight[:, :, [0, -1]].sum((1, 2)) == 0)
    assert inside.sum() > 20
    torch.testing.assert_close(vertical[inside], horizontal[inside], rtol=0.1, atol=0)
    assert (mixed[inside].abs() < 0.05 * vertical[inside]).all()


def test_the_seed_fixes_the_images(small):
    torch.manual_seed(7)
    first = cluttered_digits(seed=3)
    before = torch.get_rng_state()
    again, other = cluttered_digits(seed=3), cluttered_digits(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    for one, two, three in zip(splits(first), splits(again), splits(other), strict=True):
        assert torch.equal(one.images, two.images)
        assert one.sources == two.sources
        assert not torch.equal(one.images, three.images)
        digits_and_photos = [[set(names) for names in zip(*split.sources, strict=True)] for split in (one, three)]
        assert digits_and_photos[0][0] != digits_and_photos[1][0]
        assert digits_and_photos[0][1] != digits_and_photos[1][1]


def test_without_scikit_image_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=re.escape("pip install 'convsmith[photos]'")):
        cluttered_digits()


def test_a_missing_photograph_is_named(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("skimage", tmp_path / "__init__.py")
    monkeypatch.setattr(module, "find_spec", lambda name: spec)
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "data" / "cell.png")) + ".*reinstall"):
        cluttered_digits()
