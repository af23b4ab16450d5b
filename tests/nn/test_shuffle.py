from itertools import product

import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import ChannelShuffle, ShuffleUnitV1, ShuffleUnitV2, native
from tests.nn.operators import called, needs_a_compiler

ROWS, LAST = torch.contiguous_format, torch.channels_last


def jittered(module):
    """The module in float64 and eval mode, its norms with statistics and affine parts of their own."""
    module = module.double()
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def maps(channels, size=6):
    return torch.randn(2, channels, size, size, dtype=torch.float64)


def by_formula(unit, x, *, stride=1, dilation=1, relu=True):
    """Convolution and batch normalisation of one ConvNormAct, written out."""
    conv, norm = unit.conv, unit.norm
    y = F.conv2d(x, conv.weight, None, stride, conv.kernel_size[0] // 2 * dilation, dilation, conv.groups)
    shape = (1, -1, 1, 1)
    y = (y - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
    y = y * norm.weight.view(shape) + norm.bias.view(shape)
    return y.clamp(min=0) if relu else y


def shuffled(x, groups):
    """Channels read row by row as a table of `groups` rows, and written column by column."""
    columns = x.shape[1] // groups
    order = [row * columns + column for column in range(columns) for row in range(groups)]
    return x[:, order]


def test_the_shuffle_transposes_groups_and_channels():
    x = torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 3, 4)
    assert ChannelShuffle(6, groups=2)(x)[1, :, 2, 3].tolist() == [0, 3, 1, 4, 2, 5]
    assert ChannelShuffle(6, groups=3)(x)[0, :, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5, 6, 20, 60])
@pytest.mark.parametrize("small", [True, False])
@pytest.mark.usefixtures("operators")
def test_the_shuffle_and_its_gradient_keep_the_memory_format(small, memory_format, groups, monkeypatch):
    if not small:  # without operators, large maps are shuffled in another way
        monkeypatch.setattr("convsmith.nn.shuffle._SMALL", 0)
    x = torch.randn(2, 60, 5, 4).to(memory_format=memory_format).requires_grad_()
    y = ChannelShuffle(60, groups=groups)(x)
    assert torch.equal(y, shuffled(x, groups))
    assert y.is_contiguous(memory_format=memory_format)
    gradient = torch.randn_like(y)
    (actual,) = torch.autograd.grad(y, x, gradient)
    assert torch.equal(shuffled(actual, groups), gradient)
    assert actual.is_contiguous(memory_format=memory_format)


@needs_a_compiler
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.complex64, torch.complex128])
def test_the_operator_of_the_shuffle(dtype):
    assert native.is_built()
    # Fewer values than a register, as many, more and a rest; all counts of groups, of which those of few are riffled.
    for channels in (6, 15, 16, 17, 33, 35, 48, 60, 84, 87, 120, 128, 240):
        for groups, form in product((g for g in range(1, channels + 1) if channels % g == 0), (ROWS, LAST)):
            x = torch.randn(3, channels, 3, 3).mul(100).to(dtype).contiguous(memory_format=form)[1:]
            y = torch.ops.convsmith.channel_shuffle(x, groups)
            assert torch.equal(y, shuffled(x, groups)), (channels, groups)
            assert y.stride() == x.stride()
    x = torch.randn(2, 6, 5, 4).to(dtype).contiguous(memory_format=LAST)
    assert torch.ops.convsmith.channel_shuffle(x[:0], 2).shape == (0, 6, 5, 4)
    for check in ("test_schema", "test_faketensor"):
        for given in (x, x[:, :, ::2]):
            torch.library.opcheck(torch.ops.convsmith.channel_shuffle.default, (given, 2), test_utils=check)


@needs_a_compiler
@pytest.mark.parametrize("form", [ROWS, LAST])
@pytest.mark.parametrize("channels", [30, 64])
def test_maps_larger_than_the_caches_are_written_past_them(channels, form):
    """By several threads, whose parts begin within lines of the cache."""
    assert native.is_built()
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for side in (55, 23):  # a plane of more and of fewer bytes than are put together at a time
            x = torch.randint(256, (-(-(13 << 20) // (channels * side**2)), channels, side, side), dtype=torch.uint8)
            x = x.contiguous(memory_format=form)
            for groups in (2, 15 if channels == 30 else 32):
                assert torch.equal(torch.ops.convsmith.channel_shuffle(x, groups), shuffled(x, groups))
    finally:
        torch.set_num_threads(threads)


@needs_a_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch itself, where tangents are first used
@pytest.mark.parametrize("form", [ROWS, LAST])
def test_the_derivatives_of_the_operator(form):
    assert native.is_built()
    block = ChannelShuffle(12, groups=3)
    x = torch.randn(2, 12, 3, 2, dtype=torch.float64).to(memory_format=form).requires_grad_()
    assert torch.autograd.gradcheck(block, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(block, x)
    block(x).sum().backward()  # an expanded gradient
    assert torch.equal(x.grad, torch.ones_like(x))
    assert x.grad.is_contiguous(memory_format=form)
    view = torch.randn(3, 12, 5, 4)[:, :, ::2]  # dense in neither order
    assert "convsmith::channel_shuffle" in called(block, view)
    assert torch.equal(block(view), shuffled(view, 3))
    assert not block(x.detach()).requires_grad
    with torch.inference_mode():
        assert torch.equal(block(x.detach().clone()), shuffled(x.detach(), 3))


@needs_a_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transforms_follow_the_shuffle_where_the_operator_is_built():
    assert native.is_built()
    block, x = ChannelShuffle(12, groups=3), torch.randn(2, 12, 3, 2)
    out, tangent = torch.func.jvp(block, (x,), (x.cos(),))
    assert torch.equal(out, shuffled(x, 3))
    assert torch.equal(tangent, shuffled(x.cos(), 3))
    leaf = x.clone().requires_grad_()
    y = block(leaf)
    gradients = torch.randn(4, *y.shape)

    def pulled_back(gradient):  # of a graph that was recorded outside
        return torch.autograd.grad(y, leaf, gradient, retain_graph=True)[0]

    for gradient, own in zip(gradients, torch.func.vmap(pulled_back)(gradients), strict=True):
        assert torch.equal(shuffled(own, 3), gradient)
    for image, own in zip(
        x, torch.func.vmap(torch.func.grad(lambda image: block(image[None]).pow(3).sum()))(x), strict=True
    ):
        torch.testing.assert_close(own, 3 * image**2)


@needs_a_compiler
def test_what_only_stands_for_a_map_is_shuffled_as_torch_does():
    assert native.is_built()
    block, x = ChannelShuffle(12, groups=3), torch.randn(2, 12, 3, 2, dtype=torch.complex64)
    assert torch.equal(block(x.conj()), shuffled(x, 3).conj())
    assert torch.equal(block(x.conj().imag), shuffled(-x.imag, 3))
    assert torch.equal(block(torch._efficientzerotensor(2, 12, 3, 2)), torch.zeros(2, 12, 3, 2))
    assert torch.equal(block(x[0].real[None].expand(3, -1, -1, -1)), shuffled(x[:1].real, 3).expand(3, -1, -1, -1))


@pytest.mark.parametrize("shape", [(2, 9, 3, 2), (2, 24, 3, 2), (2, 12, 3), (12, 3, 2)])
def test_a_map_of_other_channels_is_not_shuffled(shape):
    with pytest.raises(ValueError, match=r"a shuffle of 12 channels takes \(N, 12, H, W\), got "):
        ChannelShuffle(12, groups=3)(torch.randn(shape))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace.*` is deprecated", "ignore::torch.jit.TracerWarning")
def test_eager_passes_take_the_operator_where_it_is_built_and_nobody_follows_values(operators):
    block, x = ChannelShuffle(60, groups=3), torch.randn(2, 60, 5, 4).to(memory_format=torch.channels_last)
    for given in (x, x.contiguous(), x.clone().requires_grad_()):
        assert ("convsmith::channel_shuffle" in called(block, given)) == operators
    assert "convsmith::channel_shuffle" not in called(block, x, follows_values=True)
    assert "convsmith::channel_shuffle" not in called(block, x.to("meta"))
    assert "convsmith::" not in str(torch.jit.trace(block, x).graph)
    images = torch.func.vmap(lambda image: block(image[None])[0])(x)
    assert torch.equal(images, block(x))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_shuffle_is_one_node_of_a_graph_and_exports_in_any_memory_format(memory_format):
    shuffle, x = ChannelShuffle(12, groups=3), torch.randn(2, 12, 5, 4).to(memory_format=memory_format)
    traced = torch.fx.symbolic_trace(shuffle)
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_function", "output"]
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    exported = torch.export.export(shuffle, (x,), dynamic_shapes=(batch,), strict=True).module()
    for run in (traced, exported):
        assert torch.equal(run(x[:1]), shuffled(x[:1], 3))


def test_the_unit_of_v1_adds_what_it_makes():
    x = maps(24)
    unit = jittered(ShuffleUnitV1(24, 24, groups=3))
    y = shuffled(by_formula(unit.reduce, x), 3)
    y = by_formula(unit.expand, by_formula(unit.depthwise, y, relu=False), relu=False)
    torch.testing.assert_close(unit(x), (x + y).clamp(min=0))
    assert [m.conv.groups for m in (unit.reduce, unit.depthwise, unit.expand)] == [3, 6, 3]


@pytest.mark.parametrize("stride", [1, 2])
def test_the_unit_of_v1_appends_its_pooled_input_where_it_strides_or_widens(stride):
    x = maps(12)
    unit = jittered(ShuffleUnitV1(12, 32, groups=2, stride=stride, grouped_reduce=False))
    y = shuffled(by_formula(unit.reduce, x), 2)
    y = by_formula(unit.expand, by_formula(unit.depthwise, y, stride=stride, relu=False), relu=False)
    windows = F.unfold(x, 3, padding=1, stride=stride).view(2, 12, 9, -1)
    pooled = windows.mean(2).view(2, 12, 6 // stride, 6 // stride)
    torch.testing.assert_close(unit(x), torch.cat((y, pooled), 1).clamp(min=0))
    assert unit.reduce.conv.groups == 1
    assert y.shape[1] == 32 - 12


def test_the_unit_of_v2_lets_half_of_its_channels_pass():
    x = maps(8)
    unit = jittered(ShuffleUnitV2(8, 8))
    y = by_formula(unit.separable.depthwise, by_formula(unit.reduce, x[:, 4:]), relu=False)
    expected = shuffled(torch.cat((x[:, :4], by_formula(unit.separable.pointwise, y)), 1), 2)
    torch.testing.assert_close(unit(x), expected)
    torch.testing.assert_close(unit(x)[:, ::2], x[:, :4])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("split", "passing"), [("half", 10), ("paper", 6)])
def test_the_unit_of_v2_has_two_branches_where_it_strides_or_widens(stride, split, passing):
    x = maps(6)
    unit = jittered(ShuffleUnitV2(6, 20, kernel_size=5, stride=stride, split=split))

    def separable(block, x):
        return by_formula(block.pointwise, by_formula(block.depthwise, x, stride=stride, relu=False))

    a, b = separable(unit.passing, x), separable(unit.separable, by_formula(unit.reduce, x))
    assert (a.shape[1], b.shape[1]) == (passing, 20 - passing)
    torch.testing.assert_close(unit(x), shuffled(torch.cat((a, b), 1), 2))
    assert unit.reduce.out_channels == 10


UNITS = [
    cs.spec(ShuffleUnitV1, 24, groups=2),
    cs.spec(ShuffleUnitV1, 48, groups=4, stride=2, kernel_size=5, act="hard_swish"),
    cs.spec(ShuffleUnitV1, 24, groups=1, hidden_channels=5, norm=None),
    cs.spec(ShuffleUnitV2, 24, dilation=2),
    cs.spec(ShuffleUnitV2, 48, stride=2, split="paper", hidden_channels=7),
    cs.spec(ShuffleUnitV2, 24, stride=2, norm=cs.spec(cs.nn.GroupNorm, groups=1), act="identity"),
]


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_units_train_all_parameters_keep_their_promise_and_round_trip(unit):
    module = unit.build(24)
    x = torch.randn(2, 24, 8, 8)
    given = x.clone()
    y = module(x)
    assert torch.equal(x, given), "the unit changed its input"
    stride = unit.get("stride")
    assert y.shape == (2, module.out_channels, 8 // stride, 8 // stride)
    assert module.out_channels == unit.get("out_channels")
    y.square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []
    assert not [name for name, p in module.named_parameters() if name.endswith("weight") and not p.grad.any()]
    architecture = cs.Architecture(stages=[[unit]], in_channels=24)
    assert cs.Architecture.from_json(architecture.to_json()) == architecture


@pytest.mark.parametrize("unit", [ShuffleUnitV1, ShuffleUnitV2])
def test_dilation_keeps_what_a_stride_would_have_given(unit):
    # A trous: with the stride taken away and the next unit dilated, every second value is the strided network's.
    x = maps(12, 16)
    strided = jittered(torch.nn.Sequential(unit(12, 24, stride=2), unit(24, 24)))
    dilated = torch.nn.Sequential(unit(12, 24), unit(24, 24, dilation=2)).double().eval()
    dilated.load_state_dict(strided.state_dict())
    torch.testing.assert_close(dilated(x)[:, :, ::2, ::2], strided(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ChannelShuffle(10, groups=3),
            "in_channels must be divisible by groups, got in_channels=10 and groups=3; take groups=2",
        ),
        (lambda: ShuffleUnitV1(20, 20, groups=3), "hidden_channels must be divisible by groups, got hidden_channels=5"),
        (lambda: ShuffleUnitV1(20, 48, groups=3), "out_channels must exceed in_channels by a multiple of groups"),
        (lambda: ShuffleUnitV1(24, 24, groups=3, stride=2), r"got in_channels=24, out_channels=24 and groups=3"),
        (lambda: ShuffleUnitV1(25, 48, groups=0), "must exceed in_channels by a multiple of groups"),
        (lambda: ShuffleUnitV2(24, 57, stride=2), "out_channels must be even, got out_channels=57"),
        (
            lambda: ShuffleUnitV2(24, 24, stride=2, split="paper"),
            "must exceed in_channels .* take split='half'",
        ),
    ],
)
def test_wrong_channels_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


NETWORKS = ["shufflenet_v1_g3_x0_25", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0_paper"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_can_be_traced_and_exported(name):
    architecture = cs.zoo.get(name)
    shallow = architecture.replace(stages=[architecture.stages[0][:2]])  # one unit of either kind
    network = cs.create_model(shallow).double().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(torch.fx.symbolic_trace(network)(x), expected)
        batch = {0: torch.export.Dim("batch", min=1, max=64)}
        program = torch.export.export(network, (x,), dynamic_shapes=(batch,), strict=True).module()
        torch.testing.assert_close(program(x[:1]), expected[:1])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_take_small_images_without_resizing(name):
    architecture = cs.zoo.for_small_inputs(cs.zoo.get(name, num_classes=10, in_channels=1), 8)
    network, original = cs.create_model(architecture), cs.create_model(name, num_classes=10, in_channels=1)
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    assert [p.shape for p in network.parameters()] == [p.shape for p in original.parameters()]


def test_the_strides_of_the_stages_are_those_of_the_tables():
    network = cs.create_model("shufflenet_v1_g3_x0_25")
    assert (network.feature_strides, network.feature_channels) == ([8, 16, 32], [60, 120, 240])
