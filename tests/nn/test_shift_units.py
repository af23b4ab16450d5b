import pytest
import torch
from torch.nn import functional as F

from convsmith.nn import ShiftResidual, ShiftUnit


def jittered(module):
    """The module in float64 and eval mode, its norms with statistics and affine parts of their own."""
    module = module.double()
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def shifted(x, kernel_size, dilation):
    """Channel by channel, pixel by pixel: the first n channels by the first displacement, the next n by the second."""
    count, out = x.shape[1] // kernel_size**2, torch.zeros_like(x)
    for c in range(x.shape[1]):
        tap = c // count if c < count * kernel_size**2 else kernel_size**2 // 2
        dy, dx = (dilation * (i - kernel_size // 2) for i in divmod(tap, kernel_size))
        for h in range(x.shape[2]):
            for w in range(x.shape[3]):
                if 0 <= h + dy < x.shape[2] and 0 <= w + dx < x.shape[3]:
                    out[:, c, h, w] = x[:, c, h + dy, w + dx]
    return out


def pooled(x):
    """Means of 3 x 3 windows at every second pixel, zeros around the map counted."""
    return F.conv2d(x, x.new_full((x.shape[1], 1, 3, 3), 1 / 9), stride=2, padding=1, groups=x.shape[1])


def mixed(x, weight, stride=1):
    return torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x[:, :, ::stride, ::stride])


@pytest.mark.parametrize(
    ("out_channels", "stride", "kernel_size", "dilation", "hidden"),
    [(8, 1, 3, 1, 16), (8, 1, 3, 2, 16), (22, 2, 5, 1, 28), (14, 1, 3, 1, 12), (8, 2, 3, 1, 16)],
)
def test_a_shift_unit_adds_or_concatenates(out_channels, stride, kernel_size, dilation, hidden):
    arguments = {"stride": stride, "kernel_size": kernel_size, "dilation": dilation, "expansion": 2.0}
    unit = jittered(ShiftUnit(8, out_channels, **arguments))
    x = torch.randn(2, 8, 7, 6, dtype=torch.float64)
    y = mixed(unit.expand.norm(x).clamp(min=0), unit.expand.conv.weight)
    assert y.shape[1] == hidden
    y = mixed(unit.project.norm(shifted(y, kernel_size, dilation)).clamp(min=0), unit.project.conv.weight, stride)
    passed = pooled(x) if stride == 2 else x
    torch.testing.assert_close(unit(x), y + passed if out_channels == 8 else torch.cat((y, passed), 1))


@pytest.mark.parametrize(("out_channels", "stride"), [(8, 1), (12, 2)])
def test_the_unit_of_shiftresnet_has_no_activation_behind_the_sum(out_channels, stride):
    unit = jittered(ShiftResidual(8, out_channels, stride=stride, expansion=3.0))
    x = torch.randn(2, 8, 7, 6, dtype=torch.float64)
    y = shifted(unit.expand.norm(mixed(x, unit.expand.conv.weight)).clamp(min=0), 3, 1)
    y = unit.project.norm(mixed(y, unit.project.conv.weight, stride)).clamp(min=0)
    shortcut = x if stride == 1 else unit.shortcut.norm(mixed(x, unit.shortcut.conv.weight, stride))
    torch.testing.assert_close(unit(x), y + shortcut)
    assert (unit(x) < 0).any()


def test_a_shift_unit_does_not_narrow_its_map():
    with pytest.raises(
        ValueError, match="must keep its channels or add to them, got in_channels=16 and out_channels=8"
    ):
        ShiftUnit(16, 8)
