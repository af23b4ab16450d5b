"""Batches of splits in memory: order, augmentation, normalisation, and what they must leave alone."""

import numpy as np
import pytest
import torch

from convsmith.data.array_split import ArraySplit, array_splits, channel_statistics, shift


def made_split(count: int = 23, *, max_shift: int = 2, flip: bool = False) -> ArraySplit:
    """Images of random pixels whose values are at least 1, so that padding shows; the label is the index."""
    images = torch.randint(1, 256, (count, 3, 6, 5), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    sources = [(str(index),) for index in range(count)]
    mean, std = torch.zeros(3), torch.ones(3)
    return ArraySplit(images, torch.arange(count), sources, mean=mean, std=std, max_shift=max_shift, flip=flip)


def one_pass(split, batch_size=4, **options):
    batches = list(split.batches(batch_size, **options))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def test_without_seed_the_order_is_that_of_the_split_and_pixels_are_the_stored_ones():
    split = made_split()
    images, labels = one_pass(split)
    assert torch.equal(labels, torch.arange(23))
    assert torch.equal(images, split.images.float())
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64


def test_every_image_comes_once_in_an_order_of_the_seed():
    split = made_split()
    _, first = one_pass(split, shuffle_seed=1)
    _, again = one_pass(split, shuffle_seed=1)
    _, other = one_pass(split, shuffle_seed=2)
    assert sorted(first.tolist()) == list(range(23))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, torch.arange(23))


def test_a_pass_is_bitwise_the_same_whatever_the_global_generator_and_leaves_it_alone():
    split = made_split(flip=True)
    torch.manual_seed(1)
    first = one_pass(split, shuffle_seed=3, augment=True)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = one_pass(split, shuffle_seed=3, augment=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_an_image_is_augmented_the_same_in_batches_of_any_size():
    split = made_split(flip=True)
    small, large = (one_pass(split, size, shuffle_seed=3, augment=True) for size in (1, 23))
    assert torch.equal(small[0], large[0])
    assert torch.equal(small[1], large[1])
    assert torch.equal(large[1], one_pass(split, shuffle_seed=3)[1]), "augmentation changed the order"


def shifted_by_hand(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The image moved pixel by pixel; what comes in is 0."""
    _, height, width = image.shape
    moved = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                moved[:, y, x] = image[:, y - down, x - right]
    return moved


def test_shift_moves_each_image_by_its_own_offset():
    images = made_split(25).images
    top, left = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    moved = shift(images, top.flatten(), left.flatten(), max_shift=2)
    for index, (t, l_) in enumerate(zip(top.flatten().tolist(), left.flatten().tolist(), strict=True)):
        assert np.array_equal(moved[index].numpy(), shifted_by_hand(images[index].numpy(), 2 - t, 2 - l_))


@pytest.mark.parametrize("flip", [False, True])
def test_augmentation_takes_every_shift_and_mirrors_only_if_asked(flip):
    split = made_split(400, max_shift=1, flip=flip)
    seen = set()
    for image, label in zip(*one_pass(split, 50, shuffle_seed=0, augment=True), strict=True):
        original = split.images[label].float().numpy()
        matches = [
            (down, right, mirrored)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            for mirrored in (False, True)
            if np.array_equal(image.numpy(), shifted_by_hand(original, down, right)[:, :, :: -1 if mirrored else 1])
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == (18 if flip else 9)
    assert any(mirrored for _, _, mirrored in seen) == flip


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [10, 10, 3]), (True, [10, 10])])
def test_last_batch(drop_last, sizes):
    split = made_split(23)
    batches = list(split.batches(10, drop_last=drop_last, shuffle_seed=0))
    assert [len(labels) for _, labels in batches] == sizes
    assert split.num_batches(10, drop_last) == len(sizes)
    assert split.num_batches(23, drop_last) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"batch_size": 2, "workers": -1}, "workers must be 0 .* got -1"),
        ({"batch_size": 2, "augment": True}, "needs a shuffle_seed"),
    ],
)
def test_wrong_arguments_fail_in_the_call(options, message):
    with pytest.raises(ValueError, match=message):
        made_split().batches(**options)


def test_all_splits_are_normalised_by_the_statistics_of_train():
    rng = np.random.default_rng(0)
    pixels = [rng.integers(low, 200, (30, 2, 16, 8), dtype=np.uint8) for low in (0, 50, 100)]
    parts = [(torch.from_numpy(values), torch.zeros(30), [("",)] * 30) for values in pixels]
    splits = array_splits(parts, flip=True)
    mean, std = pixels[0].mean((0, 2, 3)), pixels[0].std((0, 2, 3))
    for split, values in zip(splits, pixels, strict=True):
        expected = (values - mean[:, None, None]) / std[:, None, None]
        np.testing.assert_allclose(one_pass(split)[0].numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(split[7][0].numpy(), expected[7], atol=1e-5)
        assert split.max_shift == 1


def test_a_constant_channel_becomes_zero():
    mean, std = channel_statistics(torch.full((4, 1, 3, 3), 200, dtype=torch.uint8))
    assert (200 - mean) / std == 0


def test_a_split_is_a_map_style_dataset_without_augmentation():
    split = made_split()
    images, labels = next(iter(torch.utils.data.DataLoader(split, batch_size=23)))
    assert torch.equal(images, split.images.float())
    assert torch.equal(labels, split.labels)
