import numpy as np
import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import BatchNorm, Deconvolution, ResizeConv, SubPixelConv, Unpool, Upsample


def maps(channels=3, height=5, width=4, batch=2):
    return torch.randn(batch, channels, height, width, dtype=torch.float64)


def spread(x, weight, stride, padding, size):
    """Every input value spread by its filter, pixel by pixel."""
    x, weight = x.numpy(), weight.detach().numpy()
    y = np.zeros((x.shape[0], weight.shape[1], *size))
    for h, w, a, b in np.ndindex(*x.shape[2:], *weight.shape[2:]):
        row, column = h * stride - padding + a, w * stride - padding + b
        if 0 <= row < size[0] and 0 <= column < size[1]:
            y[:, :, row, column] += x[:, :, h, w] @ weight[:, :, a, b]
    return torch.from_numpy(y)


@pytest.mark.parametrize(
    ("kernel_size", "factor", "padding"), [(4, 2, 1), (2, 2, 0), (3, 2, 1), (5, 2, 2), (3, 3, 0), (6, 4, 1), (3, 1, 1)]
)
def test_a_deconvolution_spreads_each_value_by_its_filter(kernel_size, factor, padding):
    x = maps()
    block = Deconvolution(3, 6, kernel_size=kernel_size, upscale_factor=factor).double()
    expected = spread(x, block.conv.weight, factor, padding, (5 * factor, 4 * factor))
    torch.testing.assert_close(block(x), expected + block.conv.bias[:, None, None])


@pytest.mark.parametrize("make", [Deconvolution, ResizeConv, SubPixelConv])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 7, 8])
def test_the_map_grows_by_exactly_the_factor(make, factor, size):
    odd_needed = make is not Deconvolution or factor == 1
    if (odd_needed and size % 2 == 0) or (make is Deconvolution and size < factor):
        with pytest.raises(ValueError, match="kernel_size must be"):
            make(3, 2, kernel_size=size, upscale_factor=factor)
        return
    block = make(3, 2, kernel_size=size, upscale_factor=factor)
    assert block(torch.randn(1, 3, 5, 6)).shape == (1, 2, 5 * factor, 6 * factor)


@pytest.mark.parametrize(("kernel_size", "factor"), [(4, 2), (5, 3), (8, 4), (6, 2), (16, 8), (1, 1)])
def test_bilinear_weights_interpolate_away_from_the_border(kernel_size, factor):
    x = maps(3, 7, 6)
    block = Deconvolution(3, 3, kernel_size=kernel_size, upscale_factor=factor, init="bilinear").double()
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inside = (..., slice(factor, -factor), slice(factor, -factor))
    torch.testing.assert_close(block(x)[inside], expected[inside])


@pytest.mark.parametrize(("kernel_size", "factor"), [(3, 2), (5, 2), (6, 3), (7, 4)])
def test_bilinear_weights_of_the_other_parity_lie_half_a_pixel_beside(kernel_size, factor):
    block = Deconvolution(2, 2, kernel_size=kernel_size, upscale_factor=factor, init="bilinear").double()
    rows = torch.arange(8, dtype=torch.float64)[:, None].expand(1, 2, 8, 8)
    fine = torch.arange(8.0 * factor, dtype=torch.float64)[:, None]
    expected = ((fine + 0.5) / factor - 0.5 + 0.5 / factor).expand(1, 2, -1, 8 * factor)
    inside = (..., slice(factor, -2 * factor), slice(factor, -2 * factor))
    torch.testing.assert_close(block(rows)[inside], expected[inside])


def test_bilinear_weights_outlive_the_building_of_a_network():
    architecture = cs.Architecture(stages=[[cs.spec(Deconvolution, 3, init="bilinear")]], in_channels=3)
    weight = cs.create_model(architecture).stages[0][0].conv.weight
    tent = torch.tensor([0.25, 0.75, 0.75, 0.25])
    assert torch.equal(weight, torch.eye(3)[:, :, None, None] * tent * tent[:, None])


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_resize_convolution_convolves_repeated_values(factor):
    x = maps()
    block = ResizeConv(3, 6, kernel_size=5, upscale_factor=factor).double()
    fine = torch.from_numpy(x.numpy().repeat(factor, 2).repeat(factor, 3))
    torch.testing.assert_close(block(x), F.conv2d(fine, block.conv.weight, block.conv.bias, padding=2))


def test_a_resize_convolution_may_interpolate():
    x = maps()
    block = ResizeConv(3, 6, mode="bilinear").double()
    fine = F.interpolate(x, size=(10, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(block(x), F.conv2d(fine, block.conv.weight, block.conv.bias, padding=1))


def test_upsampling_without_weights():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert Upsample(1)(x).squeeze().tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    top_left = Upsample(1, upscale_factor=3, mode="top_left")(x[..., :1, :]).squeeze()
    assert top_left.tolist() == [[1, 0, 0, 2, 0, 0], [0] * 6, [0] * 6]
    assert Upsample(1, mode="bilinear")(x)[0, 0, 0].tolist() == [1, 1.25, 1.75, 2]
    assert torch.equal(Upsample(1, upscale_factor=1, mode="top_left")(x), x)


@pytest.mark.parametrize("make", [Deconvolution, ResizeConv, SubPixelConv])
def test_norm_and_activation_stand_behind_at_the_fine_size(make):
    block = make(4, 6, norm=cs.spec(BatchNorm), act="relu").double()
    assert block.conv.bias is None
    block.norm.running_mean.normal_()
    seen = []
    block.norm.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0].shape, output.clone())))
    y = block.eval()(maps(4))
    assert seen[0][0] == (2, 6, 10, 8)
    assert torch.equal(y, seen[0][1].clamp(min=0))
    assert make(4, 6).conv.bias is not None


def test_unpooling_inverts_pooling():
    x = maps(3, 6, 8)
    pooled, switches = F.max_pool2d(x, 2, return_indices=True)
    y = Unpool()(pooled, switches)
    maxima = F.interpolate(pooled, scale_factor=2) == x
    assert torch.equal(y, torch.where(maxima, x, 0))
    assert torch.equal(y, F.max_unpool2d(pooled, switches, 2))
    back = torch.gather(y.flatten(2), 2, switches.flatten(2)).view_as(pooled)
    assert torch.equal(back, pooled)


def test_unpooling_restores_a_size_that_the_factor_does_not_divide():
    x = maps(2, 7, 5).abs()
    pooled, switches = F.max_pool2d(x, 3, 3, 1, return_indices=True)
    y = Unpool(3)(pooled, switches, output_size=(7, 5))
    assert y.shape == x.shape
    assert torch.equal(F.max_pool2d(y, 3, 3, 1), pooled)


def test_unpooling_takes_a_size_as_one_number_and_asks_for_it_where_switches_lie_outside():
    x = maps(2, 7, 7).abs()
    pooled, switches = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(
        Unpool()(pooled, switches, output_size=7), F.max_unpool2d(pooled, switches, 2, output_size=(7, 7))
    )
    switches[0, 0, 2, 2] = 40
    with pytest.raises(ValueError, match=r"got 6 x 6, and .*; give the size of the map that was pooled as output_size"):
        Unpool()(pooled, switches)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "top_left", "unpool"])
def test_channels_last_maps_stay_so(mode):
    def upsample(x):
        if mode != "unpool":
            return Upsample(3, mode=mode)(x)
        return Unpool()(*F.max_pool2d(x, 2, return_indices=True))

    x = maps(3, 6, 4)
    y = upsample(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, upsample(x), rtol=0, atol=0)


def test_overlapping_windows_add_up_as_in_the_gradient_of_pooling():
    x = maps(2, 8, 8).requires_grad_()
    pooled, switches = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    signal = torch.randn_like(pooled)
    (expected,) = torch.autograd.grad(pooled, x, signal)
    assert len(switches[0, 0].unique()) < switches[0, 0].numel(), "no windows share a maximum"
    torch.testing.assert_close(Unpool()(signal, switches), expected)


def test_unpooling_passes_its_gradient_back_through_the_switches():
    pooled, switches = F.max_pool2d(maps(2, 4, 4), 3, 2, 1, return_indices=True)
    assert torch.autograd.gradcheck(lambda x: Unpool()(x, switches), pooled.requires_grad_())


@pytest.mark.parametrize(
    ("block", "macs"),
    [
        (Deconvolution(3, 7, kernel_size=4), 5 * 6 * 3 * 7 * 16),
        (ResizeConv(3, 7, upscale_factor=2), 10 * 12 * 3 * 7 * 9),
        (SubPixelConv(3, 7, kernel_size=5, upscale_factor=3), 5 * 6 * 3 * 63 * 25),
        (Upsample(3, mode="top_left"), 0),
        (Upsample(3, mode="bilinear"), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_upsampling_costs(block, macs):
    cost = cs.measure.cost(block, (1, 3, 5, 6))
    assert cost.macs == macs
    assert not cost.uncounted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Deconvolution(3, 3, kernel_size=2, upscale_factor=3), "at least upscale_factor, .* upscale_factor=3"),
        (lambda: Deconvolution(3, 3, upscale_factor=1), "kernel_size must be odd here, got kernel_size=4"),
        (lambda: Deconvolution(3, 4, init="bilinear"), "must equal in_channels, got in_channels=3 and out_channels=4"),
        (
            lambda: Deconvolution(3, 3, kernel_size=4, upscale_factor=3, init="bilinear"),
            r"at least 2 \* upscale_factor - 1, got kernel_size=4 and upscale_factor=3",
        ),
        (lambda: ResizeConv(3, 3, kernel_size=2), "kernel_size must be odd here, got kernel_size=2"),
        (lambda: SubPixelConv(3, 3, kernel_size=4), "kernel_size must be odd here, got kernel_size=4; take 5"),
        (lambda: SubPixelConv(3, 3, upscale_factor=0), "upscale_factor must be at least 1, got upscale_factor=0"),
        (lambda: Upsample(3, upscale_factor=-1), "upscale_factor must be at least 1, got upscale_factor=-1"),
        (lambda: Unpool(0), "upscale_factor must be at least 1"),
        (
            lambda: Unpool()(torch.ones(1, 2, 3, 3), torch.zeros(1, 1, 3, 3, dtype=torch.long)),
            r"one for each value, got \(1, 1, 3, 3\) for a map of \(1, 2, 3, 3\)",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
