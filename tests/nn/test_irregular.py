import copy
import itertools
import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

import convsmith as cs
from convsmith.nn import IrregularConv2d, irregular

SHARES = ("layer", "filter", "channel")
GEOMETRIES = [
    {},
    {"stride": 2, "groups": 2, "dilation": 2},
    {"kernel_size": 5, "stride": 3, "padding": 0},
    {"kernel_size": 1, "padding": 2, "groups": 2},
]
# How far taps go from the grid: the near ones make one larger kernel, the far ones a map of samples.
NEAR, FAR = 0.8, 6.0


def layer(seed=0, *, moved=0.0, **arguments):
    """4 to 6 channels in float64, with a bias, the taps moved by up to `moved` pixels."""
    torch.manual_seed(seed)
    module = IrregularConv2d(4, 6, **arguments).double()
    with torch.no_grad():
        module.positions += moved * (2 * torch.rand_like(module.positions) - 1)
        module.bias.normal_()
    return module


def maps(height=9, width=8):
    return torch.randn(2, 4, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def read(image, row, column):
    """The bilinear value of an (H, W) image, which is 0 outside."""
    value, top, left = 0.0, math.floor(row), math.floor(column)
    for i, j in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
            value += (1 - abs(row - i)) * (1 - abs(column - j)) * image[i, j].item()
    return value


def by_loops(module, x):
    """The sum over input channels and taps at every place of the output."""
    out_channels, in_channels, k, _ = module.weight.shape
    middle = module.dilation * (k // 2) - module.padding  # where the first output's middle tap lies
    sizes = [(size + 2 * module.padding - module.dilation * (k - 1) - 1) // module.stride + 1 for size in x.shape[2:]]
    y = module.bias.detach()[:, None, None].expand(len(x), -1, *sizes).clone()
    for n, o, i, j in itertools.product(*map(range, y.shape)):
        group = o // (out_channels // module.groups)
        for c, t in itertools.product(range(in_channels), range(k * k)):
            source = group * in_channels + c
            own = {"layer": (), "filter": (o,), "channel": (source,)}[module.share]
            row, column = module.positions[(*own, t)].tolist()
            value = read(x[n, source], module.stride * i + middle + row, module.stride * j + middle + column)
            y[n, o, i, j] += module.weight[o, c, t // k, t % k].detach() * value
    return y


def kernel_sizes(monkeypatch):
    """The kernel sizes of the convolutions that follow."""
    sizes, conv2d = [], F.conv2d

    def counting(x, weight, *rest, **named):
        sizes.append(tuple(weight.shape[2:]))
        return conv2d(x, weight, *rest, **named)

    monkeypatch.setattr(F, "conv2d", counting)
    return sizes


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("share", SHARES)
def test_on_the_regular_grid_it_is_the_ordinary_convolution(share, geometry):
    module, x = layer(share=share, **geometry), maps()
    expected = F.conv2d(x, module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dilation", [2, 3, 7])
@pytest.mark.parametrize("share", SHARES)
def test_with_its_positions_stretched_it_is_the_dilated_convolution(share, dilation):
    module, x = layer(share=share), maps(15, 17)
    with torch.no_grad():
        module.positions *= dilation
    expected = F.conv2d(x, module.weight, module.bias, padding=dilation, dilation=dilation)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


def test_taps_on_any_pixels_make_the_kernel_that_has_their_weights_there():
    module, x = layer(), maps()
    places = torch.tensor([(-2, 1), (0, 0), (2, 2), (1, -2), (0, 0), (-1, -1), (2, 0), (0, 1), (-2, -2)])
    kernel = torch.zeros(6, 4, 5, 5, dtype=torch.float64)
    for (row, column), weight in zip(places + 2, module.weight.detach().flatten(2).unbind(2), strict=True):
        kernel[:, :, row, column] += weight
    with torch.no_grad():
        module.positions.copy_(places)
    torch.testing.assert_close(module(x), F.conv2d(x, kernel, module.bias, padding=2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("moved", [NEAR, FAR])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("share", SHARES)
def test_it_is_the_formula(share, geometry, moved):
    module, x = layer(share=share, moved=moved, **geometry), maps(6, 7)
    expected = by_loops(module, x)
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module.as_conv()(x), expected)


@pytest.mark.parametrize(
    ("moved", "width", "kernels"), [(0, 6, [(5, 5)]), (NEAR, 6, [(5, 5)]), (FAR, 6, [(1, 1)]), (NEAR, 128, [(1, 1)])]
)
def test_near_taps_make_one_kernel_and_those_of_far_or_wide_layers_are_sampled(monkeypatch, moved, width, kernels):
    module = IrregularConv2d(4, width)
    with torch.no_grad():
        module.positions += moved * torch.linspace(-1, 1, 18).view(9, 2)
    sizes = kernel_sizes(monkeypatch)
    module(maps().float())
    assert sizes == kernels


@pytest.mark.parametrize("share", ["layer", "filter", "channel"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_half_precision_reads_the_right_places(share, dtype, tolerance):
    module = IrregularConv2d(4, 8, share=share)
    with torch.no_grad():
        module.positions += 0.5 * torch.rand_like(module.positions) - 0.25
    module, x = module.to(dtype), torch.randn(1, 4, 112, 112, dtype=dtype)
    expected = copy.deepcopy(module).double()(x.double())
    found = irregular._sampled(x, module.weight, module.positions, module.bias, module.form)
    assert found.dtype == dtype
    assert (found.double() - expected).norm() < tolerance * expected.norm()


def test_without_gradients_the_kernel_is_no_larger_than_its_taps(monkeypatch):
    module = layer()
    sizes = kernel_sizes(monkeypatch)
    with torch.inference_mode():
        module(maps())
    assert sizes == [(3, 3)]


@pytest.mark.parametrize(("share", "offset_groups"), [("layer", 1), ("channel", 4)])
@pytest.mark.parametrize("moved", [0, NEAR, FAR])
def test_it_is_a_deformable_convolution_with_the_same_offsets_everywhere(share, offset_groups, moved):
    # In its gradients too; on the grid, where the derivative is one-sided, both take the same side.
    module, x = layer(share=share, moved=moved, stride=2), maps(11, 10)
    grid = layer(share=share).positions.detach()
    twin = layer(share=share, moved=moved, stride=2)
    offsets = (twin.positions - grid).reshape(1, -1, 1, 1).expand(2, -1, 6, 5)
    assert offsets.shape[1] == 2 * 9 * offset_groups
    y = deform_conv2d(x, offsets, twin.weight, twin.bias, stride=2, padding=1)
    torch.testing.assert_close(module(x), y)
    weights = torch.randn_like(y)
    (module(x) * weights).sum().backward()
    (y * weights).sum().backward()
    for (name, ours), (_, theirs) in zip(module.named_parameters(), twin.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


@pytest.mark.parametrize("moved", [NEAR, FAR])
@pytest.mark.parametrize("share", SHARES)
def test_an_empty_batch_can_be_trained(share, moved):
    module, x = layer(share=share, moved=moved, stride=2), maps()[:0].requires_grad_()
    y = module(x)
    assert y.shape == (0, 6, 5, 4)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert not any(p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("moved", [NEAR, FAR])
@pytest.mark.parametrize("share", SHARES)
def test_gradients(share, moved):
    torch.manual_seed(0)
    module = IrregularConv2d(2, 2, share=share, stride=2).double()
    with torch.no_grad():
        whole = (moved * (2 * torch.rand_like(module.positions) - 1)).floor()
        module.positions += whole + 0.2 + 0.6 * torch.rand_like(whole)  # away from the kinks
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)

    def forward(x, positions, weight, bias):
        given = {"positions": positions, "weight": weight, "bias": bias}
        return torch.func.functional_call(module, given, (x,))

    assert torch.autograd.gradcheck(forward, (x, module.positions, module.weight, module.bias))


@pytest.mark.parametrize("share", SHARES)
def test_positions_move_to_where_the_data_were_made(share):
    torch.manual_seed(0)
    teacher, pupil = IrregularConv2d(2, 3, share=share), IrregularConv2d(2, 3, share=share)
    with torch.no_grad():
        teacher.positions += torch.randn_like(teacher.positions).clamp(-0.7, 0.7)
        pupil.weight.copy_(teacher.weight)
    pupil.weight.requires_grad_(False)
    x = F.avg_pool2d(torch.randn(4, 2, 22, 22), 3, stride=1)  # smooth, as maps are
    target = teacher(x).detach()
    start = pupil.positions.detach().clone()
    optimizer = torch.optim.Adam([pupil.positions, pupil.bias], lr=0.05)
    losses = []
    for _ in range(150):
        loss = F.mse_loss(pupil(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    before, after = ((p - teacher.positions).abs().mean().item() for p in (start, pupil.positions))
    assert after < 0.8 * before


def test_positions_start_on_the_grid_in_every_network():
    grid = [[2.0 * i, 2.0 * j] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    for share, sets in (("layer", ()), ("filter", (6,)), ("channel", (4,))):
        block = cs.spec(IrregularConv2d, 6, share=share, dilation=2)
        network = cs.network.build(cs.Architecture(stages=[[block]], in_channels=4))
        positions = network.stages[0][0].positions
        assert positions.shape == (*sets, 9, 2)
        assert (positions == torch.tensor(grid)).all()


@pytest.mark.parametrize("share", SHARES)
def test_an_exported_program_takes_other_sizes(share):
    module = layer(share=share, moved=NEAR, stride=2).eval()
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
    program = torch.export.export(module, (maps(),), dynamic_shapes=(sizes,), strict=True).module()
    for x in (maps()[:1], maps(12, 7)):
        torch.testing.assert_close(program(x), module(x))


def test_as_conv_is_a_plain_layer_of_its_own():
    module, x = layer(moved=NEAR, groups=2, stride=2), maps()
    conv = module.as_conv()
    assert type(conv) is torch.nn.Conv2d
    before = conv(x)
    with torch.no_grad():
        module.positions.zero_()
        module.bias.zero_()
    assert torch.equal(conv(x), before)
    assert IrregularConv2d(4, 6, norm=cs.spec(cs.nn.BatchNorm)).as_conv().bias is None


def test_a_diverged_layer_gives_no_number_instead_of_failing():
    module = layer()
    with torch.no_grad():
        module.bias.fill_(math.nan)
        module.positions[0] = math.nan
    assert module(maps()).isnan().all()


@pytest.mark.parametrize("share", SHARES)
def test_the_cost_is_that_of_the_taps(share):
    module = IrregularConv2d(8, 6, kernel_size=5, share=share, groups=2, stride=2)
    cost = cs.measure.cost(module, (2, 8, 12, 10))
    assert cost.macs == 2 * (6 * 5) * 6 * (8 // 2) * 25
    assert cost.activations == 2 * 6 * (6 * 5)
    assert cost.params == 6 * 4 * 25 + 6 + 50 * {"layer": 1, "filter": 6, "channel": 8}[share]
    assert not cost.uncounted


@pytest.mark.slow
@pytest.mark.parametrize("share", SHARES)
def test_it_runs_in_onnx_runtime(share, tmp_path):
    pytest.importorskip("onnxruntime")
    module = layer(share=share, moved=NEAR, stride=2).float().eval()
    assert cs.deploy.export(module, tmp_path / "irregular.onnx", maps().float()).largest_difference < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd, got kernel_size=4"),
        ({"share": "pixel"}, "share must be one of 'layer', 'filter', 'channel', got 'pixel'"),
        ({"groups": 3}, "in_channels must be divisible by groups, got in_channels=4 and groups=3"),
        ({"groups": 4}, "out_channels must be divisible by groups, got out_channels=6 and groups=4"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        IrregularConv2d(4, 6, **arguments)
