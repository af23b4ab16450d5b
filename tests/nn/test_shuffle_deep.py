import pytest
import torch
from torch.nn import functional as F

from convsmith.nn import ShuffleUnitV2, ShuffleUnitV2Deep, ShuffleUnitV2Star


def jittered(unit):
    """The unit in float64 and eval mode, its norms with statistics and affine parts of their own."""
    for module in unit.double().modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    return unit.eval()


def maps(channels, size=7):
    return torch.randn(2, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def conv_norm(state, name, x, *, stride=1, dilation=1):
    """A convolution without bias and its batch normalisation, from the state dict alone."""
    weight = state[f"{name}.conv.weight"]
    groups = x.shape[1] // weight.shape[1]
    y = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2 * dilation, dilation, groups)
    mean, variance, scale, shift = (
        state[f"{name}.norm.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (y - mean) / (variance + 1e-5).sqrt() * scale + shift


def gated(state, x):
    squeezed = (
        torch.einsum("oc,nc->no", state["se.reduce.weight"][:, :, 0, 0], x.mean((2, 3))) + state["se.reduce.bias"]
    )
    gate = torch.einsum("oc,nc->no", state["se.expand.weight"][:, :, 0, 0], squeezed.relu()) + state["se.expand.bias"]
    return x / (1 + (-gate).exp())[:, :, None, None]


def interleaved(a, b):
    """Channels of the two halves in turn: the shuffle of two groups."""
    return torch.stack((a, b), 2).flatten(1, 2)


@pytest.mark.parametrize("se_ratio", [0.0, 0.5])
def test_the_half_that_is_read_is_added_to_the_gated_branch_and_activated(se_ratio):
    unit = jittered(ShuffleUnitV2Deep(12, 12, se_ratio=se_ratio, kernel_size=5))
    state, x = unit.state_dict(), maps(12)
    y = conv_norm(state, "reduce", x[:, 6:]).relu()
    y = conv_norm(state, "separable.pointwise", conv_norm(state, "separable.depthwise", y))
    y = gated(state, y) if se_ratio else y
    with torch.no_grad():
        torch.testing.assert_close(unit(x), interleaved(x[:, :6], (y + x[:, 6:]).relu()))


@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (1, 2)])
def test_where_channels_change_two_branches_give_half_each(stride, dilation):
    unit = jittered(ShuffleUnitV2Deep(8, 12, stride=stride, dilation=dilation))
    state, x, moved = unit.state_dict(), maps(8), {"stride": stride, "dilation": dilation}
    a = conv_norm(state, "passing.pointwise", conv_norm(state, "passing.depthwise", x, **moved)).relu()
    y = conv_norm(state, "separable.depthwise", conv_norm(state, "reduce", x).relu(), **moved)
    y = gated(state, conv_norm(state, "separable.pointwise", y)).relu()
    with torch.no_grad():
        torch.testing.assert_close(unit(x), interleaved(a, y))


def test_squeezed_are_half_of_the_units_channels():
    assert ShuffleUnitV2Deep(340, 340).se.reduce.weight.shape == (170, 170, 1, 1)


def test_an_odd_width_has_no_halves():
    with pytest.raises(ValueError, match="out_channels must be even, got out_channels=9"):
        ShuffleUnitV2Deep(8, 9)


@pytest.mark.parametrize(("out_channels", "split"), [(8, "half"), (20, "half"), (20, "paper")])
def test_with_a_first_convolution_that_does_nothing_the_star_unit_is_the_plain_one(out_channels, split):
    plain = jittered(ShuffleUnitV2(8, out_channels, split=split))
    star = jittered(ShuffleUnitV2Star(8, out_channels, split=split))
    renamed = {
        key.replace("reduce.", "reduce.pointwise.") if key.startswith("reduce.") else key: tensor
        for key, tensor in plain.state_dict().items()
    }
    missing, unexpected = star.load_state_dict(renamed, strict=False)
    assert not unexpected
    assert {key.partition("depthwise.")[0] for key in missing} == {"reduce."}
    first = star.reduce.depthwise
    torch.nn.init.dirac_(first.conv.weight, groups=first.conv.groups)
    first.norm.reset_parameters()
    first.norm.eps = 1e-300  # lost beside a variance of 1; torch 2.11 refuses 0
    x = maps(8)
    with torch.no_grad():
        torch.testing.assert_close(star(x), plain(x))


@pytest.mark.parametrize(("unit", "side"), [(ShuffleUnitV2, 3), (ShuffleUnitV2Star, 5)])
def test_the_star_unit_reads_five_by_five_pixels(unit, side):
    x = maps(8, size=9).requires_grad_()
    jittered(unit(8, 8, act="sigmoid"))(x)[:, :, 4, 4].sum().backward()
    read = x.grad.abs().sum((0, 1)) > 0
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[4 - side // 2 : 5 + side // 2, 4 - side // 2 : 5 + side // 2] = True
    assert torch.equal(read, expected)
