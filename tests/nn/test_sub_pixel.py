import itertools

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from convsmith.nn import Deconvolution, SubPixelConv, icnr_, subpixel_to_deconvolution
from convsmith.nn.sub_pixel import shuffle_pixels


def maps(channels=3, height=5, width=4, batch=2):
    return torch.randn(batch, channels, height, width, dtype=torch.float64)


def test_the_channels_of_the_coarse_map_are_the_pixels_of_the_fine_one():
    x = maps()
    block = SubPixelConv(3, 2, upscale_factor=3, init="default").double()
    coarse = F.conv2d(x, block.conv.weight, block.conv.bias, padding=1)
    y = block(x)
    for c, h, w, i, j in itertools.product(range(2), range(5), range(4), range(3), range(3)):
        torch.testing.assert_close(y[:, c, 3 * h + i, 3 * w + j], coarse[:, c * 9 + i * 3 + j, h, w])


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_it_starts_as_a_nearest_resize_of_a_convolution(factor, kernel_size):
    x = maps()
    block = SubPixelConv(3, 4, kernel_size=kernel_size, upscale_factor=factor).double()
    coarse = F.conv2d(x, block.conv.weight[:: factor**2], padding=kernel_size // 2)
    torch.testing.assert_close(block(x), coarse.repeat_interleave(factor, 2).repeat_interleave(factor, 3))
    assert block.conv.weight.std() > 0.01


def test_icnr_draws_one_filter_for_each_channel():
    weight = torch.full((36, 5, 3, 3), torch.nan, requires_grad=True)
    torch.manual_seed(0)
    assert icnr_(weight, 3) is weight
    torch.manual_seed(0)
    drawn = nn.init.kaiming_normal_(torch.empty(4, 5, 3, 3))
    for channel, pixel in itertools.product(range(4), range(9)):
        assert torch.equal(weight[channel * 9 + pixel], drawn[channel])
    assert torch.equal(icnr_(weight, 3, init_=nn.init.ones_), torch.ones(36, 5, 3, 3))


def test_icnr_can_be_drawn_anew():
    block = SubPixelConv(3, 4)
    nn.init.normal_(block.conv.weight)
    nn.init.normal_(block.conv.bias)
    block.initialise()
    pixels = block.conv.weight.unflatten(0, (4, 4))
    assert torch.equal(pixels, pixels[:, :1].expand_as(pixels))
    assert not block.conv.bias.any()
    plain = SubPixelConv(3, 4, init="default")
    before = plain.conv.weight.clone()
    plain.initialise()
    assert torch.equal(plain.conv.weight, before)


@pytest.mark.parametrize(("kernel_size", "factor"), [(1, 2), (3, 2), (3, 3), (5, 2), (3, 1)])
def test_it_is_a_deconvolution_with_rearranged_weights(kernel_size, factor):
    x = maps()
    block = SubPixelConv(3, 2, kernel_size=kernel_size, upscale_factor=factor, init="default").double()
    nn.init.zeros_(block.conv.bias)
    same = Deconvolution(3, 2, kernel_size=kernel_size * factor, upscale_factor=factor).double()
    nn.init.zeros_(same.conv.bias)
    same.conv.weight.data = subpixel_to_deconvolution(block.conv.weight.data, factor)
    torch.testing.assert_close(same(x), block(x))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_an_empty_batch_can_be_trained(memory_format):
    block, x = SubPixelConv(3, 2, upscale_factor=3), torch.empty(0, 3, 5, 4).to(memory_format=memory_format)
    y = block(x.requires_grad_())
    assert y.shape == (0, 2, 15, 12)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert not block.conv.weight.grad.any()


def test_the_pixels_are_one_node_of_a_traced_graph():
    block, x = SubPixelConv(3, 2), maps().float()
    traced = fx.symbolic_trace(block)
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"] == [shuffle_pixels]
    torch.testing.assert_close(traced(x), block(x))


@pytest.mark.parametrize("function", [icnr_, subpixel_to_deconvolution])
def test_the_filters_must_fill_the_pixels(function):
    with pytest.raises(ValueError, match=r"upscale_factor \*\* 2 filters .* got 10 filters and upscale_factor=2"):
        function(torch.zeros(10, 3, 3, 3), 2)
    with pytest.raises(ValueError, match="upscale_factor must be at least 1, got upscale_factor=0"):
        function(torch.zeros(8, 3, 3, 3), 0)
