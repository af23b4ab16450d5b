import pytest
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import convsmith as cs
from convsmith.nn import GroupNorm, LayerNorm
from convsmith.nn.group_norm import SMALL, _normalise_rows, group_norm

CHANNELS_LAST = torch.channels_last
# Channels, groups and positions of each path: torch's or our own forward and backward pass.
PATHS = [(12, 1, 30), (12, 3, 30), (12, 12, 30), (32, 2, 30), (12, 6, SMALL), (6, 6, SMALL)]


def maps(channels, positions, *, dtype=torch.float64, last=True):
    x = torch.randn(2, channels, 2, positions // 2, dtype=dtype)
    return x.to(memory_format=CHANNELS_LAST if last else torch.contiguous_format).requires_grad_()


def randomised(norm):
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def by_formula(x, groups, weight, bias, eps):
    """Image by image and group by group."""
    y = torch.empty_like(x)
    width = x.shape[1] // groups
    for n in range(x.shape[0]):
        for start in range(0, x.shape[1], width):
            values = x[n, start : start + width]
            mean = values.sum() / values.numel()
            variance = ((values - mean) ** 2).sum() / values.numel()
            for c in range(start, start + width):
                y[n, c] = (x[n, c] - mean) / (variance + eps) ** 0.5 * weight[c] + bias[c]
    return y


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(("channels", "groups", "positions"), PATHS)
def test_group_norm_equals_its_formula(channels, groups, positions, last):
    norm = randomised(GroupNorm(channels, groups=groups, eps=1e-2).double())
    x = maps(channels, positions, last=last)
    expected = by_formula(x.detach(), groups, norm.weight, norm.bias, 1e-2)
    torch.testing.assert_close(norm(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(("channels", "groups", "positions"), PATHS)
def test_gradients_are_torchs(channels, groups, positions):
    norm = randomised(GroupNorm(channels, groups=groups).double())
    x = maps(channels, positions)
    dy = torch.randn_like(x)
    inputs = (x, norm.weight, norm.bias)
    found = torch.autograd.grad(norm(x), inputs, dy)
    expected = torch.autograd.grad(F.group_norm(x, groups, norm.weight, norm.bias), inputs, dy)
    torch.testing.assert_close(found, expected)
    # A gradient may come in the other layout, from a flattened map for one.
    torch.testing.assert_close(torch.autograd.grad(norm(x), inputs, dy.contiguous()), expected)


@pytest.mark.parametrize(("channels", "groups", "positions"), PATHS)
def test_what_follows_may_work_in_place(channels, groups, positions):
    norm, x = randomised(GroupNorm(channels, groups=groups).double()), maps(channels, positions)
    inputs, dy = (x, norm.weight, norm.bias), torch.randn_like(x)
    expected = (F.group_norm(x, groups, norm.weight, norm.bias) + x.detach()).relu()
    y = norm(x)
    y += x.detach()
    y.relu_()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, inputs, dy))


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (4, 2), (4, 4)])
def test_first_and_second_derivative(channels, groups):
    x = maps(channels, 6)
    weight, bias = (torch.randn(channels, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def function(x, weight, bias):
        return group_norm(x, groups, weight, bias, 1e-2)

    assert torch.autograd.gradcheck(function, (x, weight, bias))
    assert torch.autograd.gradgradcheck(function, (x, weight, bias))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch itself, where tangents are first used
def test_differentiation_in_forward_mode_keeps_tangents():
    norm, x = GroupNorm(8, groups=4), torch.randn(2, 8, 5, 5).contiguous(memory_format=torch.channels_last)
    tangent = torch.randn_like(x)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(norm(forward_ad.make_dual(x, tangent))).tangent
    torch.testing.assert_close(found, torch.func.jvp(norm, (x,), (tangent,))[1])


def test_transforms_of_functions_take_torchs_operator():
    x, norm = torch.randn(2, 16, 5, 5).to(memory_format=torch.channels_last), GroupNorm(16, groups=4)

    def loss(own):
        return norm(own).square().mul(x).sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(x), expected)
    each = torch.func.vmap(torch.func.grad(lambda own: norm(own[None]).square().sum()))(x)
    (expected,) = torch.autograd.grad(norm(leaf).square().sum(), leaf)
    torch.testing.assert_close(each, expected)
    maps = torch.stack((x, 2 * x))
    expected = torch.stack([norm(own) for own in maps])
    torch.testing.assert_close(torch.func.vmap(norm)(maps), expected)


@pytest.mark.parametrize(("channels", "groups", "positions"), PATHS)
def test_channels_last_stays_and_no_map_is_copied(channels, groups, positions):
    norm = GroupNorm(channels, groups=groups)
    x = maps(channels, positions, dtype=torch.float32)
    dy = torch.randn_like(x)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as profiled:
        y = norm(x)
        (dx,) = torch.autograd.grad(y, x, dy)
    assert y.is_contiguous(memory_format=CHANNELS_LAST)
    assert dx.is_contiguous(memory_format=CHANNELS_LAST)
    copies = ("aten::copy_", "aten::contiguous", "aten::clone", "aten::_to_copy")
    copied = [
        (event.name, shape)
        for event in profiled.events()
        for shape in event.input_shapes
        if event.name in copies and torch.Size(shape).numel() == x.numel()
    ]
    assert copied == []
    # The check sees what it should: a change of layout is a copy.
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as profiled:
        F.group_norm(x.contiguous(), groups)
    assert any(event.name in copies for event in profiled.events())


def test_torchs_own_operator_serves_where_it_is_quick():
    def operator(channels, groups, last=True):
        y = GroupNorm(channels, groups=groups)(maps(channels, 30, dtype=torch.float32, last=last))
        return y.grad_fn.name()

    assert operator(32, 8) == "_ChannelsLastBackward"
    assert {operator(32, 4), operator(32, 1), operator(32, 8, last=False)} == {"NativeGroupNormBackward0"}


@pytest.mark.parametrize("groups", [1, 3, 12])
def test_the_forward_pass_for_other_devices_is_the_same(groups):
    norm, x = randomised(GroupNorm(12, groups=groups).double()), maps(12, 30)
    found, mean, rstd = _normalise_rows(x, norm.weight, norm.bias, groups, norm.eps)
    expected = torch.native_group_norm(x, norm.weight, norm.bias, 2, 12, 30, groups, norm.eps)
    torch.testing.assert_close((found, mean, rstd), expected)
    assert found.is_contiguous(memory_format=CHANNELS_LAST)


@pytest.mark.parametrize(("channels", "groups", "positions"), [(12, 6, 30), (12, 6, SMALL)])
def test_half_precision_is_summed_in_float32(channels, groups, positions):
    norm, x = GroupNorm(channels, groups=groups), maps(channels, positions, dtype=torch.float32)
    low, dy = x.detach().bfloat16().requires_grad_(), torch.randn_like(x)
    y = norm.bfloat16()(low)
    (dx,) = torch.autograd.grad(y, low, dy.bfloat16())
    exact = F.group_norm(low.detach().float().requires_grad_(), groups)
    assert y.dtype == dx.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=2**-7, atol=2**-7)
    (expected,) = torch.autograd.grad(F.group_norm(x, groups), x, dy)
    torch.testing.assert_close(dx.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "groups", "positions"), [*PATHS, (32, 2, SMALL), (32, 1, SMALL)])
def test_a_large_mean_does_not_cancel(channels, groups, positions, training):
    norm = randomised(GroupNorm(channels, groups=groups))
    x = (maps(channels, positions, dtype=torch.float32) + 1e3).detach().requires_grad_(training)
    with torch.set_grad_enabled(training):
        found = norm(x)
    exact = F.group_norm(x.double(), groups, norm.weight.double(), norm.bias.double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-3)
    assert found.is_contiguous(memory_format=CHANNELS_LAST)
    if training:
        dy = torch.randn_like(x)
        (dx,), (expected,) = (torch.autograd.grad(y, x, dy.to(y.dtype)) for y in (found, exact))
        torch.testing.assert_close(dx, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("channels", "groups", "positions"), PATHS)
def test_maps_without_values_are_normalised_too(channels, groups, positions):
    with FakeTensorMode():
        x = torch.empty(2, channels, 2, positions // 2).to(memory_format=CHANNELS_LAST)
        y = GroupNorm(channels, groups=groups)(x)
    assert y.shape == x.shape


def test_layer_norm_is_over_all_values_of_an_image():
    norm = randomised(LayerNorm(6, eps=1e-3).double())
    x = maps(6, 20)
    values = F.layer_norm(x, x.shape[1:], eps=1e-3)  # torch's affine part would be per position
    torch.testing.assert_close(norm(x), values * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1))
    torch.testing.assert_close(norm(x), F.group_norm(x, 1, norm.weight, norm.bias, 1e-3))
    assert norm.weight.shape == (6,)
    assert cs.spec(LayerNorm).block == "layer_norm"


@pytest.mark.parametrize("training", [True, False])
def test_it_is_one_node_for_fx_and_one_operator_for_export(training):
    norm, x = GroupNorm(8, groups=4).train(training), maps(8, 20, dtype=torch.float32)
    traced = fx.symbolic_trace(norm)
    assert [node.target for node in traced.graph.find_nodes(op="call_function", target=group_norm)] == [group_norm]
    program = torch.export.export(norm, (x.detach(),), strict=True)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called == ["aten.group_norm.default"]
    compiled = torch.compile(norm, backend="eager", fullgraph=True)
    for module in (traced, program.module(), compiled):
        torch.testing.assert_close(module(x), norm(x))


@pytest.mark.parametrize(("channels", "groups", "remedy"), [(24, 32, 12), (20, 8, 5), (7, 32, 1), (8, 0, 1), (1, 2, 1)])
def test_channels_that_groups_do_not_divide(channels, groups, remedy):
    with pytest.raises(ValueError, match=rf"divisible by groups, got .*{channels} and groups={groups}; .*={remedy}$"):
        GroupNorm(channels, groups=groups)


@pytest.mark.parametrize("images", [1, 3])
def test_one_value_per_group_is_an_error_for_any_batch(images):
    with pytest.raises(ValueError, match=r"more than one value per group, got maps of shape \(8, 1, 1\) with groups=8"):
        GroupNorm(8, groups=8).eval()(torch.randn(images, 8, 1, 1))
    assert GroupNorm(8, groups=4)(torch.randn(images, 8, 1, 1)).shape == (images, 8, 1, 1)


def test_a_map_that_is_no_batch_of_images_is_torchs():
    norm, x = GroupNorm(8, groups=4), torch.randn(3, 8, 5)
    for rows in (x, x[:, :, 0]):
        assert torch.equal(norm(rows), F.group_norm(rows, 4, norm.weight, norm.bias))


@pytest.mark.gpu
@pytest.mark.parametrize("groups", [1, 4, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_channels_last_stays_on_cuda(groups, dtype):
    norm = randomised(GroupNorm(16, groups=groups)).cuda()
    x = torch.randn(4, 16, 9, 7, device="cuda", dtype=dtype).to(memory_format=CHANNELS_LAST).requires_grad_()
    with torch.autocast("cuda", enabled=dtype is torch.float16):
        y = norm(x)
        expected = F.group_norm(x.contiguous(), groups, norm.weight, norm.bias)
    assert y.dtype == expected.dtype
    assert y.is_contiguous(memory_format=CHANNELS_LAST)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4, check_stride=False)
    dy = torch.randn_like(y)
    found = torch.autograd.grad(y, (x, norm.weight, norm.bias), dy)
    wanted = torch.autograd.grad(expected, (x, norm.weight, norm.bias), dy)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3, check_stride=False)
    assert found[0].is_contiguous(memory_format=CHANNELS_LAST)
