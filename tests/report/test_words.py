"""Decisions in words."""

from random import Random

import convsmith as cs
from convsmith.arch import random_decisions
from convsmith.nn import ConvNormAct, InvertedResidual, MaxPool
from convsmith.report.words import choices_in_words, decided, keys_in_words, option_words
from convsmith.search import spaces
from tests.report.runs import space


def options(choice):
    return option_words(choice.options)


def test_values_and_blocks_stand_for_themselves():
    assert option_words((3, 0.25, 6.0, True, None, "relu", (1, 2))) == (
        "3",
        "0.25",
        "6",
        "yes",
        "none",
        "relu",
        "(1, 2)",
    )
    width = cs.choice(8, 16)
    chosen = cs.choice(cs.spec(ConvNormAct, width), cs.spec(InvertedResidual, width))
    assert options(chosen) == ("conv_norm_act", "inverted_residual")


def test_chains_are_told_apart_by_what_they_differ_in():
    block, pool = cs.spec(ConvNormAct, 8), cs.spec(MaxPool)
    assert options(cs.choice((), (block,), (block, block))) == ("0 blocks", "1 block", "2 blocks")
    assert options(cs.choice((block, block), (block, pool), (pool, pool))) == (
        "2 × conv_norm_act",
        "conv_norm_act + max_pool",
        "2 × max_pool",
    )
    assert options(cs.choice((block,), (block.replace(stride=2),))) == ("stride 1", "stride 2")
    assert options(cs.choice((block, pool), (block.replace(kernel_size=5, stride=2), pool))) == (
        "kernel size 3, stride 1",
        "kernel size 5, stride 2",
    )
    other = cs.choice((block,), (block, block), (block, block.replace(stride=2)))
    assert options(other) == ("conv_norm_act(out_channels=8)", "2 × conv_norm_act(out_channels=8)",
                              "conv_norm_act(out_channels=8) + conv_norm_act(out_channels=8, stride=2)")  # fmt: skip


def test_options_that_words_cannot_tell_apart_are_numbered():
    blocks = [cs.spec(ConvNormAct, cs.choice(*widths)) for widths in ((8, 16), (24, 32))]
    assert options(cs.choice(*blocks)) == ("conv_norm_act() (option 0)", "conv_norm_act() (option 1)")


def test_the_place_of_a_choice_is_counted_from_one():
    named = {choice.key: (choice.place, choice.what) for choice in choices_in_words(space())}
    assert named["stem.0.out_channels"] == ("stem", "block 1 out channels")
    assert named["stage1_kernel_size"] == ("stage 1", "kernel size")
    nested = cs.choice((cs.spec(ConvNormAct, 8),), (cs.spec(ConvNormAct, cs.choice(8, 16)),))
    (outer, inner) = choices_in_words(cs.Architecture(stages=[[], [nested]]))
    assert (outer.place, outer.what) == ("stage 2", "block 1")
    assert (inner.place, inner.what) == ("stage 2", "block 1 option 2 block 1 out channels")
    (free,) = keys_in_words(["learning_rate"])
    assert (free.place, free.what, free.option(3)) == ("", "learning rate", "option 3")


def test_the_decisions_of_a_trial_are_those_of_its_architecture():
    searched = spaces.get("stages", num_classes=10, in_channels=1, input_size=8)
    words = choices_in_words(searched)
    for seed in range(20):
        decisions = random_decisions(searched, Random(seed))
        architecture = searched.resolve(decisions)
        lines = dict(decided(words, decisions))
        assert list(lines) == ["stem", "stage 1", "stage 2"]
        first, *others = architecture.stages[0]
        plural = "block" if not others else "blocks"
        assert lines["stage 1"].startswith(f"depth {1 + len(others)} {plural}, block {first.block}, ")
        assert f"width {first.get('out_channels')}, kernel size {first.get('kernel_size')}" in lines["stage 1"]
        assert ("expansion" in lines["stage 1"]) == (first.block == "inverted_residual")
        assert f"stride {architecture.stem[0].get('stride')}" in lines["stem"]
