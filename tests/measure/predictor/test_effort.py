"""What a blocked convolution computes, against torch's own count of the taps that see the map."""

import pytest
import torch
import torch.nn.functional as F

from convsmith.measure.predictor.effort import convolution_effort, reach
from convsmith.measure.predictor.graph import Op
from convsmith.measure.predictor.kernels import kernels
from convsmith.measure.predictor.onnxruntime.executed import executed
from convsmith.measure.predictor.writer import Writer


@pytest.mark.parametrize(
    ("source", "kernel", "stride", "dilation", "pad"),
    [
        (8, 3, 1, 1, 1),
        (2, 5, 1, 1, 2),
        (7, 3, 2, 1, 1),
        (5, 3, 1, 2, 2),
        (4, 7, 2, 1, 3),
        (6, 1, 2, 1, 0),
        (1, 5, 1, 1, 2),
    ],
)
def test_taps_that_see_the_map(source, kernel, stride, dilation, pad):
    weight = torch.ones(1, 1, kernel, requires_grad=True)
    seen = F.conv1d(torch.ones(1, 1, source), weight, stride=stride, dilation=dilation, padding=pad)
    seen.sum().backward()
    found = reach(source, seen.shape[-1], kernel, stride, dilation, pad)
    assert list(found.taps) == seen.flatten().tolist()
    assert found.ever == int((weight.grad > 0).sum())


def kernel_of(size, padded):
    writer = Writer((1, 32, size, size))
    graph = writer.graph(writer.conv("input", 32, (5, 5)))
    return next(k for k in kernels(executed(graph, 16 if padded else 0)) if "convolution" in k.group)


def test_a_blocked_kernel_leaves_padding_out_and_a_plain_one_does_not():
    macs, _, _, weights, *_ = kernel_of(2, True).law
    assert macs == 32 * 32 * 4 * 4  # 2 x 2 pixels that see 2 x 2 pixels each
    assert weights == 4 * 32 * 32 * 3 * 3  # taps from -1 to 1
    macs, _, _, weights, *_ = kernel_of(2, False).law
    assert (macs, weights) == (32 * 32 * 4 * 25, 4 * 32 * 32 * 25)


def test_steps_without_padding_are_those_of_whole_rows():
    op = Op("nchwc.Conv", [], [], {"strides": (1, 1), "pads": (0, 0, 0, 0)})
    effort = convolution_effort(op, (64, 32, 3, 3), 1, (1, 32, 14, 14), (1, 64, 12, 12))
    # Four blocks of channels, two sets of six pixels a row: 6 * 4 / 2 cycles each.
    assert effort.steps == 12 * (2 * 12) * 32 * 9
