import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import convsmith as cs
from convsmith.nn import (
    CondenseClassifier,
    CondensedConv2d,
    CondenseLayer,
    LearnedGroupConv2d,
    condense_network,
    group_lasso,
)
from tests.train.tiny import RECIPE, TASK, tiny_architecture, tiny_data


def jittered(module):
    """The module in float64 and eval mode, its norms with statistics and affine parts of their own."""
    module = module.double()
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def maps(channels, size=5):
    return torch.randn(2, channels, size, size, dtype=torch.float64)


def drop_by_hand(weight, kept, groups, number):
    """From each group's set of kept inputs, take the `number` with the smallest sum of |w| over rows g::groups."""
    for group, inputs in enumerate(kept):
        rows = range(group, len(weight), groups)
        order = sorted(inputs, key=lambda j: sum(abs(weight[row][j]) for row in rows))
        inputs.difference_update(order[:number])


def kept_inputs(layer):
    return [set(row.nonzero().flatten().tolist()) for row in layer.kept]


def by_formula(layer, x, kept):
    """Norm, ReLU, and for each output the sum over the inputs that its group keeps, written out."""
    norm, weight = layer.norm, layer.conv.weight[:, :, 0, 0]
    shape = (1, -1, 1, 1)
    y = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
    y = (y * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)
    rows = range(len(weight))
    return torch.stack([sum(weight[row, j] * y[:, j] for j in kept[row % len(kept)]) for row in rows], 1)


@pytest.mark.parametrize(("groups", "condensation"), [(4, 4), (2, 4), (3, 2), (1, 2), (6, 3)])
def test_each_stage_drops_the_weakest_inputs_of_each_group(groups, condensation):
    layer = jittered(LearnedGroupConv2d(12, 12, groups=groups, condensation=condensation))
    kept = [set(range(12)) for _ in range(groups)]
    x = maps(12)
    torch.testing.assert_close(layer(x), by_formula(layer, x, kept))
    for stage in range(1, condensation):
        layer.conv.weight.data.normal_()  # the weights of the day decide, among the inputs that are left
        layer.condense(stage)
        drop_by_hand(layer.conv.weight[:, :, 0, 0].tolist(), kept, groups, 12 // condensation)
        assert kept_inputs(layer) == kept
        assert layer.stage == stage
        torch.testing.assert_close(layer(x), by_formula(layer, x, kept))
    assert {len(inputs) for inputs in kept} == {12 // condensation}


def test_stages_may_be_skipped_and_entered_again():
    layer = LearnedGroupConv2d(8, 8, groups=2, condensation=4)
    layer.condense(2)
    assert layer.kept.sum(1).tolist() == [4, 4]
    before = kept_inputs(layer)
    layer.conv.weight.data[:, ~layer.kept.all(0)] = 100.0
    layer.condense(1)
    layer.condense(2)
    assert kept_inputs(layer) == before


def test_condensing_fills_the_first_half_of_the_training():
    layer, total = LearnedGroupConv2d(8, 8, groups=2, condensation=4), 30
    for step in range(total):
        layer.on_step(step, total)
        entered = [i for i in range(4) if 2 * step / total >= i / 3]
        assert layer.stage == max(entered)
        assert layer.kept.sum(1).tolist() == [8 - 2 * max(entered)] * 2


def test_the_schedule_goes_on_from_a_checkpoint_and_from_steps_that_were_skipped():
    layer, total = LearnedGroupConv2d(8, 8, groups=2, condensation=4), 30
    start = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer.on_step(29, total)
    assert layer.stage == 3
    layer.load_state_dict(start)
    layer.on_step(0, total)
    assert layer.stage == 0
    layer.on_step(5, total)
    resumed = LearnedGroupConv2d(8, 8, groups=2, condensation=4)
    resumed.load_state_dict(layer.state_dict())
    resumed.on_step(6, total)
    assert kept_inputs(resumed) == kept_inputs(layer)
    assert resumed.stage == 1
    resumed.on_step(10, total)
    assert resumed.stage == 2


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("copied", [False, True])
def test_the_schedule_goes_on_from_a_state_that_is_loaded_late(assign, copied):
    layer, total = LearnedGroupConv2d(8, 8, groups=2, condensation=4), 30
    early = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    for step in range(total):
        layer.on_step(step, total)
    layer = copy.deepcopy(layer) if copied else layer
    layer.load_state_dict(early, assign=assign)
    assert layer.stage == 0
    layer.on_step(20, total)
    assert layer.stage == 3


def test_the_forward_pass_changes_no_state():
    layer = LearnedGroupConv2d(8, 8).train()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items() if "norm" not in name}
    layer(torch.randn(2, 8, 4, 4))
    assert all(torch.equal(tensor, layer.state_dict()[name]) for name, tensor in before.items())


def test_training_reaches_the_factor_and_nothing_returns():
    torch.manual_seed(0)
    x, teacher = torch.randn(64, 16, 3, 3), torch.randn(8, 16, 1, 1)
    targets = F.conv2d(x.relu(), teacher)
    layer, total = LearnedGroupConv2d(16, 8, groups=4, condensation=4), 60
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    losses, ever_dropped = [], torch.zeros_like(layer.kept)
    for step in range(total):
        layer.on_step(step, total)
        ever_dropped |= ~layer.kept
        assert torch.equal(ever_dropped, ~layer.kept)
        loss = F.mse_loss(layer(x), targets)
        losses.append(loss.item())
        optimizer.zero_grad()
        (loss + 1e-3 * layer.group_lasso()).backward()
        optimizer.step()
    assert layer.kept.sum(1).tolist() == [4, 4, 4, 4]
    assert min(losses[-5:]) < losses[0]
    layer.double().eval()
    y, x = layer(x.double()), x.double()
    rows = torch.arange(8) % 4
    layer.conv.weight.data[~layer.kept[rows]] += 1e3  # what an optimiser may do to weights that are masked
    torch.testing.assert_close(layer(x), y, rtol=0, atol=0)
    torch.testing.assert_close(layer.condensed()(x), y, rtol=0, atol=1e-10)


def test_dropped_weights_get_no_gradient_and_kept_ones_do():
    layer = jittered(LearnedGroupConv2d(8, 4, groups=2, condensation=4))
    layer.condense(3)
    layer(maps(8)).square().sum().backward()
    grad = layer.conv.weight.grad[:, :, 0, 0]
    mask = layer.kept[torch.arange(4) % 2]
    assert not grad[~mask].any()
    assert grad[mask].abs().min() > 0


def test_the_group_lasso_is_its_formula_until_the_last_stage():
    layer = LearnedGroupConv2d(6, 4, groups=2, condensation=3).double()
    layer.condense(1)
    weight = layer.conv.weight[:, :, 0, 0].tolist()
    expected = sum(
        math.sqrt(sum(weight[row][j] ** 2 for row in range(group, 4, 2)))
        for group, inputs in enumerate(kept_inputs(layer))
        for j in inputs
    )
    assert layer.group_lasso().item() == pytest.approx(expected, rel=1e-12)
    assert group_lasso(torch.nn.ModuleList([layer, layer.conv])).item() == pytest.approx(expected, rel=1e-12)
    layer.condense(2)
    assert layer.group_lasso() == group_lasso(layer.conv) == 0
    layer = LearnedGroupConv2d(6, 4, groups=2, condensation=3)
    torch.nn.init.zeros_(layer.conv.weight)
    layer.group_lasso().backward()
    assert not layer.conv.weight.grad.any(), "the norm of zeros has a gradient, or none that is finite"


def test_dropout_is_in_front_of_the_convolution():
    layer = LearnedGroupConv2d(8, 8, drop_rate=0.5, norm=None, act="identity")
    layer.conv.weight.data[:, :, 0, 0] = torch.eye(8)
    torch.nn.init.zeros_(layer.conv.bias)
    y = layer.train()(torch.ones(4, 8, 16, 16))
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(layer.eval()(torch.ones(1, 8, 2, 2)), torch.ones(1, 8, 2, 2))


@pytest.mark.parametrize(("groups", "condensation"), [(4, 4), (2, 4), (4, 2), (1, 2), (2, 1)])
@pytest.mark.parametrize("form", ["norm", "bias", "spec"])
def test_the_condensed_layer_is_the_trained_one(groups, condensation, form):
    arguments = {
        "norm": {},
        "bias": {"norm": None, "act": "identity"},
        "spec": {"norm": cs.spec(cs.nn.BatchNorm, eps=1e-3), "act": cs.spec(cs.nn.ELU, alpha=0.5)},
    }[form]
    layer = jittered(LearnedGroupConv2d(8, 12, groups=groups, condensation=condensation, **arguments))
    layer.condense(condensation - 1)
    if form == "bias":
        layer.conv.bias.data.normal_()
    condensed, x = layer.condensed(), maps(8)
    torch.testing.assert_close(condensed(x), layer(x), rtol=0, atol=1e-10)
    assert not condensed.training
    assert condensed.index.dtype == torch.int64
    assert condensed.conv.weight.shape == (12, 8 // condensation, 1, 1)
    flattened = condensed.index.view(groups, -1).tolist()
    assert flattened == [sorted(inputs) for inputs in kept_inputs(layer)]


def test_memory_formats_agree():
    layer = jittered(LearnedGroupConv2d(8, 8))
    x = maps(8)
    expected = layer(x)
    layer = layer.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected)
    layer.condense(3)
    for last in (False, True):
        x = x.to(memory_format=torch.channels_last if last else torch.contiguous_format)
        y = layer.condensed()(x)
        assert (y.is_contiguous(), y.is_contiguous(memory_format=torch.channels_last)) == (not last, last)
        torch.testing.assert_close(y, layer(x))


def network(condensed, condensation=4):
    """A CondenseNet with two dense blocks."""
    layers = [
        cs.spec(CondenseLayer, growth_rate=k, groups=4, condensation=condensation, condensed=condensed)
        for k in (8, 8, 16)
    ]
    pool = cs.spec(cs.nn.AvgPool, kernel_size=2, stride=2, padding=0)
    last = [cs.spec(cs.nn.BatchNorm), cs.spec(cs.nn.ReLU)]
    return cs.Architecture(
        stem=[cs.spec(cs.nn.ConvNormAct, 16, stride=2, norm=None, bias=False, act="identity")],
        stages=[layers[:2], [pool, layers[2]]],
        neck=last,
        head=cs.spec(CondenseClassifier, 10, condensed=condensed),
    )


def test_a_converted_network_fits_the_architecture_of_converted_blocks():
    trained = jittered(cs.create_model(network(False)))
    for module in trained.modules():
        if isinstance(module, LearnedGroupConv2d):
            module.condense(module.condensation - 1)
    converted = condense_network(trained)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(converted(x), trained(x), rtol=0, atol=1e-10)
    assert not any(isinstance(module, LearnedGroupConv2d) for module in converted.modules())
    assert sum(isinstance(module, LearnedGroupConv2d) for module in trained.modules()) == 4, "the network was changed"
    built = cs.create_model(network(True)).double().eval()
    built.load_state_dict(converted.state_dict())
    torch.testing.assert_close(built(x), trained(x), rtol=0, atol=1e-10)


def fully_condensed(architecture):
    trained = cs.create_model(architecture).eval()
    for module in trained.modules():
        if isinstance(module, LearnedGroupConv2d):
            module.condense(module.condensation - 1)
    return trained


def test_a_converted_network_is_saved_with_the_architecture_that_it_has(tmp_path):
    trained = fully_condensed(network(False).replace(found_by="hand"))
    converted = condense_network(trained)
    assert converted.architecture == network(True)
    assert converted.architecture.found_by == "hand"
    assert trained.architecture == network(False), "the network was changed"
    assert condense_network(converted).architecture == converted.architecture
    shape = (1, 3, 16, 16)
    assert cs.measure.cost(converted, shape).macs == cs.measure.cost(converted.architecture, shape).macs
    converted.save_weights(tmp_path / "condensed.safetensors")
    x = torch.randn(shape)
    torch.testing.assert_close(cs.create_model(tmp_path / "condensed.safetensors").eval()(x), trained(x))


def test_learned_groups_are_converted_wherever_the_architecture_has_them(tmp_path):
    learned = cs.spec(LearnedGroupConv2d, 16, drop_rate=0.1, act="swish")
    classifier = cs.spec(CondenseClassifier, 3)
    architecture = cs.Architecture(
        stem=[cs.spec(cs.nn.ConvNormAct, 16)],
        stages=[[learned, cs.spec(cs.nn.Sequence, blocks=(learned, cs.spec(CondenseLayer, growth_rate=8)))]],
        head=classifier,
        aux=[(0, 0, classifier)],
    )
    trained = fully_condensed(architecture)
    converted = condense_network(trained)
    path = tmp_path / "condensed.safetensors"
    converted.save_weights(path)
    loaded, x = cs.create_model(path).eval(), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(loaded.forward_aux(x), trained.forward_aux(x))
    assert not any(isinstance(module, LearnedGroupConv2d) for module in loaded.modules())


def test_the_converted_form_costs_what_its_groups_cost():
    full, condensed = (
        cs.measure.cost(layer, (1, 32, 6, 6))
        for layer in (LearnedGroupConv2d(32, 16, groups=4, condensation=8), CondensedConv2d(32, 16, condensation=8))
    )
    assert full.macs == 32 * 16 * 36
    assert condensed.macs == full.macs // 8
    assert full.uncounted == condensed.uncounted == {}


def test_weights_of_pytorchcv_fit_by_position():
    peer_module = pytest.importorskip("pytorchcv.models.condensenet")
    torch.manual_seed(0)
    peer = peer_module.CondenseNet([[24, 32], [48]], 16, 4, in_size=(28, 28), num_classes=10)
    peer.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    peer = jittered(peer)
    for module in peer.modules():
        if hasattr(module, "index"):
            channels = len(module.index) * (2 if isinstance(module, peer_module.CondenseLinear) else 1)
            module.index.copy_(torch.randint(channels, module.index.shape))
    ours = cs.create_model(network(True)).double().eval()
    cs.transplant(peer.state_dict(), ours)
    x = torch.randn(2, 3, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        outputs = ours(x)
        torch.testing.assert_close(outputs, peer(x))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3, "the images give the same output: nothing was compared"


def test_the_training_loop_condenses():
    architecture = tiny_architecture(
        stages=[[cs.spec(CondenseLayer, growth_rate=8, groups=4, condensation=4)]], head=cs.spec(CondenseClassifier, 4)
    )
    trained = cs.train.fit(cs.create_model(architecture), TASK, tiny_data(), RECIPE).network.double().eval()
    assert trained.stages[0][0].reduce.mask.sum(1).tolist() == [2, 2, 2, 2]
    assert trained.head.linear.mask.sum().item() == 8
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(condense_network(trained)(x), trained(x), rtol=0, atol=1e-10)


def test_masks_and_index_survive_a_file(tmp_path):
    layer = LearnedGroupConv2d(8, 8)
    layer.condense(2)
    for module, fresh in ((layer, LearnedGroupConv2d(8, 8)), (None, CondensedConv2d(8, 8))):
        if module is None:
            layer.condense(3)
            module = layer.condensed()
        path = tmp_path / f"{type(fresh).__name__}.safetensors"
        cs.network.save_weights(module, path)
        cs.network.load_weights(fresh, path)
        assert all(torch.equal(a, b) for a, b in zip(module.buffers(), fresh.buffers(), strict=True))


AVERAGES = {
    "mean": {},
    "moving": {"multi_avg_fn": get_ema_multi_avg_fn(0.9)},
    "by_hand": {"avg_fn": lambda average, new, _: 0.9999 * average + (1 - 0.9999) * new},
}


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("use_buffers", [False, True])
def test_an_average_of_the_weights_is_condensed_as_they_are(average, use_buffers):
    trained, steps = nn.Sequential(LearnedGroupConv2d(16, 8), nn.BatchNorm2d(8)), 60
    averaged = AveragedModel(trained, use_buffers=use_buffers, **AVERAGES[average])
    for step in range(steps):
        trained[0].on_step(step, steps)
        trained(torch.randn(2, 16, 3, 3))
        trained[0].conv.weight.data.normal_()
        averaged.update_parameters(trained)
    layer, x = averaged.module.eval()[0], torch.randn(2, 16, 3, 3)
    assert torch.equal(layer.kept, trained[0].kept)
    assert layer.stage == 3
    assert layer.group_lasso() == 0
    torch.testing.assert_close(condense_network(averaged.module)(x), averaged.module(x))


def test_an_average_of_condensed_weights_leaves_the_index():
    layer = LearnedGroupConv2d(16, 8)
    layer.condense(3)
    condensed = layer.condensed()
    averaged = AveragedModel(condensed, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=False)
    for _ in range(3):
        averaged.update_parameters(condensed)
    assert torch.equal(averaged.module.index, condensed.index)


@pytest.mark.parametrize("assign", [False, True])
def test_masks_of_bools_are_loaded(assign):
    layer, fresh = jittered(LearnedGroupConv2d(8, 8)), LearnedGroupConv2d(8, 8).double().eval()
    layer.condense(2)
    fresh.load_state_dict({**layer.state_dict(), "mask": layer.kept}, assign=assign)
    x = maps(8)
    torch.testing.assert_close(fresh(x), layer(x))
    for each in (layer, fresh):
        each.condense(3)
    torch.testing.assert_close(fresh.condensed()(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_masks_are_the_same_in_every_precision(dtype):
    layer = LearnedGroupConv2d(8, 8)
    layer.condense(1)
    before = kept_inputs(layer)
    assert kept_inputs(layer.to(dtype)) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LearnedGroupConv2d(10, 8), "in_channels must be divisible by condensation, got in_channels=10 and"),
        (lambda: LearnedGroupConv2d(8, 10), "out_channels must be divisible by groups, got out_channels=10"),
        (lambda: LearnedGroupConv2d(8, 8, condensation=0), "divisible by condensation, got .* condensation=0"),
        (lambda: CondensedConv2d(8, 10), "out_channels must be divisible by groups"),
        (lambda: CondensedConv2d(10, 8), "in_channels must be divisible by condensation"),
        (lambda: CondenseLayer(16, growth_rate=6), "divisible by groups"),
        (lambda: CondenseClassifier(15, 10), "in_channels must be divisible by condensation"),
        (lambda: CondenseClassifier(16, 0), "num_classes must be positive, got 0"),
        (lambda: LearnedGroupConv2d(8, 8).condense(4), "condensation=4 are 0 to 3, got stage=4"),
        (lambda: LearnedGroupConv2d(8, 8).on_step(0, 0), "at least one step in total, got total_steps=0; give the"),
        (lambda: LearnedGroupConv2d(8, 8).condensed(), "after its last stage, 3, this one is at 0; .* condense\\(3\\)"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_norm_that_mixes_channels_cannot_be_converted():
    layer = LearnedGroupConv2d(8, 8, norm=cs.spec(cs.nn.GroupNorm, groups=2))
    layer.condense(3)
    with pytest.raises(ValueError, match="treat each channel by itself can be converted, got GroupNorm; take batch_no"):
        condense_network(layer)


@pytest.mark.parametrize("condensed", [False, True])
def test_the_network_can_be_traced_exported_and_folded(condensed):
    module = jittered(cs.create_model(network(condensed)))
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        expected = module(x)
        torch.testing.assert_close(torch.fx.symbolic_trace(module)(x), expected)
        torch.testing.assert_close(cs.deploy.fold_norm(module)(x), expected)
        batch = {0: torch.export.Dim("batch", min=1, max=64)}
        program = torch.export.export(module, (x,), dynamic_shapes=(batch,), strict=True).module()
        torch.testing.assert_close(program(x[:1]), expected[:1])
