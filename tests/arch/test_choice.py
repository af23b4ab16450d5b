import itertools
from random import Random

import pytest

import convsmith as cs
from convsmith import arch
from convsmith.nn import Classifier, ConvNormAct, Identity, InvertedResidual


def space(*blocks, **fields):
    return cs.Architecture(stages=[list(blocks)], head=cs.spec(Classifier, 10), **fields)


def brute_force(tree):
    """All decisions, found by answering every choice in every way."""
    done, pending = [], [{}]
    while pending:
        decided = pending.pop()
        still_open = [key for key in arch.open_choices(tree, Defaults(decided)) if key not in decided]
        if still_open:
            options = arch.open_choices(tree, Defaults(decided))[still_open[0]].options
            pending += [{**decided, still_open[0]: i} for i in range(len(options))]
        else:
            done.append(decided)
    return done


class Defaults(dict):
    def __missing__(self, key):
        return 0


MOBILE = space(
    cs.choice(
        cs.spec(InvertedResidual, 16, kernel_size=cs.choice(3, 5, 7)),
        cs.spec(ConvNormAct, 16, act=cs.choice("relu", "relu6")),
        cs.spec(Identity),
    ),
    cs.choice((), (cs.spec(ConvNormAct, 8),), (cs.spec(ConvNormAct, 8), cs.spec(ConvNormAct, cs.choice(8, 16)))),
)
TIED = space(
    cs.spec(ConvNormAct, cs.choice(8, 16, name="width")),
    cs.choice(cs.spec(Identity), cs.spec(ConvNormAct, cs.choice(8, 16, name="width"), stride=cs.choice(1, 2))),
)
NESTED_NAMES = space(
    cs.choice(cs.spec(Identity), cs.spec(ConvNormAct, cs.choice(8, 16, name="a")), name="outer"),
    cs.choice(cs.spec(Identity), cs.spec(ConvNormAct, cs.choice(8, 16, name="a")), name="outer"),
    cs.choice(cs.spec(Identity), cs.spec(ConvNormAct, cs.choice(8, 16, name="a"))),
)


def test_paths_name_the_place_and_the_option():
    assert [path for path, _ in MOBILE.choices()] == [
        "stages.0.0",
        "stages.0.0:0.kernel_size",
        "stages.0.0:1.act",
        "stages.0.1",
        "stages.0.1:2.1.out_channels",
    ]


@pytest.mark.parametrize("tree", [MOBILE, TIED, NESTED_NAMES], ids=["nested", "tied", "nested names"])
def test_size_counts_what_brute_force_finds(tree):
    found = brute_force(tree)
    assert tree.size() == len(found)
    assert len({tree.resolve(decisions) for decisions in found}) <= len(found)


def test_size_by_hand():
    assert MOBILE.size() == (3 + 2 + 1) * (1 + 1 + 2)
    assert TIED.size() == 2 * (1 + 2)
    assert cs.zoo.get("resnet18").size() == 1


def test_a_large_space_is_counted_at_once():
    edges = [
        cs.choice(*(cs.spec(ConvNormAct, 8, kernel_size=k) for k in (1, 3, 5, 7)), name=f"e{i}") for i in range(60)
    ]
    assert space(*edges).size() == 4**60


def test_a_spliced_option_gives_a_chain_of_that_depth():
    depths = {len(MOBILE.resolve(decisions).stages[0]) for decisions in brute_force(MOBILE)}
    assert depths == {1, 2, 3}


def test_a_whole_stage_may_be_a_choice():
    whole = cs.Architecture(
        stages=[cs.choice((cs.spec(Identity),), (cs.spec(ConvNormAct, 8), cs.spec(ConvNormAct, 8)))]
    )
    assert [len(whole.resolve({"stages.0.0": i}).stages[0]) for i in (0, 1)] == [1, 2]


def test_sampling_is_uniform_over_options_and_deterministic():
    samples = [MOBILE.sample(Random(seed)) for seed in range(300)]
    assert samples[7] == MOBILE.sample(Random(7))
    share = sum(sample.stages[0][0].block == "identity" for sample in samples) / len(samples)
    assert 0.25 < share < 0.42
    assert not any(arch.has_choice(sample) for sample in samples)


def test_tied_places_take_one_decision():
    for seed in range(20):
        widths = {s.get("out_channels") for s in TIED.sample(Random(seed)).stages[0] if s.block != "identity"}
        assert len(widths) == 1


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ({}, "no decision for the choice 'stages.0.0'"),
        ({"stages.0.0": 3}, "the decision for 'stages.0.0' must be an index below 3, got 3"),
        (
            {"stages.0.0": 2, "stages.0.1": 0, "stages.0.0:0.kernel_size": 1},
            "'stages.0.0:0.kernel_size' belongs to no open",
        ),
    ],
)
def test_wrong_decisions_are_refused(decisions, message):
    with pytest.raises(ValueError, match=message):
        MOBILE.resolve(decisions)


def test_a_mutation_changes_one_open_choice():
    rng = Random(0)
    for seed in range(200):
        parent = arch.random_decisions(MOBILE, Random(seed))
        child = arch.mutate(MOBILE, parent, rng)
        MOBILE.resolve(child)  # valid: nothing missing, nothing closed
        changed = [key for key in parent.keys() & child.keys() if parent[key] != child[key]]
        assert len(changed) == 1


def test_neighbours_are_all_single_changes():
    decisions = {"stages.0.0": 0, "stages.0.0:0.kernel_size": 1, "stages.0.1": 0}
    found = arch.neighbours(MOBILE, decisions, Random(0))
    assert len(found) == 2 + 2 + 2
    assert all(MOBILE.resolve(neighbour) != MOBILE.resolve(decisions) for neighbour in found)


def test_a_choice_has_no_value_yet():
    hole = cs.choice(3, 5)
    for use in (
        lambda: hole + 1,
        lambda: 2 * hole,
        lambda: hole > 3,
        lambda: bool(hole),
        lambda: hole == 3,
        lambda: int(hole),
    ):
        with pytest.raises(TypeError, match=r"choice\(3, 5\) has no value yet; .* space.sample\(rng\)"):
            use()
    assert hole == cs.choice(3, 5)


def test_choices_are_checked_where_they_are_written():
    with pytest.raises(TypeError, match=r"conv_norm_act.out_channels must be int, got 'wide'"):
        cs.spec(ConvNormAct, cs.choice(8, "wide"))
    with pytest.raises(ValueError, match="the options of a choice must differ"):
        cs.choice(3, 3)
    with pytest.raises(ValueError, match="at least one option"):
        cs.choice()
    tied = space(cs.spec(ConvNormAct, cs.choice(8, 16, name="w")), cs.spec(ConvNormAct, cs.choice(8, 32, name="w")))
    with pytest.raises(ValueError, match="choices of one name must have the same options; 'w'"):
        tied.choices()


def test_options_are_coerced_like_values():
    options = cs.spec(InvertedResidual, 16, expansion=cs.choice(3, 6)).get("expansion").options
    assert [type(option) for option in options] == [float, float]


def test_building_a_space_names_the_first_choice_and_the_ways_on():
    with pytest.raises(ValueError, match=r"architecture is a search space: stages.0.0 is open .*space.sample\(rng\)"):
        cs.create_model(MOBILE)


def test_a_space_survives_its_file():
    for tree in (MOBILE, TIED, NESTED_NAMES):
        again = cs.Architecture.from_json(tree.to_json())
        assert again == tree
        assert hash(again) == hash(tree)
        assert again.size() == tree.size()


def test_canonical_drops_identities():
    plain = space(cs.spec(ConvNormAct, 8), name="a")
    padded = space(cs.spec(Identity), cs.spec(ConvNormAct, 8), cs.spec(Identity), name="b")
    assert plain != padded
    assert arch.canonical(plain) == arch.canonical(padded)


def test_resolving_equal_decisions_gives_equal_trees():
    for decisions in itertools.islice(brute_force(MOBILE), 20):
        assert MOBILE.resolve(decisions) == MOBILE.resolve(dict(reversed(decisions.items())))


def test_options_must_be_blocks_where_blocks_stand():
    with pytest.raises(TypeError, match=r"an option of head must be a recorded block, .* got 1"):
        cs.Architecture(stages=[], head=cs.choice(1, 2))
    with pytest.raises(TypeError, match=r"an option of stages\[0\]\[0\] must be a recorded block"):
        cs.Architecture(stages=[[cs.choice(cs.spec(Identity), (cs.spec(Identity), 3))]])


def test_a_head_left_open_takes_other_classes():
    space = cs.Architecture(stages=[], head=cs.choice(cs.spec(Classifier, 3), cs.spec(Classifier, 3, dropout=0.5)))
    adapted = arch.adapt(space, num_classes=5)
    assert [option.get("num_classes") for option in adapted.choices()[0][1]] == [5, 5]
