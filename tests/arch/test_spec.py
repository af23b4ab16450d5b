import copy
import pickle
import subprocess
import sys

import pytest
from torch import nn

import convsmith as cs
from convsmith.arch import BlockSpec, block
from convsmith.nn import Classifier, ConvNormAct, GroupNorm, InvertedResidual


def test_all_defaults_are_written_out_and_in_channels_is_not():
    recorded = cs.spec(ConvNormAct, 16, stride=2)
    arguments = dict(recorded.arguments)
    assert arguments["kernel_size"] == 3
    assert arguments["stride"] == 2
    assert "in_channels" not in arguments
    assert recorded.build(8).conv.in_channels == 8


def test_an_int_becomes_a_float_so_that_equal_calls_hash_equally():
    a, b = cs.spec(InvertedResidual, 16, expansion=6), cs.spec(InvertedResidual, 16, expansion=6.0)
    assert a == b
    assert hash(a) == hash(b)
    assert type(a.get("expansion")) is float


def test_lists_are_frozen():
    assert cs.spec(ConvNormAct, 16, kernel_size=[1, 7]).get("kernel_size") == (1, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cs.spec(ConvNormAct, 16, strid=2), r"conv_norm_act: .*'strid'.*it accepts \(out_channels: int"),
        (lambda: cs.spec(ConvNormAct), r"conv_norm_act: missing a required argument: 'out_channels'"),
        (lambda: cs.spec(ConvNormAct, True), r"conv_norm_act.out_channels must be int, got True"),
        (lambda: cs.spec(ConvNormAct, 16, kernel_size="3"), r"conv_norm_act.kernel_size must be .*, got '3'"),
        (lambda: cs.spec(ConvNormAct, 16, kernel_size=(3, 3, 3)), r"conv_norm_act.kernel_size must be"),
        (lambda: cs.spec(ConvNormAct, 16, norm=GroupNorm), r"norm must be"),
        (lambda: cs.spec(nn.Conv2d, 16), r"only registered blocks can be recorded, got Conv2d"),
        (lambda: cs.spec(type("Sub", (ConvNormAct,), {}), 16), r"only registered blocks can be recorded, got Sub"),
    ],
)
def test_a_wrong_call_fails_where_it_is_written(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_must_be_finite(value):
    with pytest.raises(ValueError, match=r"inverted_residual.expansion must be finite"):
        cs.spec(InvertedResidual, 16, expansion=value)


def test_a_spec_is_frozen_and_makes_another():
    recorded = cs.spec(ConvNormAct, 16)
    with pytest.raises(AttributeError, match=r"use replace\(block=...\)"):
        recorded.block = "relu"
    other = recorded.replace(stride=2)
    assert (recorded.get("stride"), other.get("stride")) == (1, 2)
    with pytest.raises(TypeError, match="unknown argument 'strides'"):
        recorded.replace(strides=2)


def test_a_copy_of_what_is_frozen_is_itself():
    recorded = cs.spec(InvertedResidual, 16)
    assert copy.deepcopy([recorded])[0] is recorded


def test_the_repr_shows_what_differs_from_the_defaults():
    assert repr(cs.spec(InvertedResidual, 16, stride=2)) == "inverted_residual(out_channels=16, stride=2)"


def test_a_pickled_spec_hashes_right_in_another_process():
    recorded = cs.spec(ConvNormAct, 16, act="relu6")
    script = (
        "import pickle, sys, convsmith as cs; from convsmith.nn import ConvNormAct;"
        "s = pickle.loads(bytes.fromhex(sys.argv[1])); own = cs.spec(ConvNormAct, 16, act='relu6');"
        "assert s == own and hash(s) == hash(own) and s in {own}"
    )
    subprocess.run([sys.executable, "-c", script, pickle.dumps(recorded).hex()], check=True)
    assert copy.deepcopy(recorded) == recorded


def test_a_block_name_is_taken_once():
    with pytest.raises(ValueError, match=r"the block name 'classifier' is taken by .*Classifier"):

        @block("classifier")
        class Other(nn.Module):
            def __init__(self, in_channels: int):
                super().__init__()


def test_a_block_takes_in_channels_first():
    with pytest.raises(TypeError, match="the first argument of a block must be in_channels, got 'width'"):

        @block("wrong_first_argument")
        class Wrong(nn.Module):
            def __init__(self, width: int):
                super().__init__()


def test_specs_that_differ_in_type_only_differ():
    assert BlockSpec("x", [("a", 1)]) != BlockSpec("x", [("a", 1.0)])
    assert BlockSpec("x", [("a", 1)]) != BlockSpec("x", [("a", True)])


def test_an_unknown_block_is_told_the_close_ones():
    with pytest.raises(ValueError, match=r"unknown block 'inverted_residul'; did you mean 'inverted_residual'"):
        cs.arch.registered("inverted_residul")


def test_a_spec_as_an_argument_is_checked_too():
    assert cs.spec(Classifier, 10).get("num_classes") == 10
    grouped = cs.spec(ConvNormAct, 32, norm=cs.spec(GroupNorm, groups=4))
    assert grouped.build(8).norm.num_groups == 4
