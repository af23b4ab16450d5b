import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.nn import BatchNorm, BatchRenorm, GhostBatchNorm, GroupNorm, precise_batch_norm


def batches(sizes=(4, 7, 2)):
    return [torch.randn(n, 3, 6, 5, dtype=torch.float64) * (i + 1) + i for i, n in enumerate(sizes)]


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_statistics_are_those_of_all_values_together():
    norm, given = BatchNorm(3, momentum=0.7).double(), batches()
    assert precise_batch_norm(nn.Sequential(norm), given) == ["0"]
    values = torch.cat(given).transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, values.mean(1))
    torch.testing.assert_close(norm.running_var, values.var(1))
    # So they are what batch norm itself keeps of the joined batch.
    peer = BatchNorm(3, momentum=1.0).double()
    peer(torch.cat(given))
    torch.testing.assert_close((norm.running_mean, norm.running_var), (peer.running_mean, peer.running_var))


def test_the_formula_of_wu_and_johnson():
    norm, given = BatchNorm(3).double(), batches((5, 5, 5))
    precise_batch_norm(norm, given)
    means = torch.stack([x.mean((0, 2, 3)) for x in given])
    variances = torch.stack([x.var((0, 2, 3), unbiased=False) for x in given])
    expected = (means**2 + variances).mean(0) - means.mean(0) ** 2
    count = 15 * 6 * 5
    torch.testing.assert_close(norm.running_var, expected * count / (count - 1))


def network(norm=None):
    torch.manual_seed(1)
    norm = cs.spec(BatchNorm) if norm is None else norm
    architecture = cs.Architecture(
        stem=[cs.spec(cs.nn.ConvNormAct, 8, norm=norm)],
        stages=[[cs.spec(cs.nn.BasicBlock, 8, norm=norm), cs.spec(cs.nn.DropPath, rate=0.5)]],
        head=cs.spec(cs.nn.Classifier, 3, dropout=0.5),
        aux=[(0, 0, cs.spec(cs.nn.AuxClassifier, 3, grid=2, channels=4, hidden_channels=4, norm=norm))],
    )
    return cs.create_model(architecture).double()


def test_later_layers_read_maps_normalised_by_their_batch():
    net, given = network(), batches()
    seen = []
    second = net.stages[0][0].conv1
    precise_batch_norm(net, given)
    # The same maps by hand: the stem's batch norm in training mode, and nothing else.
    stem = net.stem[0]
    for x in given:
        y = stem.conv(x)
        mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), unbiased=False, keepdim=True)
        seen.append(second.conv(((y - mean) / (var + 1e-5).sqrt()).relu()))
    values = torch.cat(seen).transpose(0, 1).flatten(1)
    torch.testing.assert_close(second.norm.running_mean, values.mean(1))
    torch.testing.assert_close(second.norm.running_var, values.var(1))


@pytest.mark.parametrize("training", [True, False])
def test_everything_else_stays_as_it_was(training):
    net = network().train(training)
    net.stages[0][0].conv1.norm.eval()
    before, flags = state(net), [module.training for module in net.modules()]
    given = [(x, torch.zeros(len(x))) for x in batches()]
    generator = torch.get_rng_state()
    names = precise_batch_norm(net, given)
    assert names == ["stem.0.norm", "stages.0.0.conv1.norm", "stages.0.0.conv2.norm"]
    changed = [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == [f"{name}.running_{kind}" for name in names for kind in ("mean", "var")]
    assert [module.training for module in net.modules()] == flags
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert torch.equal(torch.get_rng_state(), generator)  # nothing was dropped
    assert all(p.grad is None for p in net.parameters())


def test_auxiliary_heads_are_reached_by_another_call():
    net = network()
    names = precise_batch_norm(net, batches(), forward=net.forward_aux)
    assert "aux.0.conv.norm" in names


def test_an_error_restores_everything():
    net = network().train()
    net(torch.randn(2, 3, 6, 5, dtype=torch.float64))
    before = state(net)

    def given():
        yield from batches()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        precise_batch_norm(net, given())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training and not module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("norm", [cs.spec(BatchRenorm), cs.spec(GhostBatchNorm, ghost_batch_size=64)], ids=str)
def test_other_batch_norms_normalise_as_batch_norm_meanwhile(norm):
    net, peer, given = network(norm), network(), batches()
    peer.load_state_dict(net.state_dict())
    renorms = [module for module in net.modules() if isinstance(module, BatchRenorm)]
    for module in renorms:
        module.r_max.fill_(2.5)
        module.d_max.fill_(4.0)
    precise_batch_norm(net, given)
    precise_batch_norm(peer, given)
    count = sum(x[:, 0].numel() for x in given)  # of each map, as no layer has a stride
    for name, value in peer.state_dict().items():
        biased = renorms and name.endswith("running_var") and not name.startswith("aux")
        torch.testing.assert_close(net.state_dict()[name], value * (count - 1) / count if biased else value)
    assert [(module.r_max.item(), module.d_max.item()) for module in renorms] == [(2.5, 4.0)] * len(renorms)


@pytest.mark.parametrize("norm", [BatchNorm, BatchRenorm, GhostBatchNorm])
def test_training_on_a_batch_converges_to_its_precise_statistics(norm):
    norm, (x,) = norm(3, momentum=0.5).double(), batches((4,))
    for _ in range(100):
        norm(x)
    trained = norm.running_mean.clone(), norm.running_var.clone()
    precise_batch_norm(norm, [x])
    torch.testing.assert_close((norm.running_mean, norm.running_var), trained)


@pytest.mark.parametrize("part", [False, True])
def test_a_compiled_network_runs_uncompiled(part):
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNorm(4)).double(), batches((4,))[0]
    values = net[0](x).transpose(0, 1).flatten(1)
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        net.eval()[1].train()  # the modes of the pass: the program of just these is there already
        compiled(x)
    names = precise_batch_norm(nn.Sequential(compiled) if part else compiled, [x])
    assert names == ["0._orig_mod.1" if part else "_orig_mod.1"]
    torch.testing.assert_close((net[1].running_mean, net[1].running_var), (values.mean(1), values.var(1)))


def test_ghost_batches_leave_the_pooled_statistics_alone():
    norm, given = GhostBatchNorm(3, ghost_batch_size=2).double(), batches((4, 6))
    precise_batch_norm(norm, given)
    values = torch.cat(given).transpose(0, 1).flatten(1)
    torch.testing.assert_close((norm.running_mean, norm.running_var), (values.mean(1), values.var(1)))


def test_single_precision_and_torchs_own_norms():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 30, 6), nn.BatchNorm1d(6))
    given = [x.float() + 100 for x in batches()]
    assert precise_batch_norm(net, given) == ["1", "4"]
    values = torch.cat([net[0](x) for x in given]).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(net[1].running_mean.double(), values.mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net[1].running_var.double(), values.var(1), rtol=1e-4, atol=0)


def test_what_cannot_be_recomputed():
    with pytest.raises(ValueError, match="must have a batch norm with running statistics, got none"):
        precise_batch_norm(nn.Sequential(GroupNorm(4, groups=2)), batches())
    with pytest.raises(ValueError, match="at least one batch that meets a batch norm, got none"):
        precise_batch_norm(BatchNorm(3), [])


@pytest.mark.parametrize(
    "batch", [{"image": torch.ones(2, 3, 4, 4)}, [], ["cat.png"], None], ids=lambda batch: type(batch).__name__
)
def test_batches_without_images_in_front_are_refused(batch):
    norm = BatchNorm(3)
    with pytest.raises(
        TypeError, match=r"must be a tensor of images, or a tuple or list .*, got <class .*; pick the im"
    ):
        precise_batch_norm(norm, [batch])
    assert precise_batch_norm(norm, [[torch.ones(2, 3, 4, 4), 1]]) == [""]


def test_a_norm_of_means_alone_takes_part():
    network = nn.Sequential(cs.nn.ConvNormAct(3, 4, norm=cs.spec(cs.nn.MeanOnlyBatchNorm))).double()
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert precise_batch_norm(network, [x[:2], x[2:]]) == ["0.norm"]
    torch.testing.assert_close(network[0].norm.running_mean, network[0].conv(x).mean((0, 2, 3)))
