import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.deploy import fold_norm, onnx
from convsmith.deploy.passes.lean import lean
from convsmith.deploy.passes.shift import fold_shift
from convsmith.nn import ConvNormAct, NormActConv, Shift, ShiftResidual, ShiftUnit


def randomised(module):
    """In float64 and eval mode, with norms that do something also where the borders' zeros meet them."""
    for layer in module.double().modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
    return module.eval()


def check_equal(module, x, *, strides=()):
    """Fold, compare in value, and see that no shift is left and which of the convolutions in their place stride."""
    names = [name for name, child in module.named_modules() if isinstance(child, Shift)]
    module = randomised(module)
    twin = fold_shift(module)
    with torch.no_grad():
        expected, actual = copy.deepcopy(module)(x.clone()), twin(x.clone())
    assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert (expected[0] - expected[-1]).abs().max() > 1e-3 * expected.abs().max()
    assert type(twin) is type(module)
    convolutions = [twin.get_submodule(name) for name in names]
    assert all(type(layer) is nn.Conv2d and layer.groups == layer.in_channels for layer in convolutions)
    assert [layer.stride for layer in convolutions] == list(strides or [(1, 1)] * len(names))
    return twin


MAPS = torch.randn(2, 10, 9, 8, dtype=torch.float64)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_units_stride_in_their_shift_and_fold_their_norms(kernel_size):
    network = nn.Sequential(
        ShiftUnit(10, 24, kernel_size=kernel_size, stride=2, expansion=2.0),
        ShiftUnit(24, 24, kernel_size=kernel_size, expansion=2.0),
        ShiftResidual(24, 28, kernel_size=kernel_size, stride=2, dilation=2),
    )
    twin = check_equal(network, MAPS, strides=[(2, 2), (1, 1), (2, 2)])
    assert [twin[0].project.conv.stride, twin[2].project.conv.stride] == [(1, 1), (1, 1)]
    # Those behind shifts too; unfolded remain the first norms of the first two units, which no convolution is before.
    assert set(fold_norm(twin).folded_norms) - set(fold_norm(network).folded_norms) == {
        "0.project.norm",
        "1.project.norm",
    }
    folded = fold_norm(twin)
    with torch.no_grad():
        torch.testing.assert_close(folded(MAPS), network(MAPS))


@pytest.mark.parametrize("name", ["shiftnet_c", "shiftresnet20_e3"])
def test_networks(name):
    network = cs.create_model(name, num_classes=5)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    twin = fold_shift(randomised(network))
    with torch.no_grad():
        torch.testing.assert_close(twin(x), network(x))
    strided = [layer for layer in twin.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    assert sum(layer.groups > 1 for layer in strided) == {"shiftnet_c": 4, "shiftresnet20_e3": 2}[name]


class Net(nn.Module):
    """A shift and a strided 1 x 1 convolution, wired by a subclass."""

    def __init__(self):
        super().__init__()
        self.shift, self.norm, self.conv = Shift(10), nn.BatchNorm2d(10), nn.Conv2d(10, 6, 1, stride=2)


class Straight(Net):
    def forward(self, x):
        return self.conv(F.relu(self.norm(self.shift(x)), inplace=True) * 2)


class TwoReaders(Net):
    def forward(self, x):
        y = self.shift(x)
        return self.conv(y) + y[:, :6, ::2, ::2]


class ReadOnTheWay(Net):
    def forward(self, x):
        y = self.shift(x)
        return self.conv(y) * y.mean()


class Summed(Net):
    def forward(self, x):
        return self.conv(self.shift(x) + x)


class PooledBetween(Net):
    def forward(self, x):
        return self.conv(F.max_pool2d(self.shift(x), 3, 1))


class CalledTwice(Net):
    def forward(self, x):
        return self.conv(self.shift(x)) + self.conv(self.shift(x.relu()))


class Output(Net):
    def forward(self, x):
        return self.shift(x)


class BatchStatistics(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(10, track_running_stats=False)

    forward = Straight.forward


@pytest.mark.parametrize(
    ("module", "stride"),
    [
        (Straight, 2),
        (TwoReaders, 1),
        (ReadOnTheWay, 1),
        (Summed, 1),
        (PooledBetween, 1),
        (CalledTwice, 1),
        (Output, 1),
        (BatchStatistics, 1),
    ],
)
def test_where_a_shift_may_stride(module, stride):
    check_equal(module(), MAPS, strides=[(stride, stride)])


@pytest.mark.parametrize(
    ("reader", "shift", "stride"),
    [
        (nn.Conv2d(10, 6, 1, stride=(1, 2)), {}, (1, 2)),
        (nn.Conv2d(10, 6, 1, stride=2, groups=2, dilation=3), {}, (2, 2)),
        (nn.Conv2d(10, 6, 1, stride=2), {"stride": 2, "assignment": "interleaved"}, (4, 4)),
        (nn.Conv2d(10, 6, 1, stride=2), {"kernel_size": 1, "stride": 2}, (4, 4)),
        (nn.Conv2d(10, 6, 3, stride=2, padding=1), {}, (1, 1)),
        (nn.Conv2d(10, 6, 1, stride=2, padding=1), {}, (1, 1)),
        (nn.Identity(), {"kernel_size": 1, "stride": 2}, (2, 2)),
    ],
)
def test_whose_stride_a_shift_may_take(reader, shift, stride):
    check_equal(nn.Sequential(Shift(10, **shift), nn.Dropout(), nn.Hardswish(), reader), MAPS, strides=[stride])


class DataDependent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else -self.layer(x)


def test_what_cannot_be_followed_keeps_its_strides():
    inner = Straight()
    check_equal(DataDependent(inner), MAPS)
    twin = check_equal(
        nn.Sequential(inner, nn.Upsample(scale_factor=2), DataDependent(nn.Identity())), MAPS, strides=[(2, 2)]
    )
    assert twin[0].conv.stride == (1, 1)
    reader = nn.Conv2d(10, 6, 1, stride=2)
    hidden = DataDependent(reader)  # calls the same convolution on other maps

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift, self.reader, self.hidden = Shift(10), reader, hidden

        def forward(self, x):
            return self.reader(self.shift(x)) + self.hidden(x)

    check_equal(Both(), MAPS)


def test_shifts_with_hooks_stay():
    network = nn.Sequential(Shift(10), nn.Conv2d(10, 6, 1))
    network[0].register_forward_hook(lambda module, inputs, output: output * 2)
    assert isinstance(fold_shift(network)[0], Shift)


def test_the_module_itself_is_untouched():
    network = nn.Sequential(Shift(10), nn.Conv2d(10, 6, 1, stride=2))
    twin = fold_shift(network)
    assert isinstance(network[0], Shift)
    assert network[1].stride == (2, 2)
    assert network.training
    assert not any(part.training for part in twin.modules())
    assert not twin[0].weight.requires_grad


class MisleadsTracing(Net):
    """To torch.fx the map has one reader, in truth it has two."""

    def forward(self, x):
        y = self.shift(x)
        return self.conv(y) + (y[:, :6, ::2, ::2] if isinstance(y, torch.Tensor) else 0)


def test_with_an_example_a_wrong_turn_is_noticed():
    network = randomised(MisleadsTracing())
    assert isinstance(lean(network, MAPS).shift, Shift)
    assert isinstance(lean(randomised(Straight()), MAPS).shift, nn.Conv2d)


@pytest.mark.slow
def test_onnx_runtime_computes_folded_and_plain_shifts():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    network = nn.Sequential(
        ConvNormAct(3, 20), Shift(20), NormActConv(20, 29, kernel_size=1, stride=2), Shift(29, kernel_size=5)
    )
    network = randomised(network).float()
    x = torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        expected = network(x)
    for candidate in (network, fold_norm(fold_shift(network))):
        run = onnx.load(onnx.convert(candidate, x, {}), threads=1)
        torch.testing.assert_close(run(x), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(run(x[:1]), expected[:1], rtol=1e-5, atol=1e-5)
