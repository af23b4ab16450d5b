import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import (
    BasicBlock,
    BatchNorm,
    BatchRenorm,
    Bottleneck,
    ConvNormAct,
    CrossDeviceBatchNorm,
    DeformableConv2d,
    DenseBlock,
    DepthwiseSeparable,
    GhostBatchNorm,
    GroupNorm,
    InvertedResidual,
    LayerNorm,
    MeanOnlyBatchNorm,
    NormActConv,
    WeightNorm,
    WeightNormConv2d,
    group_norm,
)
from convsmith.nn.norm import batch_moments

NORMS = [
    *(cs.spec(norm) for norm in (BatchNorm, BatchRenorm, CrossDeviceBatchNorm, LayerNorm, MeanOnlyBatchNorm)),
    *(cs.spec(GhostBatchNorm, ghost_batch_size=2), cs.spec(GroupNorm, groups=2)),
    *(cs.spec(WeightNorm), cs.spec(WeightNorm, mean_only=True)),
]
BLOCKS = [
    cs.spec(ConvNormAct, 8),
    cs.spec(BasicBlock, 8, stride=2),
    cs.spec(Bottleneck, 16),
    cs.spec(InvertedResidual, 8),
    cs.spec(DepthwiseSeparable, 8),
]


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("call", BLOCKS, ids=lambda call: call.block)
def test_every_norm_stands_in_the_blocks(call, norm, memory_format, monkeypatch):
    monkeypatch.setattr(group_norm, "NARROW", 16)  # for every group the form of our own
    architecture = cs.Architecture(in_channels=8, stages=[[call.replace(norm=norm)]])
    assert cs.Architecture.from_json(architecture.to_json()) == architecture
    block = call.replace(norm=norm).build(8).double().to(memory_format=memory_format)
    x = torch.randn(4, 8, 6, 6, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    (block(x) * torch.linspace(-1, 1, 6 // call.get("stride", 1), dtype=torch.float64)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in (*block.parameters(), x))
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d | WeightNormConv2d)]
    on_weights = norm.block == "weight_norm"
    assert [type(conv) for conv in convolutions] == [WeightNormConv2d if on_weights else nn.Conv2d] * len(convolutions)
    has_bias = on_weights and not norm.get("mean_only")  # elsewhere a norm of maps takes the bias's part
    assert {conv.bias is not None for conv in convolutions} == {has_bias}


@pytest.mark.parametrize("norm", NORMS[-2:], ids=str)
@pytest.mark.parametrize("call", [cs.spec(NormActConv, 8), cs.spec(DenseBlock, num_layers=2)], ids=str)
def test_a_block_that_cannot_apply_a_norm_to_its_weights_says_so(call, norm):
    with pytest.raises(ValueError, match=r"acts on the weights of a convolution; take norm=spec\(BatchNorm\)"):
        call.replace(norm=norm).build(8)


class TestOneValuePerChannel:
    MESSAGE = r"more than one value per channel in training, got one image of shape \(8, 1, 1\); train with larger"

    @pytest.mark.parametrize(
        "norm",
        [BatchNorm(8), BatchRenorm(8), GhostBatchNorm(8), CrossDeviceBatchNorm(8)],
        ids=lambda n: type(n).__name__,
    )
    def test_is_an_error_in_training_alone(self, norm):
        x = torch.randn(1, 8, 1, 1)
        with pytest.raises(ValueError, match=self.MESSAGE):
            norm(x)
        assert torch.isfinite(norm.eval()(x)).all()
        norm.train()
        assert norm(torch.randn(2, 8, 1, 1)).shape == (2, 8, 1, 1)
        assert norm(torch.randn(1, 8, 1, 2)).shape == (1, 8, 1, 2)

    def test_is_an_error_from_inside_of_a_network(self):
        network = cs.create_model("mobilenet_v2", num_classes=3)
        with pytest.raises(ValueError, match="more than one value per channel"):
            network(torch.randn(1, 3, 32, 32))

    def test_is_an_error_of_a_last_ghost_batch(self):
        with pytest.raises(ValueError, match=self.MESSAGE):
            GhostBatchNorm(8, ghost_batch_size=2)(torch.randn(3, 8, 1, 1))

    def test_other_errors_are_left_alone(self):
        norm = BatchNorm(8)
        norm.eps = 0.0
        with pytest.raises(ValueError, match="eps must be positive"):
            norm(torch.randn(2, 8, 3, 3))


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_torchs_and_can_be_traced_exported_and_compiled(training):
    norm, peer = BatchNorm(6, eps=1e-3, momentum=0.3).train(training), nn.BatchNorm2d(6, 1e-3, 0.3).train(training)
    x = torch.randn(2, 6, 4, 5)
    traced, program = fx.symbolic_trace(norm), torch.export.export(norm, (x,), strict=True).module()
    compiled = torch.compile(norm, backend="eager", fullgraph=True)
    for module in (norm, traced, program, compiled):
        norm.reset_running_stats()
        peer.reset_running_stats()
        found, expected = module(x), peer(x)
        assert torch.equal(found, expected)
    assert all(torch.equal(norm.state_dict()[name], value) for name, value in peer.state_dict().items())


def test_moments_do_not_cancel_where_the_mean_is_large():
    x = torch.randn(3, 4, 5, 6) + 1e4
    mean, variance = batch_moments(x)
    exact = x.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean.double(), exact.mean(1), rtol=1e-7, atol=0)
    torch.testing.assert_close(variance.double(), exact.var(1, unbiased=False), rtol=1e-4, atol=0)


def test_moments_of_rows_and_of_half_precision():
    mean, variance = batch_moments(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    assert (mean.tolist(), variance.tolist()) == ([2.0, 2.0], [1.0, 0.0])
    half = torch.randn(8, 4, 3, 3).bfloat16()
    torch.testing.assert_close(batch_moments(half), batch_moments(half.float()))


def test_mean_only_batch_norm_subtracts_the_batchs_and_then_the_running_mean():
    norm = MeanOnlyBatchNorm(3, momentum=0.25).double()
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    means = torch.stack([x[:, c].mean() for c in range(3)])
    expected = x - means.view(3, 1, 1) + norm.bias.view(3, 1, 1)
    torch.testing.assert_close(norm(x), expected)
    dy = torch.randn_like(x)
    (norm(x) * dy).sum().backward()
    torch.testing.assert_close(x.grad, dy - dy.mean((0, 2, 3), keepdim=True))  # of the mean too
    torch.testing.assert_close(norm.running_mean, (1 - 0.75**2) * means.detach())
    shift = norm.bias - norm.running_mean
    torch.testing.assert_close(norm.eval()(x), x + shift.view(3, 1, 1))
    assert F.mse_loss(norm(x), expected) > 1e-4


@pytest.mark.parametrize("norm", ["batch_norm", BatchNorm, 1])
@pytest.mark.parametrize("make", [ConvNormAct, DepthwiseSeparable, DeformableConv2d])
def test_a_norm_that_is_not_recorded_is_told(make, norm):
    with pytest.raises(TypeError, match=r"a norm must be recorded, as spec\(BatchNorm\) is, or None, got"):
        make(8, 8, norm=norm)


def test_a_norm_keeps_its_channels():
    with pytest.raises(
        ValueError, match=r"must keep the 16 channels of its map, and conv_norm_act\(out_channels=8\) gives 8; take"
    ):
        ConvNormAct(16, 16, norm=cs.spec(ConvNormAct, 8))


@pytest.mark.parametrize("norm", NORMS[:-2], ids=str)
def test_an_empty_batch_leaves_the_statistics_as_they_are(norm):
    module = norm.build(32).train()
    before = {name: value.clone() for name, value in module.named_buffers() if value.is_floating_point()}
    assert module(torch.zeros(0, 32, 3, 3)).shape == (0, 32, 3, 3)
    for name, value in module.named_buffers():
        if name in before:
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("norm", NORMS[:-2], ids=str)
def test_no_eps_that_has_no_root_and_no_momentum_that_is_no_share(norm):
    wrong = [("eps", -1.0), ("eps", 0.0), ("momentum", -0.1), ("momentum", 2.0)]
    for argument, value in [each for each in wrong if norm.has(each[0])]:
        with pytest.raises(ValueError, match=rf"{argument} must be .*, got {argument}={value}; .* is usual"):
            norm.replace(**{argument: value}).build(32)
    for value in (0.0, 1.0) if norm.has("momentum") else ():
        norm.replace(momentum=value).build(32)


def test_no_eps_or_momentum_that_is_no_number():
    with pytest.raises(ValueError, match=r"eps must be .*, got eps=nan"):
        GroupNorm(8, groups=2, eps=float("nan"))
    with pytest.raises(ValueError, match=r"momentum must be .*, got momentum=nan"):
        BatchNorm(8, momentum=float("nan"))
    assert BatchNorm(8, momentum=None).momentum is None  # torch's, 1 / count


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5), (6, 4, 5, 3), (6, 4, 2, 3, 2)])
@pytest.mark.parametrize("norm", [MeanOnlyBatchNorm, CrossDeviceBatchNorm, BatchRenorm])
def test_rows_and_sequences_are_normalised_as_maps(norm, shape):
    rows, maps = norm(4, momentum=0.5).double(), norm(4, momentum=0.5).double()
    x = torch.randn(shape, dtype=torch.float64)
    for training in (True, False):
        y = rows.train(training)(x)
        expected = maps.train(training)(x.reshape(6, 4, -1, 1)).view(shape)
        torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_mean_only_batch_norm_can_be_traced_and_exported(memory_format):
    norm, x = MeanOnlyBatchNorm(4).eval(), torch.randn(2, 4, 3, 5).to(memory_format=memory_format)
    norm.running_mean.normal_()
    y = norm(x)
    assert y.is_contiguous(memory_format=memory_format)
    assert torch.equal(fx.symbolic_trace(norm)(x), y)
    assert torch.equal(torch.export.export(norm, (x,), strict=True).module()(x), y)
