"""What is known of a block by its name, where a notebook's cell defines it again."""

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.arch import remembered
from convsmith.measure.predictor.describe import describe
from convsmith.network import output_shapes
from convsmith.nn import Classifier, ConvNormAct

SHAPE = (1, 3, 16, 16)


def define(kernel_size, stride=1):
    """Run the cell."""

    @cs.block("cell_of_a_notebook")
    class Cell(nn.Module):
        def __init__(self, in_channels: int):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, in_channels, kernel_size, stride=stride, padding=kernel_size // 2)
            self.out_channels = in_channels

        def forward(self, x):
            return self.conv(x)

    return Cell


def architecture(name="alone"):
    cell = cs.spec(define(3))
    blocks = {"alone": cell, "inside": cs.spec(ConvNormAct, 8, norm=cell)}
    return cs.Architecture(stem=[cs.spec(ConvNormAct, 8)], stages=[[blocks[name]]], head=cs.spec(Classifier, 10))


@pytest.mark.parametrize("place", ["alone", "inside"])
def test_costs_and_shapes_are_those_of_the_latest_definition(place):
    network = architecture(place)
    before, behind = cs.measure.cost(network, SHAPE), output_shapes(network, SHAPE)[1][2]
    define(5, stride=2)
    after = cs.measure.cost(network, SHAPE)
    assert after.params - before.params == 8 * 8 * (25 - 9)
    assert before.macs - after.macs == 8 * 8 * (9 * 16 * 16 - 25 * 8 * 8)
    assert (behind, output_shapes(network, SHAPE)[1][2]) == (((1, 8, 16, 16),), ((1, 8, 8, 8),))


@pytest.mark.parametrize("place", ["alone", "inside"])
def test_the_graph_is_that_of_the_latest_definition(place):
    pytest.importorskip("onnx")
    network = architecture(place)
    kernels = []
    for size in (3, 5):
        define(size)
        kernels.append([op.ints("kernel_shape", ()) for op in describe(network, SHAPE, None).ops if op.kind == "Conv"])
    assert (kernels[0][-1], kernels[1][-1]) == ((3, 3), (5, 5))


def test_a_followed_block_is_followed_again(monkeypatch):
    """As one of ours is that a session loads again; what was followed serves other sizes, too."""
    network = architecture()
    for size, side in ((3, 20), (5, 24)):
        cell = define(size)
        monkeypatch.setattr(cell, "__module__", "convsmith.nn.cell")
        convolution = [op for op in describe(network, (1, 3, side, side), None).ops if op.kind == "Conv"][-1]
        assert convolution.ints("kernel_shape", ()) == (size, size)


def test_results_are_computed_once_until_a_block_is_defined_again():
    asked = []

    @remembered(most=8)
    def output(spec):
        asked.append(spec)
        return spec.build(4)(torch.zeros(1, 4, 8, 8)).shape

    cell = cs.spec(define(3))
    assert output(cell) == output(cell) == (1, 4, 8, 8)
    assert len(asked) == 1
    define(3, stride=2)
    assert output(cell) == (1, 4, 4, 4)
