"""The bundled digits."""

from collections import Counter

import numpy as np
import torch
from sklearn.datasets import load_digits

from convsmith.data.digits import digits


def sources(split) -> list[int]:
    return [int(source.removeprefix("digits/")) for (source,) in split.sources]


def test_splits_share_nothing_hold_everything_and_are_stratified():
    data = digits()
    assert (len(data.train), len(data.validation), len(data.test)) == (1078, 269, 450)
    used = sources(data.train) + sources(data.validation) + sources(data.test)
    assert sorted(used) == list(range(1797))
    whole = Counter(load_digits().target.tolist())
    for split, share in ((data.train, 0.60), (data.validation, 0.15), (data.test, 0.25)):
        for label, count in Counter(split.labels.tolist()).items():
            assert abs(count - share * whole[label]) <= 1


def test_images_and_labels_are_those_of_their_sources():
    data, reference = digits(), load_digits()
    train = reference.images[sources(data.train)]
    for split in (data.train, data.validation, data.test):
        (images, labels), *rest = split.batches(2000)
        assert rest == []
        # scaled by 1/16 or not makes no difference after normalisation
        expected = (reference.images[sources(split)] / 16 - train.mean() / 16) / (train.std() / 16)
        np.testing.assert_allclose(images[:, 0].numpy(), expected, atol=1e-5)
        assert labels.tolist() == reference.target[sources(split)].tolist()
    assert data.input_shape == (1, 8, 8)
    assert data.num_classes == 10
    assert data.train.max_shift == 1
    assert not data.train.flip


def test_the_seed_fixes_the_splits():
    first, again, other = digits(seed=0), digits(seed=0), digits(seed=1)
    assert first.test.sources == again.test.sources
    assert torch.equal(first.test.images, again.test.images)
    assert first.fingerprint == again.fingerprint
    assert first.test.sources != other.test.sources
    assert first.fingerprint != other.fingerprint
