import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import convsmith as cs
from convsmith.arch import block as registered_block
from convsmith.nn import DenseBlock, NormActConv, Transition
from convsmith.zoo.densenet import densenet
from tests.nn.peak_memory import peak_bytes


def jittered(module):
    """The module in float64 and eval mode, its norms with statistics and affine parts of their own."""
    module = module.double()
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def by_formula(unit, x, *, dilation=1):
    """Batch normalisation, ReLU and convolution of one NormActConv, written out."""
    norm, weight = unit.norm, unit.conv.weight
    shape = (1, -1, 1, 1)
    y = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
    y = (y * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)
    return F.conv2d(y, weight, None, 1, weight.shape[-1] // 2 * dilation, dilation)


@pytest.mark.parametrize("dilation", [1, 2])
def test_each_layer_reads_all_maps_before_it(dilation):
    x = torch.randn(2, 6, 7, 7, dtype=torch.float64)
    block = jittered(DenseBlock(6, num_layers=3, growth_rate=4, dilation=dilation))
    collected = [x]
    for bottleneck, grow in block.layers:
        assert bottleneck.conv.weight.shape == (16, 6 + 4 * (len(collected) - 1), 1, 1)
        collected.append(by_formula(grow, by_formula(bottleneck, torch.cat(collected, 1)), dilation=dilation))
    torch.testing.assert_close(block(x), torch.cat(collected, 1))
    assert block.out_channels == 6 + 3 * 4


def test_a_plain_dense_block_has_no_bottleneck():
    x = torch.randn(2, 6, 7, 7, dtype=torch.float64)
    block = jittered(DenseBlock(6, num_layers=2, growth_rate=4, bottleneck_ratio=0.0))
    (first,), (second,) = block.layers
    y = torch.cat((x, by_formula(first, x)), 1)
    torch.testing.assert_close(block(x), torch.cat((y, by_formula(second, y)), 1))


def test_layers_may_have_widths_of_their_own():
    block = DenseBlock(6, num_layers=2, growth_rate=(4, 3), hidden_channels=(5, 7))
    assert [unit.conv.weight.shape[:2] for layer in block.layers for unit in layer] == [(5, 6), (4, 5), (7, 10), (3, 7)]
    assert block.out_channels == 13


@pytest.mark.parametrize(("stride", "compression", "channels"), [(2, 0.5, 4), (1, 0.5, 4), (3, 1.0, 9)])
def test_a_transition_compresses_and_pools(stride, compression, channels):
    x = torch.randn(2, 9, 6, 6, dtype=torch.float64)
    transition = jittered(Transition(9, stride=stride, compression=compression))
    y = by_formula(transition.conv, x)
    side = 6 // stride
    pooled = y.view(2, -1, side, stride, side, stride).mean((3, 5))
    torch.testing.assert_close(transition(x), pooled)
    assert transition.out_channels == pooled.shape[1] == channels


def test_dropped_values_are_single_ones_of_the_new_maps():
    block = DenseBlock(4, num_layers=1, growth_rate=8, drop_rate=0.5)
    x = torch.randn(4, 4, 16, 16)
    y = block.train()(x)
    assert torch.equal(y[:, :4], x)
    zeros = (y[:, 4:] == 0).double().mean((0, 2, 3))
    assert ((zeros > 0.4) & (zeros < 0.6)).all()
    assert not (block.eval()(x)[:, 4:] == 0).any()


@registered_block("restless_norm")
class RestlessNorm(nn.Module):
    """Scales by random numbers and by how often it was called: what a second call would not repeat by itself."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.register_buffer("calls", torch.ones(()))
        self.out_channels = in_channels

    def forward(self, x):
        y = x * torch.rand_like(x) * self.calls.clone()
        self.calls += 1
        return y


RECOMPUTED = [
    {},
    {"drop_rate": 0.3},
    {"bottleneck_ratio": 0.0, "kernel_size": 5, "dilation": 2, "act": "swish"},
    {"growth_rate": (4, 5, 6), "norm": None, "drop_rate": 0.3},
    {"norm": cs.spec(cs.nn.GroupNorm, groups=1), "act": cs.spec(cs.nn.ReLU6)},
    {"norm": cs.spec(RestlessNorm), "drop_rate": 0.3},
]


def step(block, x, seed=0):
    """Output, gradients and buffers of a training step."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    y = block.train()(x)
    y.backward(torch.linspace(-1, 2, y.numel(), dtype=y.dtype).sin().view_as(y))
    found = {"output": y.detach(), "input": x.grad, "the next random numbers": torch.rand(3)}
    found |= {name: p.grad for name, p in block.named_parameters()}
    return found | dict(block.named_buffers())


@pytest.mark.parametrize("arguments", RECOMPUTED, ids=str)
def test_recomputing_changes_nothing(arguments):
    """Not the statistics either, which would move twice if the backward pass moved them."""
    arguments = {"num_layers": 3, "growth_rate": 4, **arguments}
    plain = DenseBlock(6, **arguments).double()
    efficient = DenseBlock(6, **arguments, memory_efficient=True).double()
    efficient.load_state_dict(plain.state_dict())
    x = torch.randn(3, 6, 9, 9, dtype=torch.float64)
    for seed in range(2):
        expected, found = step(plain, x, seed), step(efficient, x, seed)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_an_inner_second_pass_draws_from_its_own_numbers():
    """Two blocks in a row: each recomputes with the numbers of its own forward pass."""
    blocks = [DenseBlock(c, num_layers=2, growth_rate=4, norm=cs.spec(RestlessNorm)) for c in (6, 14)]
    plain = nn.Sequential(*blocks).double()
    efficient = copy.deepcopy(plain)
    for block in efficient:
        block.memory_efficient = True
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    expected, found = step(plain, x), step(efficient, x)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


def test_a_second_backward_pass_recomputes_the_same():
    block = DenseBlock(6, num_layers=2, growth_rate=4, norm=cs.spec(RestlessNorm), memory_efficient=True).double()
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64, requires_grad=True)
    y = block.train()(x).square().sum()
    (first,), (second,) = (torch.autograd.grad(y, x, retain_graph=True) for _ in range(2))
    assert torch.equal(first, second)


class Convolutions(TorchDispatchMode):
    """Counts what is computed, in both directions."""

    def __init__(self):
        super().__init__()
        self.forward = self.backward = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.forward += operator is torch.ops.aten.convolution.default
        self.backward += operator is torch.ops.aten.convolution_backward.default
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("memory_efficient", [False, True])
def test_no_convolution_is_computed_twice(memory_efficient):
    block = DenseBlock(6, num_layers=3, growth_rate=4, memory_efficient=memory_efficient).train()
    with Convolutions() as counted:
        block(torch.randn(2, 6, 5, 5, requires_grad=True)).sum().backward()
    assert (counted.forward, counted.backward) == (6, 6)


def peak_of_a_step(block, x):
    for parameter in block.train().parameters():
        parameter.grad = torch.zeros_like(parameter)  # there before, as in all steps but the first
    return peak_bytes(lambda: block(x).sum().backward())


@pytest.mark.parametrize(
    ("num_layers", "growth_rate", "ratio"),
    [(16, 12, 0.4), (100, 4, 0.15)],
    ids=["a block of DenseNet-BC-100", "100 layers"],
)
def test_the_peak_of_memory(num_layers, growth_rate, ratio):
    peaks = []
    for memory_efficient in (False, True):
        block = DenseBlock(24, num_layers=num_layers, growth_rate=growth_rate, memory_efficient=memory_efficient)
        peaks.append(peak_of_a_step(block, torch.randn(2, 24, 16, 16)))
    assert peaks[1] <= ratio * peaks[0]


def test_in_eval_mode_and_in_exported_graphs_nothing_is_recomputed():
    plain = jittered(DenseBlock(6, num_layers=2, growth_rate=4))
    efficient = jittered(DenseBlock(6, num_layers=2, growth_rate=4, memory_efficient=True))
    efficient.load_state_dict(plain.state_dict())
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    programs = [torch.export.export(block, (x,), strict=True) for block in (plain, efficient)]
    assert programs[0].graph_module.code == programs[1].graph_module.code
    assert torch.equal(plain(x), efficient(x))
    with torch.no_grad():  # as in recomputing statistics before evaluation
        assert torch.equal(plain.train()(x), efficient.train()(x))
    assert torch.equal(plain.layers[1][0].norm.running_var, efficient.layers[1][0].norm.running_var)


def test_recomputation_compiles_whole():
    block = DenseBlock(6, num_layers=1, growth_rate=4, memory_efficient=True).double()
    compiled = copy.deepcopy(block)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    expected = step(block, x)
    module = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    found = step(module, x)
    for name, value in expected.items():
        torch.testing.assert_close(found[name if name in found else f"_orig_mod.{name}"], value)


BLOCKS = [
    cs.spec(NormActConv, 8, kernel_size=1),
    cs.spec(NormActConv, 9, groups=3, stride=2, norm=None, act="relu6"),
    cs.spec(NormActConv, 9, norm=cs.spec(cs.nn.Identity)),
    cs.spec(DenseBlock, num_layers=3, growth_rate=4),
    cs.spec(DenseBlock, num_layers=2, growth_rate=(4, 5), bottleneck_ratio=0.0, kernel_size=5, norm=None),
    cs.spec(DenseBlock, num_layers=2, norm=cs.spec(cs.nn.GroupNorm, groups=1), act="tanh", dilation=2),
    cs.spec(DenseBlock, num_layers=3, growth_rate=4, memory_efficient=True),
    cs.spec(Transition),
    cs.spec(Transition, stride=1, dilation=2, out_channels=5, norm=None),
]


@pytest.mark.parametrize("spec", BLOCKS, ids=str)
def test_blocks_train_all_parameters_leave_their_input_alone_and_round_trip(spec):
    module = spec.build(12)
    x = torch.randn(2, 12, 8, 8)
    given = x.clone()
    y = module(x)
    assert torch.equal(x, given), "the block changed its input"
    assert y.shape == (2, module.out_channels, 8 // spec.get("stride", 1), 8 // spec.get("stride", 1))
    y.square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []
    architecture = cs.Architecture(stages=[[spec]], in_channels=12)
    assert cs.Architecture.from_json(architecture.to_json()) == architecture


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenseBlock(8, num_layers=1, kernel_size=2), "kernel_size must be odd here, got kernel_size=2; take 3"),
        (lambda: DenseBlock(8, num_layers=0), "num_layers must be positive, got 0"),
        (lambda: DenseBlock(8, num_layers=3, growth_rate=(4, 4)), "one for each of num_layers=3 layers, got 2"),
        (lambda: DenseBlock(8, num_layers=1, hidden_channels=(4, 4)), "hidden_channels must be one number or one for"),
        (lambda: Transition(8, dilation=2), "pools undilated maps only, got stride=2 and dilation=2"),
        (lambda: Transition(3, compression=0.25), "at least one channel, got in_channels=3 and compression=0.25"),
        (lambda: NormActConv(10, 9, groups=3), "in_channels must be divisible by groups"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_network_can_be_traced_and_exported():
    network = cs.create_model(densenet(depths=(2, 1, 1, 1))).double().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(torch.fx.symbolic_trace(network)(x), expected)
        batch = {0: torch.export.Dim("batch", min=1, max=64)}
        program = torch.export.export(network, (x,), dynamic_shapes=(batch,), strict=True).module()
        torch.testing.assert_close(program(x[:1]), expected[:1])


def test_small_images_and_dilation_keep_the_weights():
    original = cs.zoo.get("densenet121", num_classes=10, in_channels=1)
    small = cs.zoo.for_small_inputs(original, 8)
    network = cs.create_model(small)
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    dilated = cs.create_model(original.dilate(3))
    assert dilated.feature_strides == [4, 8, 16, 16]
    shapes = [p.shape for p in cs.create_model(original).parameters()]
    assert shapes == [p.shape for p in network.parameters()] == [p.shape for p in dilated.parameters()]


def test_a_transition_opens_its_stage():
    network = cs.create_model("densenet121")
    assert (network.feature_strides, network.feature_channels) == ([4, 8, 16, 32], [256, 512, 1024, 1024])
