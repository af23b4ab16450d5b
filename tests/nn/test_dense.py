import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import DenseBlock, NormActConv, Transition
from convsmith.zoo.densenet import densenet


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


BLOCKS = [
    cs.spec(NormActConv, 8, kernel_size=1),
    cs.spec(NormActConv, 9, groups=3, stride=2, norm=None, act="relu6"),
    cs.spec(NormActConv, 9, norm=cs.spec(cs.nn.Identity)),
    cs.spec(DenseBlock, num_layers=3, growth_rate=4),
    cs.spec(DenseBlock, num_layers=2, growth_rate=(4, 5), bottleneck_ratio=0.0, kernel_size=5, norm=None),
    cs.spec(DenseBlock, num_layers=2, norm=cs.spec(cs.nn.GroupNorm, groups=1), act="tanh", dilation=2),
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
