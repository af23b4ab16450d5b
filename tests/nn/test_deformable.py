import itertools
import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import DeformConv2d

import convsmith as cs
from convsmith.nn import DeformableBottleneck, DeformableConv2d

GEOMETRIES = [
    {},
    {"stride": 2, "groups": 2, "dilation": 2, "offset_groups": 4},
    {"kernel_size": 5, "padding": 0, "offset_groups": 2},
    {"kernel_size": 2, "stride": 2, "groups": 2, "padding": 1},
]


def layer(*, offsets=0.0, **arguments):
    """4 to 6 channels in float64, with a bias; `offsets` is the scale of the offset convolution's parameters."""
    torch.manual_seed(0)
    module = DeformableConv2d(4, 6, **arguments).double()
    with torch.no_grad():
        module.bias.normal_()
        for parameter in module.offset.parameters():
            parameter.normal_(std=offsets)
    return module


def maps(height=7, width=6):
    return torch.randn(2, 4, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def read(image, row, column):
    """The bilinear value of an (H, W) image, which is 0 outside."""
    value, top, left = 0.0, math.floor(row), math.floor(column)
    for i, j in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
            value += (1 - abs(row - i)) * (1 - abs(column - j)) * image[i, j].item()
    return value


def by_loops(module, x, offsets):
    """Eq. 2 of the paper, tap by tap at every place of the output."""
    out_channels, in_channels, k, _ = module.weight.shape
    groups = x.shape[1] // in_channels
    offset_groups = offsets.shape[1] // (2 * k * k)
    y = module.bias.detach()[:, None, None].expand(len(x), -1, *offsets.shape[2:]).clone()
    for n, o, i, j in itertools.product(*map(range, y.shape)):
        for c, a, b in itertools.product(range(in_channels), range(k), range(k)):
            source = o // (out_channels // groups) * in_channels + c
            first = 2 * (source // (x.shape[1] // offset_groups) * k * k + a * k + b)
            move_row, move_column = offsets[n, first : first + 2, i, j].tolist()
            row = i * module.stride - module.padding + a * module.dilation + move_row
            column = j * module.stride - module.padding + b * module.dilation + move_column
            y[n, o, i, j] += module.weight[o, c, a, b].detach() * read(x[n, source], row, column)
    return y


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_at_first_it_is_the_ordinary_convolution(geometry):
    torch.manual_seed(0)
    module, x = DeformableConv2d(4, 6, **geometry).double(), maps()
    k, dilation = geometry.get("kernel_size", 3), geometry.get("dilation", 1)
    expected = F.conv2d(
        x,
        module.weight,
        stride=geometry.get("stride", 1),
        padding=geometry.get("padding", k // 2 * dilation),
        dilation=dilation,
        groups=geometry.get("groups", 1),
    )
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_it_is_the_formula(geometry):
    module, x = layer(offsets=0.3, **geometry), maps()
    weight, bias = module.offset.weight, module.offset.bias
    offsets = F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation)
    assert offsets.abs().max() > 1.5
    torch.testing.assert_close(module(x), by_loops(module, x, offsets))


def test_it_is_torchvisions_layer_and_takes_given_offsets():
    theirs = DeformConv2d(4, 6, 3, stride=2, padding=1, groups=2).double()
    ours = DeformableConv2d(4, 6, stride=2, groups=2, offset_groups=2).double()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    x, offsets = maps(), torch.randn(2, 36, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(ours(x, offsets), theirs(x, offsets), rtol=0, atol=1e-12)


def test_gradients():
    torch.manual_seed(0)
    module = DeformableConv2d(2, 2, stride=2, offset_groups=2).double()
    with torch.no_grad():
        module.offset.weight.normal_(std=0.02)
        module.offset.bias.copy_(torch.randint(-1, 2, (36,)) + 0.5)  # away from the kinks
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in module.named_parameters()]

    def forward(x, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, (x, *module.parameters()))


def test_offsets_start_at_zero_in_every_network_and_learn():
    block = cs.spec(DeformableConv2d, 6, norm=cs.spec(cs.nn.BatchNorm), act="relu")
    network = cs.network.build(cs.Architecture(stages=[[block]], in_channels=4))
    module = network.stages[0][0]
    assert not any(parameter.any() for parameter in module.offset.parameters())
    assert module.weight.std().item() == pytest.approx(math.sqrt(2 / (6 * 9)), rel=0.2)
    network.features(torch.randn(2, 4, 8, 8))[0].square().sum().backward()
    assert all(parameter.grad.any() for parameter in module.offset.parameters())


def test_it_learns_where_to_look():
    # The target is the input moved by (1, -1): out of reach of a 1 x 1 convolution, but not of its offsets.
    torch.manual_seed(0)
    x = F.avg_pool2d(torch.randn(4, 2, 16, 16), 5, stride=1, padding=2)
    target = F.pad(x, (1, 0, 0, 1))[:, :, 1:, :-1]
    module = DeformableConv2d(2, 2, kernel_size=1)
    with torch.no_grad():
        module.weight.copy_(torch.eye(2)[..., None, None])
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(module(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 * losses[0]
    offsets = module.offset(x).mean((0, 2, 3))
    assert offsets[0] > 0.6
    assert offsets[1] < -0.6


def test_an_exported_program_takes_other_sizes():
    module = layer(offsets=0.1, stride=2, offset_groups=2).eval()
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
    program = torch.export.export(module, (maps(),), dynamic_shapes={"x": sizes}, strict=True).module()
    for x in (maps()[:1], maps(12, 9)):
        torch.testing.assert_close(program(x), module(x))


def test_the_cost_has_no_sampling():
    module = DeformableConv2d(8, 6, stride=2, groups=2, offset_groups=4)
    cost = cs.measure.cost(module, (2, 8, 12, 10))
    places = 2 * 6 * 5
    assert cost.macs == places * (72 * 8 * 9 + 6 * (8 // 2) * 9)
    assert cost.by_operator["deform_conv2d"].macs == places * 6 * (8 // 2) * 9
    assert cost.activations == places * (72 + 6)
    assert cost.params == 72 * 8 * 9 + 72 + 6 * 4 * 9 + 6
    assert not cost.uncounted


@pytest.mark.slow
def test_it_runs_in_onnx_runtime(tmp_path):
    pytest.importorskip("onnxruntime")
    module = layer(offsets=0.1, stride=2, offset_groups=2).float().eval()
    assert cs.deploy.export(module, tmp_path / "deformable.onnx", maps().float()).largest_difference < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 3}, "in_channels must be divisible by groups, got in_channels=4 and groups=3"),
        ({"groups": 4}, "out_channels must be divisible by groups, got out_channels=6 and groups=4"),
        ({"offset_groups": 3}, "in_channels must be divisible by offset_groups, got in_channels=4 and offset_groups=3"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        DeformableConv2d(4, 6, **arguments)


def test_it_runs_in_bfloat16_and_under_autocast():
    module, x = layer(offsets=0.1, offset_groups=2).float(), maps().float()
    expected = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
    y.float().sum().backward()
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
    y = module.bfloat16()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)


def test_wrong_offset_channels_are_refused():
    module = layer(offset_groups=2)
    with pytest.raises(ValueError, match=r"2 \* kernel_size \*\* 2 \* offset_groups channels.* here 36, got 18"):
        module(maps(), torch.zeros(2, 18, 7, 6, dtype=torch.float64))


@pytest.mark.parametrize(
    "block", [DeformableConv2d(4, 6), DeformableBottleneck(16, 16)], ids=lambda b: type(b).__name__
)
def test_a_channels_last_map_stays_so(block):
    x = torch.randn(2, 4 if isinstance(block, DeformableConv2d) else 16, 6, 5)
    y = block.eval()(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, block(x))
