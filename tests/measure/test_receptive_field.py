"""Receptive fields against pixels that are really changed, against closed formulas, and against published figures."""

import random

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.measure import receptive_field
from convsmith.measure.forms import tensors_in
from convsmith.measure.reach.mode import Reach
from tests.measure.untouched import state

SIZE = (11, 13)
ROUNDING = 1e-9  # a coefficient of an interpolation that should be 0 is not quite


def seen(module, shape):
    """By changing one pixel after the other: (4, h, w) first row, first column, last row, last column, -1 for none."""
    channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    moved = None
    for scale in (3.0, 1e3, -1e3):  # a large value is the maximum of its pool
        base = torch.randn(1, channels, height, width, generator=generator, dtype=torch.float64)
        images = base.repeat(height * width, 1, 1, 1)
        step = scale * (1 + torch.rand(channels, generator=generator, dtype=torch.float64))
        for i in range(height * width):
            images[i, :, i // width, i % width] += step
        with torch.no_grad():
            change = torch.cat([module(image[None]) for image in images]) - module(base)
        changed = change.abs() > ROUNDING
        moved = changed if moved is None else moved | changed
    h, w = moved.shape[-2:]
    by_pixel = moved.any(1).view(height, width, h, w)
    rows, columns = by_pixel.any(1), by_pixel.any(0)

    def first(x):
        return torch.where(x.any(0), x.to(torch.uint8).argmax(0), -1)

    def last(x):
        return torch.where(x.any(0), len(x) - 1 - x.flip(0).to(torch.uint8).argmax(0), -1)

    return torch.stack((first(rows), first(columns), last(rows), last(columns)))


def found(module, shape, **options):
    field = receptive_field(module, (1, *shape), **options)
    h, w = field.map_size
    extents = torch.full((4, h, w), -1)
    for i in range(h):
        for j in range(w):
            if (extent := field.extent(i, j)) is not None:
                (top, bottom), (left, right) = extent
                extents[:, i, j] = torch.tensor([top, left, bottom, right])
    return extents


class Plain(nn.Module):
    """A function without parameters."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Branches(nn.Module):
    """Two branches of one size, added in place, concatenated, or written into one half each."""

    def __init__(self, one, other, kind):
        super().__init__()
        self.one, self.other, self.kind = one, other, kind

    def forward(self, x):
        a, b = self.one(x), self.other(x)
        if self.kind == "add":
            return a.add_(b)
        if self.kind == "cat":
            return torch.cat((a, b), 1)
        out = x.new_zeros(a.shape[0], 2 * a.shape[1], *a.shape[2:])
        out[:, ::2] = a
        out[:, 1::2].copy_(b)
        return out


def gate(channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.Sigmoid())


class Gated(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gate = gate(channels)

    def forward(self, x):
        return x * self.gate(x)


# fmt: off
LAYERS = {
    "conv":        lambda: nn.Conv2d(4, 4, 3, padding=1),
    "valid":       lambda: nn.Conv2d(4, 6, (2, 3)),
    "strided":     lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1),
    "dilated":     lambda: nn.Conv2d(4, 4, 3, padding=(2, 1), dilation=(2, 3)),
    "grouped":     lambda: nn.Conv2d(4, 8, 3, padding=1, groups=2),
    "stride only": lambda: nn.Conv2d(4, 4, 1, stride=3),
    "circular":    lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "reflected":   lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "same":        lambda: nn.Conv2d(4, 4, (3, 5), padding="same"),
    "transposed":  lambda: nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1),
    "with gaps":   lambda: nn.ConvTranspose2d(4, 4, 2, stride=3),
    "spread":      lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=(1, 2), dilation=2, padding=1, groups=2),
    "shift":       lambda: cs.nn.Shift(9),
    "interleaved": lambda: cs.nn.Shift(12, dilation=2, assignment="interleaved"),
    "max pool":    lambda: nn.MaxPool2d(3, 2, 1),
    "ceil":        lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
    "avg pool":    lambda: nn.AvgPool2d((3, 2), 2, 1, ceil_mode=True),
    "adaptive":    lambda: nn.AdaptiveAvgPool2d((4, 5)),
    "adaptive max": lambda: nn.AdaptiveMaxPool2d(3),
    "of last":     lambda: Plain(lambda x: F.adaptive_avg_pool2d(x.to(memory_format=torch.channels_last), 1)),
    "in place":    lambda: Plain(lambda x: x.clone().transpose_(2, 3).unsqueeze_(0).squeeze_(0)),
    "global":      lambda: nn.AdaptiveAvgPool2d(1),
    "gate":        lambda: Gated(4),
    "nearest":     lambda: nn.Upsample(scale_factor=2),
    "to a size":   lambda: nn.Upsample(size=(7, 20), mode="nearest-exact"),
    "bilinear":    lambda: nn.Upsample(scale_factor=(2, 1.5), mode="bilinear"),
    "aligned":     lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "bicubic":     lambda: nn.Upsample(scale_factor=0.6, mode="bicubic"),
    "smooth":      lambda: Plain(lambda x: F.interpolate(x, size=(5, 6), mode="bilinear", antialias=True)),
    "sub-pixel":   lambda: nn.PixelShuffle(2),
    "group norm":  lambda: nn.GroupNorm(2, 4),
    "instance":    lambda: nn.InstanceNorm2d(4),
    "layer norm":  lambda: Plain(lambda x: F.layer_norm(x, x.shape[1:])),
    "last axis":   lambda: Plain(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2)),
    "softmax":     lambda: nn.Softmax(3),
    "mean of rows": lambda: Plain(lambda x: x - x.mean(2, keepdim=True)),
    "crop":        lambda: Plain(lambda x: x[:, 1:, 2:-1, ::2] * 2),
    "roll":        lambda: Plain(lambda x: torch.roll(x, (1, -2), (2, 3))),
    "masked":      lambda: Plain(lambda x: x * (torch.arange(13) > 5)),
    "where":       lambda: Plain(lambda x: torch.where(torch.arange(13) > 5, x, x.flip(3))),
    "filled":      lambda: Plain(lambda x: x.masked_fill(torch.arange(13) > 5, 0.0)),
    "picked":      lambda: Plain(lambda x: x[:, :, torch.tensor([0, 4, 4])].index_select(3, torch.tensor([1, 7]))),
    "written":     lambda: Plain(lambda x: x.clone().fill_(0).index_put_(
        (torch.arange(len(x))[:, None], torch.tensor([[1]])), x.roll(1, 2)[:, :1])),
    "unfolded":    lambda: Plain(lambda x: F.unfold(x, 3, padding=1, stride=2).view(len(x), -1, 6, 7)),
    "einsum":      lambda: Plain(lambda x: torch.einsum("nchw,hk->nckw", x, torch.eye(11, dtype=x.dtype).roll(2, 1))),
    "matmul":      lambda: Plain(lambda x: x @ torch.ones(13, 4, dtype=x.dtype)),
    "constant grid": lambda: Plain(lambda x: F.grid_sample(
        x, torch.stack(torch.meshgrid(*[torch.linspace(-1.2, 0.7, 5, dtype=x.dtype)] * 2, indexing="xy"), -1)
        .expand(len(x), -1, -1, -1), align_corners=False)),
    "attention of rows": lambda: Plain(lambda x: F.scaled_dot_product_attention(x, x, x)),
    "glu":         lambda: nn.GLU(1),
    "cumulative":  lambda: Plain(lambda x: x.cumsum(2)),
    "no pixel":    lambda: Plain(lambda x: torch.zeros_like(x)),
    "irregular":   lambda: irregular(0.0),
    "moved taps":  lambda: irregular(1.3),
    "far taps":    lambda: irregular(5.0),
}
# fmt: on


def irregular(reach):
    conv = cs.nn.IrregularConv2d(4, 4, share="channel")
    with torch.no_grad():
        conv.positions += reach * torch.rand(conv.positions.shape, generator=torch.Generator().manual_seed(1))
    return conv


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_sees_what_changes_it(layer):
    torch.manual_seed(0)
    module = LAYERS[layer]().double().eval()
    channels = {"shift": 9, "interleaved": 12}.get(layer, 4)
    assert torch.equal(found(module, (channels, *SIZE)), seen(module, (channels, *SIZE)))


def drawn(rng, channels, depth):
    """A random network and its output channels; what does not fit is drawn anew by the caller."""
    layers = []
    for _ in range(depth):
        kind = rng.choice(
            ("conv", "depthwise", "pool", "up", "transposed", "branches", "gate", "shift", "crop", "norm")
        )
        stride, dilation, kernel = rng.choice((1, 1, 2)), rng.choice((1, 1, 2)), rng.choice((1, 2, 3, 4))
        padding = rng.randrange(0, kernel)
        if kind == "conv":
            layers.append(nn.Conv2d(channels, 4, kernel, stride, padding, dilation, rng.choice((1, 2))))
            channels = 4
        elif kind == "depthwise":
            layers.append(nn.Conv2d(channels, channels, kernel, stride, padding, dilation, channels))
        elif kind == "pool":
            pool = rng.choice((nn.MaxPool2d, nn.AvgPool2d))
            layers.append(pool(kernel, stride, padding // 2, ceil_mode=rng.random() < 0.5))
        elif kind == "up":
            layers.append(nn.Upsample(scale_factor=rng.choice((2, 1.5)), mode=rng.choice(("nearest", "bilinear"))))
        elif kind == "transposed":
            layers.append(nn.ConvTranspose2d(channels, 4, kernel, stride, rng.randrange(kernel)))
            channels = 4
        elif kind == "branches":
            how = rng.choice(("add", "cat", "written"))
            one = nn.Conv2d(channels, 4, 3, padding=1)
            other = rng.choice((nn.Conv2d(channels, 4, 1), nn.Conv2d(channels, 4, 5, padding=4, dilation=2)))
            layers.append(Branches(one, other, how))
            channels = 4 if how == "add" else 8
        elif kind == "gate" and rng.random() < 0.3:
            layers.append(Gated(channels))
        elif kind == "shift" and channels > 8:
            layers.append(cs.nn.Shift(channels, stride=stride))
        elif kind == "crop":
            layers.append(Plain(lambda x: x[..., 1:, :-1]))
        elif kind == "norm":
            layers += [nn.BatchNorm2d(channels), nn.Softplus()]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_see_what_changes_them(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    shape = (4, 9, 12)
    for _ in range(100):
        module = drawn(rng, 4, rng.randrange(2, 6)).double().eval()
        try:
            with torch.no_grad():
                out = module(torch.zeros(1, *shape, dtype=torch.float64))
        except RuntimeError:
            continue
        if len(module) and out.numel() and max(out.shape[2:]) < 40:
            break
    assert torch.equal(found(module, shape, at=str(len(module) - 1)), seen(module, shape)), module


# Whole networks and closed formulas


def formula(layers):
    """Size, stride and start from (kernel, stride, padding, dilation) of a chain of layers."""
    size, stride, start = 1, 1, 0
    for kernel, step, padding, dilation in layers:
        start -= padding * stride
        size += dilation * (kernel - 1) * stride
        stride *= step
    return size, stride, start


def vgg16():
    conv, pool = (3, 1, 1, 1), (2, 2, 0, 1)
    return [layer for number in (2, 2, 3, 3, 3) for layer in (*[conv] * number, pool)]


@pytest.mark.parametrize("seed", range(6))
def test_a_chain_has_the_size_of_the_formula(seed):
    rng = random.Random(seed)
    layers = []
    for _ in range(rng.randrange(1, 8)):
        kernel = rng.choice((1, 3, 5, 7))
        layers.append((kernel, rng.choice((1, 1, 2)), rng.randrange(kernel), rng.choice((1, 2))))
    chain = nn.Sequential(*(nn.Conv2d(2, 2, k, s, p, d) for k, s, p, d in layers))
    field = receptive_field(chain, (1, 2, 60, 90))
    size, stride, start = formula(layers)
    assert (field.size, field.stride, field.start) == ((size, size), (stride, stride), (start, start))
    assert not field.sees_everything
    if all(dilation == 1 for *_, dilation in layers):  # otherwise a border may meet a hole
        low = start + stride * 2
        assert field.extent(2, 0)[0] == (max(0, low), min(59, low + size - 1))


def test_vgg16():
    with torch.device("meta"):
        network = torchvision.models.vgg16(weights=None).features
    field = receptive_field(network, (1, 3, 64, 64))
    assert formula(vgg16()) == (212, 32, -90)  # as published, with an effective padding of 90
    assert (field.size, field.stride, field.start) == ((212, 212), (32, 32), (-90, -90))


# Sizes, strides and paddings computed by the authors of "Computing Receptive Fields of Convolutional Neural Networks"
# (Araujo et al., Distill 2019) for TF-Slim's networks, and those widely given for torchvision's, whose stride stands in
# the 3 x 3 convolution. Slim pads at the end of a map only, hence its networks start elsewhere where padding is even.
# The size of the input does not matter; a small one is quick.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "padding"),
    [
        ("resnet50_v1", 483, 241),
        ("resnet101_v1", 1027, 513),
        ("mobilenet_v1", 315, None),
        ("inception_v3", 1311, 618),
        ("inception_v4", 2071, 998),
        ("resnet34", 899, None),
        ("resnet50", 427, None),
    ],
)
def test_published_figures(name, side, padding):
    field = receptive_field(cs.zoo.get(name), (1, 3, 107, 107))
    assert (field.size, field.stride) == ((side, side), (32, 32))
    if padding is not None:
        assert field.start == (-padding, -padding)
    assert not field.assumptions


def test_behind_each_stage():
    field = receptive_field(cs.zoo.get("resnet18"), (1, 3, 64, 64))
    stages = [field.by_module[f"stages.{i}.1"].size[0] for i in range(4)]
    assert stages == [43, 99, 211, 435]  # of ResNet-18, layer by layer: 2 * 3 x 3 at strides 4, 8, 16, 32
    assert field.path == "stages.3.1"
    assert field.by_module["head.pool"].size is None
    assert receptive_field(cs.zoo.get("resnet18"), (1, 3, 64, 64), at="stages.1.1").size == (99, 99)


def test_upsampling_has_a_stride_below_one():
    network = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Upsample(scale_factor=4, mode="bilinear"), nn.Conv2d(1, 1, 3))
    field = receptive_field(network, (1, 1, 32, 32))
    assert field.stride == (0.5, 0.5)
    assert field.size == (7, 7)  # three neighbours read three pixels of the small map at most: 3 + 2 * 2


def test_gates_and_norms_over_the_map_see_everything_and_leave_the_size():
    for extra in (Gated(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), Plain(lambda x: F.layer_norm(x, x.shape[1:]))):
        network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), extra, nn.Conv2d(4, 4, 3, padding=1))
        field = receptive_field(network, (1, 3, 20, 24))
        assert (field.size, field.sees_everything) == ((5, 5), True)
        assert field.extent(0, 0) == ((0, 19), (0, 23))
        assert not field.by_module["0"].sees_everything


@pytest.mark.parametrize(("dim", "whole"), [(2, (True, False)), (3, (False, True))])
def test_what_sees_whole_rows_or_columns_is_told(dim, whole):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Plain(lambda x: x + x.mean(dim, keepdim=True)))
    field = receptive_field(network, (1, 3, 20, 24))
    assert (field.size, field.sees_whole, field.sees_everything) == ((3, 3), whole, False)
    assert field.extent(5, 7) == (((0, 19), (6, 8)) if dim == 2 else ((4, 6), (0, 23)))
    both = receptive_field(nn.Sequential(network, nn.GroupNorm(2, 4)), (1, 3, 20, 24))
    assert (both.sees_whole, both.sees_everything) == ((True, True), True)


def test_a_fixed_input_size_leaves_sizes_unknown_behind_it():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.position = nn.Parameter(torch.zeros(1, 4, 16, 16))
            self.last = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return self.last(self.conv(x) + self.position)

    field = receptive_field(Fixed(), (1, 3, 16, 16))
    assert (field.path, field.size) == ("conv", (3, 3))
    last = receptive_field(Fixed(), (1, 3, 16, 16), at="last")
    assert (last.size, last.extent(8, 8)) == (None, ((6, 10), (6, 10)))
    assert last.reason == "the network takes no larger input"


class Attending(nn.Module):
    """A 3 x 3 convolution, and self-attention over all places behind it."""

    def __init__(self, *, layer=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.layer = nn.MultiheadAttention(8, 2, batch_first=True) if layer else None

    def forward(self, x):
        y = self.conv(x)
        z = y.flatten(2).transpose(1, 2)
        z = self.layer(z, z, z)[0] if self.layer else (z @ z.transpose(1, 2)).softmax(-1) @ z
        return z.transpose(1, 2).reshape(y.shape)


@pytest.mark.parametrize("layer", [False, True])
def test_attention_behind_the_last_map_with_a_size_is_told(layer):
    field = receptive_field(Attending(layer=layer), (1, 3, 12, 12))
    assert (field.path, field.size, field.sees_everything, field.reason) == ("conv", (3, 3), False, "")
    assert field.whole_behind == ("layer" if layer else "")
    root = field.by_module[""]
    assert (root.size, root.sees_everything) == (None, True)
    assert "too much memory" in root.reason
    assert receptive_field(Attending(), (1, 3, 12, 12), at="").whole_behind is None
    pooled = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    assert receptive_field(pooled, (1, 3, 12, 12)).whole_behind is None


def test_the_weights_of_attention_are_not_computed_for_large_inputs(monkeypatch):
    sizes, new = [], Reach._new

    def noted(self, func, result):
        sizes.extend(each.numel() for each in tensors_in((result,)) if self.local)
        return new(self, func, result)

    monkeypatch.setattr(Reach, "_new", noted)
    receptive_field(Attending(), (1, 3, 12, 12))
    assert max(sizes) <= 1 << 24  # of 8192 pixels it would be 2 * 8192 ** 2


# What is assumed is told


def test_a_deformable_convolution_is_taken_at_its_grid():
    conv = cs.nn.DeformableConv2d(4, 4)
    field = receptive_field(conv, (1, 4, 16, 16))
    assert field.size == (3, 3)
    assert list(field.assumptions) == ["torchvision::deform_conv2d"]
    assert "reads where its offsets say" in field.assumptions["torchvision::deform_conv2d"]
    wide = cs.nn.DeformableConv2d(4, 4, kernel_size=3)
    wide.offset = nn.Conv2d(4, 18, 7, padding=3)
    assert receptive_field(wide, (1, 4, 16, 16)).size == (7, 7)
    zero = cs.nn.DeformableConv2d(4, 4).double()
    assert torch.equal(found(zero, (4, 9, 9)), seen(nn.Conv2d(4, 4, 3, padding=1).double(), (4, 9, 9)))


def test_an_operator_without_a_rule_sees_everything():
    network = nn.Sequential(nn.Conv2d(1, 1, 3), Plain(lambda x: torch.fft.rfft2(x).real), nn.Conv2d(1, 1, 3))
    field = receptive_field(network, (1, 1, 16, 16), at="2")
    assert field.extent(0, 0) == ((0, 15), (0, 15))
    assert field.assumptions["fft_r2c"].startswith("has no rule")


def test_an_operator_that_is_not_followed_is_told_with_its_module():
    class Fourier(nn.Module):
        def forward(self, x):
            return torch.fft.ifft2(torch.fft.fft2(x)).real

    network = nn.Sequential(nn.Conv2d(3, 3, 3), Fourier())
    message = (
        r"cannot be followed through torch\.fft\.fft2 in 1 Fourier\(\) \(.*though the network takes this input; ask"
    )
    with pytest.raises(ValueError, match=message):
        receptive_field(network, (1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"of 3 channels got 4; give an input"):
        receptive_field(network, (1, 4, 8, 8))


def test_frozen_zeros_are_nothing_and_trained_ones_are_not():
    conv = nn.Conv2d(1, 1, 5, padding=2, bias=False)
    nn.init.zeros_(conv.weight)
    conv.weight.data[..., 1:4, 2] = 1
    assert receptive_field(conv, (1, 1, 9, 9)).size == (5, 5)
    conv.weight.requires_grad_(False)
    assert receptive_field(conv, (1, 1, 9, 9)).size == (3, 1)
    with torch.device("meta"):
        frozen = nn.Conv2d(1, 1, 5).requires_grad_(False)
    with pytest.raises(ValueError, match="reads the zeros of constants; build the module off the meta device"):
        receptive_field(frozen, (1, 1, 9, 9))


def test_half_precision_counts_pixels_too():
    network = nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))).bfloat16()
    assert receptive_field(network, (1, 2, 400, 300)).extent(390, 290) == ((387, 393), (287, 293))


# The effective field


def test_the_gradient_of_one_average_is_even():
    field = receptive_field(nn.AvgPool2d(5, 1, 2), (1, 1, 21, 21), effective=True, share=1.0)
    assert field.effective.size == field.size == (5, 5)
    inside = field.effective.influence[8:13, 8:13]
    assert torch.allclose(inside, torch.full((5, 5), 1 / 25, dtype=torch.float64))
    assert float(field.effective.influence.sum()) == pytest.approx(1)


def test_the_effective_field_grows_with_the_root_of_depth():
    """Luo et al. 2016, Sec. 2: n uniform k x k kernels give a Gaussian of deviation sqrt(n (k^2 - 1) / 12)."""
    for depth in (4, 16):
        layers = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(depth)]
        for layer in layers:
            nn.init.constant_(layer.weight, 1 / 9)
        field = receptive_field(nn.Sequential(*layers), (1, 1, 65, 65), effective=True)
        rows = field.effective.influence.sum(1)
        variance = float((rows * (torch.arange(65) - 32) ** 2).sum())
        assert variance == pytest.approx(depth * 8 / 12)
        assert field.size == (2 * depth + 1,) * 2
        assert field.effective.size[0] < field.size[0]


def test_what_does_not_react_has_no_effective_field():
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 1))
    nn.init.zeros_(network[1].weight)
    field = receptive_field(network, (1, 1, 9, 9), effective=True)
    assert (field.effective.size, field.size) == ((0, 0), (3, 3))


# Wrong use, and nothing is touched


def test_wrong_use():
    with pytest.raises(ValueError, match=r"an input shape is \(N, C, H, W\) in positive integers, got \(3, 8, 8\)"):
        receptive_field(nn.Conv2d(3, 4, 1), (3, 8, 8))
    with pytest.raises(ValueError, match="no module of this network returns one"):
        receptive_field(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (1, 3, 2, 2))
    with pytest.raises(ValueError, match="no map comes out of 'nowhere'"):
        receptive_field(nn.Sequential(nn.Conv2d(3, 4, 1)), (1, 3, 8, 8), at="nowhere")
    with pytest.raises(ValueError, match="decides by values of a map"):
        receptive_field(Plain(lambda x: x if x.sum() > 0 else -x), (1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"share must be above 0 and at most 1, got 1\.5"):
        receptive_field(nn.Conv2d(3, 4, 1), (1, 3, 8, 8), effective=True, share=1.5)
    with pytest.raises(ValueError, match="a convolution of 3 channels got 4"):
        receptive_field(nn.Conv2d(3, 4, 1), (1, 4, 8, 8))


@pytest.mark.parametrize("training", [True, False])
def test_the_module_is_untouched(training):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.register_buffer("mean", torch.zeros(4))
            self.maps = []

        def forward(self, x):
            x = self.norm(self.conv(x))
            self.mean.mul_(0.9).add_(x.mean((0, 2, 3)), alpha=0.1)
            self.maps.append(x)
            return x.relu_()

    network = Counting().train(training)
    before = state(network)
    assert receptive_field(network, (1, 3, 9, 9), effective=True).size == (3, 3)
    assert state(network) == before
