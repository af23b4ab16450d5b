"""Graphs told from blocks against what the back end really gives to the runtime, and what that makes of it."""

from random import Random

import pytest
import torch

import convsmith as cs
from convsmith.deploy import onnx as exporter
from convsmith.deploy.passes.blocks import BLOCK
from convsmith.deploy.passes.lean import lean
from convsmith.measure.predictor.describe import describe
from convsmith.nn import BasicBlock, Classifier, ConvNormAct, DenseBlock, InvertedResidual, ShuffleUnitV2
from convsmith.search import spaces
from tests.measure.predictor.test_rules import block, optimised, told  # noqa: F401 (a fixture)

pytest.importorskip("onnxruntime")

STEM, HEAD = cs.spec(ConvNormAct, 16, stride=2), cs.spec(Classifier, 10)


def chain(name, *blocks):
    return cs.Architecture(stem=[STEM], stages=[list(blocks)], head=HEAD, name=name)


NETWORKS = {
    "residual": chain("residual", cs.spec(BasicBlock, 16), cs.spec(BasicBlock, 24, stride=2, se_ratio=0.25)),
    "mobile": chain("mobile", *[cs.spec(InvertedResidual, 16, se_ratio=0.25, act="hard_swish")] * 2),
    "dense": chain("dense", cs.spec(DenseBlock, num_layers=3, growth_rate=12)),
    "merged": chain(
        "merged",
        *[cs.spec(InvertedResidual, width, expansion=n) for width, n in ((8, 1.0), (64, 6.0), (24, 3.0))],
        cs.spec(ConvNormAct, 24, act="identity"),
        cs.spec(ConvNormAct, 16, kernel_size=1),
    ),
    "odd": chain(
        "odd", cs.spec(ConvNormAct, 18), cs.spec(InvertedResidual, 18, expansion=3.0), cs.spec(BasicBlock, 18)
    ),
    "odd shuffle": chain("odd shuffle", cs.spec(ShuffleUnitV2, 36, stride=2), *[cs.spec(ShuffleUnitV2, 36)] * 2),
    "shuffle": chain("shuffle", cs.spec(ShuffleUnitV2, 32, stride=2), *[cs.spec(ShuffleUnitV2, 32)] * 2),
    "sampled": spaces.get("stages", num_classes=10, in_channels=3, input_size=16).sample(Random(3)),
    "cells": cs.zoo.for_small_inputs(cs.zoo.get("darts_v2_cifar", num_classes=10), 8),
}


@pytest.mark.parametrize("name", [n if n != "cells" else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_an_architecture_runs_the_kernels_that_are_told_from_it(name, block, tmp_path):  # noqa: F811
    check(NETWORKS[name], 16, block, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("space", spaces.names())
def test_members_of_the_spaces_run_the_kernels_that_are_told_from_them(space, block, tmp_path):  # noqa: F811
    tree = spaces.get(space, num_classes=10, in_channels=3, input_size=64)
    for seed in range(12):
        check(tree.sample(Random(seed)), 64, block, tmp_path)


def check(architecture, side, block, tmp_path):  # noqa: F811
    shape = (1, 3, side, side)
    network, example = cs.network.build(architecture).eval(), torch.randn(shape)
    model = exporter.convert(lean(network, example, block=BLOCK), example, {})
    assert told(describe(architecture, shape, BLOCK), block) == optimised(model, tmp_path)


def test_the_batch_is_in_the_shapes():
    graph = describe(NETWORKS["residual"], (4, 3, 16, 16), BLOCK)
    assert graph.shapes[graph.outputs[0]] == (4, 10)


def test_an_input_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="takes 3 channels, got an input of 1"):
        describe(NETWORKS["residual"], (1, 1, 16, 16), BLOCK)
