"""Stratified splits."""

from collections import Counter

import pytest

from convsmith.data.splitting import complete, cut

NAMES = ("a", "b", "c")


def items(*counts: int, prefix: str = "") -> list[tuple[str, int]]:
    return [(f"{prefix}{label}.{index}", label) for label, count in enumerate(counts) for index in range(count)]


def counts(part):
    return Counter(label for _, label in part)


def test_every_class_is_cut_in_the_same_proportion_and_nothing_is_lost():
    given = items(100, 40, 20)
    train, validation, test = cut(given, (0.15, 0.25), seed=0, class_names=NAMES)
    assert counts(train) == {0: 60, 1: 24, 2: 12}
    assert counts(validation) == {0: 15, 1: 6, 2: 3}
    assert counts(test) == {0: 25, 1: 10, 2: 5}
    assert sorted(train + validation + test) == sorted(given)


def test_the_seed_decides_and_the_order_of_items_is_kept():
    given = items(50, 50)
    first, again, other = (cut(given, (0.3,), seed=seed, class_names=NAMES) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first[1] == [item for item in given if item in first[1]]


def test_this_split_is_the_same_in_every_version():
    assert cut(items(4, 3), (0.3,), seed=0, class_names=NAMES)[1] == [("0.3", 0), ("1.1", 1)]


def test_the_smallest_class_has_one_item_in_each_part():
    assert [counts(part) for part in cut(items(3), (0.15, 0.15), seed=0, class_names=NAMES)] == [{0: 1}] * 3


def test_a_class_too_small_is_named():
    with pytest.raises(ValueError, match=r"at least 3 images .* got 2 in b; add images or remove"):
        cut(items(5, 2), (0.15, 0.15), seed=0, class_names=NAMES)


def test_train_alone_is_cut_in_three():
    parts = complete({"train": items(100)}, seed=0, class_names=NAMES)
    assert {name: len(part) for name, part in parts.items()} == {"train": 70, "validation": 15, "test": 15}


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_one_held_out_part_is_the_test_split(held_out):
    given, kept = items(100), items(10, prefix="held out ")
    parts = complete({"train": given, held_out: kept}, seed=0, class_names=NAMES)
    assert parts["test"] == kept
    assert len(parts["validation"]) == 15
    assert sorted(parts["train"] + parts["validation"]) == sorted(given)


def test_three_parts_stay_as_they_are():
    given = {name: items(count, prefix=name) for name, count in (("train", 1), ("validation", 2), ("test", 3))}
    assert complete(given, seed=0, class_names=NAMES) == given
