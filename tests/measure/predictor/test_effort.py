"""What a blocked convolution computes, against torch's own count of the taps that see the map."""

import pytest
import torch
import torch.nn.functional as F

from convsmith.measure.predictor.effort import convolution_effort, reach
from convsmith.measure.predictor.graph import Op
from convsmith.measure.predictor.kernels import kernels
from convsmith.measure.predictor.onnxruntime.executed import executed
from convsmith.measure.predictor.openvino import effort as openvino
from convsmith.measure.predictor.openvino.executed import executed as openvino_executed
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


def openvino_effort(channels, size, groups, kernel, side=3):
    w = Writer((1, channels, size, size))
    graph = w.graph(w.conv("input", channels, (side, side), groups=groups))
    (op,) = (own for own in openvino_executed(graph, 16).ops if own.kind == "Convolution")
    assert op.attributes["kernel"] == kernel
    shapes = (1, channels, size, size)
    return openvino.convolution_effort(op, (channels, channels // groups, side, side), groups, shapes, shapes)


def test_openvino_calls_the_kernel_for_small_groups_for_each_of_their_rows():
    """The multiplications are those of pixels that a row of taps sees, of its columns all; of a group one vector."""
    steps = 32 * 2 * (7 * 3 - 2) * 3 * 7 / 2
    assert openvino_effort(64, 7, 32, "jit").steps == steps + 160 * 7 * 32
    assert openvino_effort(64, 7, 1, "brgconv").steps == 4 * 64 * (7 * 3 - 2) * 3 * 7 / 2


def test_openvino_moves_each_pixel_of_each_part():
    maps = [(2, 8, 5, 4), (2, 3, 5, 4), (2, 1, 5, 4)]
    assert openvino.moving_effort(Op("Concatenation", [], []), maps, [(2, 12, 5, 4)]).steps == 3 * 2 * 20
    assert openvino.moving_effort(Op("Split", [], []), [(2, 12, 5, 4)], maps[:2]).steps == 2 * 2 * 20
    assert openvino.moving_effort(Op("Eltwise", [], []), maps, maps).steps == 0
