import convsmith as cs
from convsmith.nn import BasicBlock, Classifier, ConvNormAct
from convsmith.report import compare_architectures


def network(*stages, head=10):
    return cs.Architecture(stem=[cs.spec(ConvNormAct, 8)], stages=list(stages), head=cs.spec(Classifier, head))


A, B, C = (cs.spec(BasicBlock, width) for width in (8, 16, 24))
CONV = cs.spec(ConvNormAct, 16, stride=2)


def kinds(before, after):
    changes = compare_architectures(before, after)
    return [(change.kind, change.before_path, change.after_path) for change in changes]


def test_equal_architectures_have_no_change():
    same = kinds(network([A, B], [C]), network([A, B], [C]))
    assert [kind for kind, _, _ in same] == ["same"] * 5
    assert [path for _, path, _ in same] == ["stem.0", "stages.0.0", "stages.0.1", "stages.1.0", "head"]


def test_an_added_block_leaves_those_behind_it_the_same():
    assert kinds(network([A, C]), network([A, B, C]))[1:4] == [
        ("same", "stages.0.0", "stages.0.0"),
        ("added", None, "stages.0.1"),
        ("same", "stages.0.1", "stages.0.2"),
    ]
    assert ("removed", "stages.0.1", None) in kinds(network([A, B, C]), network([A, C]))


def test_a_changed_argument_is_named_with_both_values():
    (change,) = [
        c for c in compare_architectures(network([A]), network([A.replace(se_ratio=0.25)])) if c.kind != "same"
    ]
    assert (change.kind, change.arguments) == ("changed", [("se_ratio", 0.0, 0.25)])
    assert change.text == "basic_block: se_ratio 0 → 0.25"
    (change,) = [c for c in compare_architectures(network([A]), network([A], head=5)) if c.kind != "same"]
    assert change.text == "classifier: num_classes 10 → 5"


def test_another_block_is_one_removed_and_one_added():
    found = [(kind, a, b) for kind, a, b in kinds(network([A, B]), network([A, CONV])) if kind != "same"]
    assert found == [("removed", "stages.0.1", None), ("added", None, "stages.0.1")]
    texts = [change.text for change in compare_architectures(network([A, B]), network([A, CONV]))]
    assert "conv_norm_act(16, stride=2)" in texts


def test_a_further_stage_is_added_whole():
    assert kinds(network([A]), network([A], [B, C]))[2:4] == [
        ("added", None, "stages.1.0"),
        ("added", None, "stages.1.1"),
    ]
