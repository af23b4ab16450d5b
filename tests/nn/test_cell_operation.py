"""The operations of cells against their formulas in plain convolutions, float64."""

import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import ActConvNorm, FactorizedReduction, NasCell
from convsmith.nn.cell_operation import OPERATIONS, build_operation
from convsmith.nn.same_padding import same_pads

NORM = cs.spec(cs.nn.BatchNorm, eps=0.5)  # in eval mode, freshly built, a division by the root of 1.5
NORMED = 1.5**-0.5


def operation(name, in_channels=8, filters=8, *, stride=1, padding="symmetric"):
    torch.manual_seed(0)
    arguments = {"stride": stride, "padding": padding, "norm": NORM, "act": "relu"}
    return build_operation(name, in_channels, filters, **arguments).double().eval()


def image(channels=8, height=11, width=11):
    return torch.randn(2, channels, height, width, dtype=torch.float64)


def spread(kernel, dilation):
    """The kernel with zeros between its values."""
    k = kernel.shape[-1]
    result = kernel.new_zeros(*kernel.shape[:2], (k - 1) * dilation + 1, (k - 1) * dilation + 1)
    result[..., ::dilation, ::dilation] = kernel
    return result


def weights(module):
    return [p.detach() for p in module.parameters() if p.ndim == 4]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ["dil_3x3", "dil_5x5", "sep_dil_3x3", "sep_dil_5x5", "sep_7x7"])
def test_separable_convolutions(name, stride):
    module, x = operation(name, 8, 6, stride=stride), image()
    layers = weights(module)
    assert len(layers) == (2 if name.startswith("dil") else 4)
    y, step = x, stride
    for depthwise, pointwise in zip(layers[::2], layers[1::2], strict=True):
        kernel = spread(depthwise, 2 if "dil" in name else 1)
        y = F.conv2d(y.relu(), kernel, stride=step, padding=kernel.shape[-1] // 2, groups=len(kernel))
        y = torch.einsum("oi,nihw->nohw", pointwise[:, :, 0, 0], y) * NORMED
        step = 1
    with torch.no_grad():
        torch.testing.assert_close(module(x), y)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("name", "kernels", "width"),
    [
        ("conv_3x3", [(3, 3)], 4),
        ("conv_dil_3x3", [(3, 3)], 4),
        ("conv_1x7_7x1", [(1, 7), (7, 1)], 4),
        ("conv_1x3_3x1", [(1, 3), (3, 1)], 6),
    ],
)
def test_dense_convolutions_stand_between_narrow_ones(name, kernels, width, stride):
    module, x = operation(name, 8, 17, stride=stride), image()
    layers = weights(module)
    widths = [(8, width), *[(width, width)] * len(kernels), (width, 17)]  # 17 / 4 and 3 * 17 / 8, rounded down
    shapes = [(1, 1), *kernels, (1, 1)]
    assert [tuple(w.shape) for w in layers] == [(o, i, *k) for (i, o), k in zip(widths, shapes, strict=True)]
    y = x
    for weight in layers:
        kernel = spread(weight, 2) if "dil" in name else weight
        steps = [stride if k > 1 else 1 for k in weight.shape[2:]]
        y = F.conv2d(y.relu(), kernel, stride=steps, padding=[k // 2 for k in kernel.shape[2:]]) * NORMED
    with torch.no_grad():
        torch.testing.assert_close(module(x), y)


def test_a_dense_convolution_of_three_filters_is_not_narrowed():
    assert [tuple(w.shape) for w in weights(operation("conv_3x3", 5, 3))] == [(3, 5, 3, 3)]
    assert [tuple(w.shape) for w in weights(operation("conv_1x7_7x1", 5, 3))] == [(3, 5, 1, 7), (3, 3, 7, 1)]


@pytest.mark.parametrize("height", [10, 11])
@pytest.mark.parametrize("padding", ["same", "same_counted"])
def test_strided_convolutions_are_padded_as_in_tensorflow(height, padding):
    x = image(8, height, 12).relu()
    rows, columns = same_pads(height, 7, 2), same_pads(12, 7, 2)
    y = operation("conv_1x7_7x1", stride=2, padding=padding)
    narrow, row, column, wide = weights(y)
    expected = F.conv2d(x, narrow) * NORMED
    expected = F.conv2d(F.pad(expected.relu(), columns), row, stride=(1, 2)) * NORMED
    expected = F.conv2d(F.pad(expected.relu(), (0, 0, *rows)), column, stride=(2, 1)) * NORMED
    expected = F.conv2d(expected.relu(), wide) * NORMED
    dilated = operation("dil_3x3", stride=2, padding=padding)
    depthwise, pointwise = weights(dilated)
    pads = (*same_pads(12, 5, 2), *same_pads(height, 5, 2))
    with torch.no_grad():
        torch.testing.assert_close(y(x), expected)
        other = F.conv2d(F.conv2d(F.pad(x, pads), spread(depthwise, 2), stride=2, groups=8), pointwise) * NORMED
        torch.testing.assert_close(dilated(x), other)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name.startswith(("max", "avg"))])
def test_pooling_reads_what_lies_inside_of_the_map(name, side, stride):
    kind, kernel_size, x = name[:3], int(name[-1]), image(8, side, side)
    pads = same_pads(side, kernel_size, stride)
    windows = F.pad(x, pads * 2, value=torch.nan).unfold(2, kernel_size, stride).unfold(3, kernel_size, stride)
    windows = windows.flatten(-2)
    expected = windows.nanmean(-1) if kind == "avg" else windows.nan_to_num(-torch.inf).amax(-1)
    torch.testing.assert_close(operation(name, stride=stride, padding="same")(x), expected)


def test_an_even_window_is_padded_behind_with_every_convention():
    x = image(8, 7, 7)
    for stride in (1, 2):
        expected = operation("max_2x2", stride=stride, padding="same")(x)
        for padding in ("symmetric", "same_counted"):
            torch.testing.assert_close(operation("max_2x2", stride=stride, padding=padding)(x), expected)


def test_a_skip_is_the_map_itself_or_reduced_as_in_darts():
    x = image(8, 6, 6)
    assert operation("skip")(x) is x
    module = operation("skip", stride=2)
    assert isinstance(module, FactorizedReduction)
    straight, shifted = weights(module)
    y = x.relu()
    expected = torch.cat([F.conv2d(y, straight, stride=2), F.conv2d(y[..., 1:, 1:], shifted, stride=2)], 1) * NORMED
    with torch.no_grad():
        torch.testing.assert_close(module(x), expected)
    assert isinstance(operation("skip", 5, 8), ActConvNorm)


def test_none_connects_nothing():
    for stride, side in ((1, 7), (2, 4)):
        y = operation("none", 5, 8, stride=stride)(image(5, 7, 7))
        assert y.shape == (2, 8, side, side)
        assert y.dtype == torch.float64
        assert not y.any()
    cell = NasCell((8, 8), filters=8, operations=(("none", 0, "max_3x3", 1),), norm=NORM).double().eval()
    previous = image()
    _, output = cell((previous, image()))
    torch.testing.assert_close(output, F.max_pool2d(previous, 3, 1, 1))


def test_a_one_by_one_convolution_strides_and_is_dropped_as_other_convolutions():
    module, x = operation("conv_1x1", 8, 5, stride=2), image()
    with torch.no_grad():
        torch.testing.assert_close(module(x), F.conv2d(x.relu()[..., ::2, ::2], module.conv.weight) * NORMED)
    cell = NasCell((8, 8), filters=8, operations=(("conv_1x1", 0, "identity", 1),), drop_path_rate=0.5)
    assert isinstance(cell.combinations[0].left[1], cs.nn.DropPath)
