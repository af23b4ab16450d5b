import copy
import enum
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import convsmith as cs
from convsmith.deploy import NotTraceableError, fold_norm
from convsmith.nn import (
    BatchNorm,
    BatchRenorm,
    ConvNormAct,
    CrossDeviceBatchNorm,
    GhostBatchNorm,
    WeightNorm,
    WeightNormConv2d,
    swap_norm,
)


def randomised(module):
    """In float64, He-scaled, with norms that do something: else folding them wrongly would not show."""
    for layer in module.double().modules():
        if hasattr(layer, "weight") and not isinstance(layer, _BatchNorm) and layer.weight.dim() > 1:
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, 0, 0.3)
    return module


def outputs(module, x):
    with torch.no_grad():
        return module(x)


def check_equal(module, x, *, folded):
    """Fold, compare with the module in eval mode, and see that the norms named and no others are gone."""
    module = randomised(module)
    twin = fold_norm(module)
    assert set(twin.folded_norms) == set(folded)
    reference = copy.deepcopy(module).eval()
    expected, actual = outputs(reference, x.double()), outputs(twin, x.double())
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max()
    count = sum(isinstance(layer, _BatchNorm) for layer in module.modules())
    assert sum(isinstance(layer, _BatchNorm) for layer in twin.modules()) == count - len(folded)
    assert (expected[0] - expected[-1]).abs().max() > 1e-3 * expected.abs().max()
    return twin


@pytest.mark.parametrize(
    ("name", "folded", "norms"),
    [
        ("resnet18", 20, 20),
        ("mobilenet_v2", 52, 52),
        ("densenet121", 59, 121),  # norm before convolution: only the stem's and those inside of a dense layer
        ("shufflenet_v2_x0_5", 56, 56),
        ("googlenet", 57, 59),  # those of the auxiliary heads are not called in eval mode
    ],
)
def test_folded_network_equals_torchvisions(name, folded, norms):
    options = {"init_weights": False} if name == "googlenet" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # googlenet announces another default
        network = randomised(getattr(torchvision.models, name)(weights=None, **options))
    assert sum(isinstance(layer, _BatchNorm) for layer in network.modules()) == norms
    twin = fold_norm(network)
    assert len(twin.folded_norms) == folded
    assert type(twin) is type(network)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected, actual = outputs(network.eval(), x), outputs(twin, x)
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize(("name", "folded", "norms"), [("efficientnet_b0", 49, 49), ("resnetv2_50", 32, 49)])
def test_norms_with_a_built_in_activation_leave_the_activation(name, folded, norms):
    timm = pytest.importorskip("timm")
    network = randomised(timm.create_model(name)).eval()
    assert sum(isinstance(layer, _BatchNorm) for layer in network.modules()) == norms
    twin = fold_norm(network)
    assert len(twin.folded_norms) == folded
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected, actual = outputs(network, x), outputs(twin, x)
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()


IMAGES = torch.randn(3, 4, 9, 9)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (lambda bias: nn.Conv1d(4, 6, 3, groups=2, bias=bias), nn.BatchNorm1d, (3, 4, 9)),
        (lambda bias: nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=bias), nn.BatchNorm2d, (3, 4, 9, 9)),
        (lambda bias: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect", bias=bias), nn.BatchNorm2d, (3, 4, 9, 9)),
        (lambda bias: nn.Conv3d(4, 6, 3, bias=bias), nn.BatchNorm3d, (3, 4, 5, 5, 5)),
        (lambda bias: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=bias), nn.BatchNorm2d, (3, 4, 9, 9)),
        (lambda bias: nn.ConvTranspose1d(4, 6, 3, bias=bias), nn.BatchNorm1d, (3, 4, 9)),
        (lambda bias: nn.Linear(4, 6, bias=bias), nn.BatchNorm1d, (3, 4)),
    ],
)
def test_every_layer_that_can_take_a_norm(layer, norm, shape, affine, bias):
    module = nn.Sequential(layer(bias), norm(6, eps=1e-2, affine=affine), nn.ReLU())
    twin = check_equal(module, torch.randn(shape), folded=["1"])
    assert twin[0].bias is not None


def test_the_module_itself_is_untouched_and_shares_nothing_with_the_copy():
    module = randomised(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout()))
    module[2].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    twin = fold_norm(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert [part.training for part in module] == [True, True, False, True]
    assert not any(part.training for part in twin.modules())
    assert "folded_norms" not in vars(module)


def test_float32_keeps_its_type_and_trainability():
    module = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    module[0].requires_grad_(False)
    twin = fold_norm(module)
    assert [(p.dtype, p.requires_grad) for p in twin.parameters()] == [(torch.float32, False)] * 2


class Parts(nn.Module):
    """Two convolutions and two norms, wired by a subclass."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.p, self.q = nn.BatchNorm2d(4), nn.BatchNorm2d(4)


class DataDependent(nn.Module):
    def __init__(self, layer=None):
        super().__init__()
        self.layer = layer or nn.Identity()

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else -self.layer(x)


class SharedConvolution(Parts):
    def forward(self, x):
        return self.p(self.a(x)) + self.q(self.a(x.relu()))


class SharedNorm(Parts):
    def forward(self, x):
        return self.p(self.a(x)) + self.p(self.b(x))


class NormAlsoElsewhere(Parts):
    def forward(self, x):
        return self.p(self.a(self.p(x)))


class OutputAlsoElsewhere(Parts):
    def forward(self, x):
        y = self.a(x)
        return self.p(y) + y


class ChangedInPlaceBetween(Parts):
    def forward(self, x):
        y = self.a(x)
        y.relu_()
        return self.p(y)


class ConvolutionCalledTwiceNormOnce(Parts):
    def forward(self, x):
        return self.p(self.a(x)) + self.a(x.relu())


class PreActivation(Parts):
    def forward(self, x):
        return self.b(self.q(self.a(self.p(x).relu()).relu()).relu())


class ActivationBetween(Parts):
    def forward(self, x):
        return self.p(F.relu(self.a(x)))


class SumBetween(Parts):
    def forward(self, x):
        return self.p(self.a(x) + self.b(x))


class WeightReadElsewhere(Parts):
    def forward(self, x):
        return self.p(self.a(x)) * self.a.weight.mean()


class StatisticsReadElsewhere(Parts):
    def forward(self, x):
        return self.p(self.a(x)) * self.p.running_var.mean()


class PartOfAnUntraceableBlock(Parts):
    def __init__(self):
        super().__init__()
        self.block = DataDependent(self.a)

    def forward(self, x):
        return self.p(self.block.layer(x)) + self.block(x)


class Functional(Parts):
    def forward(self, x):
        y = F.conv2d(x, self.a.weight, self.a.bias)
        return F.batch_norm(y, self.p.running_mean, self.p.running_var, self.p.weight, self.p.bias)


@pytest.mark.parametrize(
    "module",
    [
        SharedConvolution,
        SharedNorm,
        NormAlsoElsewhere,
        OutputAlsoElsewhere,
        ChangedInPlaceBetween,
        ConvolutionCalledTwiceNormOnce,
        PreActivation,
        ActivationBetween,
        SumBetween,
        WeightReadElsewhere,
        StatisticsReadElsewhere,
        PartOfAnUntraceableBlock,
        Functional,
    ],
)
def test_norms_that_must_stay(module):
    check_equal(module(), IMAGES, folded=[])


class OneOfTwo(Parts):
    def forward(self, x):
        y = self.a(x)
        return self.q(self.b(self.p(y))) + y


class BlockCalledTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))

    def forward(self, x):
        return self.block(self.block(x).relu())


class TuplesBetweenBlocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)) for _ in range(3))

    def forward(self, x):
        maps = x
        for block in self.blocks:
            maps = (maps, maps) if type(maps) is not tuple else maps
            maps = (maps[1], block(maps[0]) + maps[1])
        return maps[-1]


class Kind(enum.Enum):
    PLAIN = 1


class OptionalArgument(Parts):
    def forward(self, x, scale=None, sizes=(1, 2), kind=Kind.PLAIN, *, twice=False):
        y = self.a(x)
        if scale is not None or sizes != (1, 2) or kind is not Kind.PLAIN:
            return self.p(y * scale)
        return self.p(y) if not twice else y + self.q(y)


class SharedUnderTwoNames(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.other = self.one

    def forward(self, x):
        return self.other(x)


class TiedWeights(Parts):
    def __init__(self):
        super().__init__()
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.p(self.a(x)))


@pytest.mark.parametrize(
    ("module", "folded"),
    [
        (OneOfTwo(), ["q"]),
        (BlockCalledTwice(), ["block.1"]),
        (TuplesBetweenBlocks(), ["blocks.0.1", "blocks.1.1", "blocks.2.1"]),
        (OptionalArgument(), ["p"]),
        (SharedUnderTwoNames(), ["one.1"]),
        (TiedWeights(), ["p"]),
        (nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), DataDependent()), ["1"]),
    ],
)
def test_norms_that_fold_in_unusual_places(module, folded):
    check_equal(module, IMAGES, folded=folded)


def test_a_branch_in_the_network_itself_is_an_error_that_names_it():
    with pytest.raises(NotTraceableError, match=r"could not follow that of DataDependent .*; move the branch"):
        fold_norm(DataDependent())


def test_norms_without_running_statistics_stay():
    module = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, track_running_stats=False))
    check_equal(module, IMAGES, folded=[])


def test_hooked_and_parametrised_layers_keep_their_norm():
    hooked = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    hooked[0].register_forward_hook(lambda module, args, output: output * 2)
    check_equal(hooked, IMAGES, folded=[])
    patched = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    patched[0].forward = lambda x: x[:, :1].expand(-1, 6, -1, -1)
    check_equal(patched, IMAGES, folded=[])
    normalised = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)), nn.BatchNorm2d(6))
    twin = fold_norm(normalised.eval())
    assert twin.folded_norms == ()


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias)


def test_subclassed_layers_keep_their_norm():
    check_equal(nn.Sequential(Standardised(4, 6, 3), nn.BatchNorm2d(6)), IMAGES, folded=[])


class TrainingOnly(nn.BatchNorm2d):
    """Differs from its base in training mode."""

    def forward(self, x):
        return super().forward(x + 1) if self.training else super().forward(x)


class ResidualNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + x


class ScaledNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(2 * x)


class BranchingNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("norm", "folded"), [(TrainingOnly, ["1"]), (ResidualNorm, []), (ScaledNorm, []), (BranchingNorm, [])]
)
def test_subclassed_norms_fold_exactly_if_they_normalise_first(norm, folded):
    check_equal(nn.Sequential(nn.Conv2d(4, 6, 3), norm(6)), IMAGES, folded=folded)


def test_a_linear_layer_whose_channels_are_not_the_norms_is_no_pair():
    check_equal(nn.Sequential(nn.Linear(9, 5), nn.BatchNorm1d(4)), torch.randn(3, 4, 9), folded=[])
    # As many positions as features: from the sizes alone it looks like a pair, so the input is checked.
    twin = fold_norm(nn.Sequential(nn.Linear(9, 4), nn.BatchNorm1d(4)))
    with pytest.raises(ValueError, match=r"needs an input of shape \(N, C\), got \(3, 4, 4\)"):
        twin(torch.randn(3, 4, 9))


def test_an_example_tells_what_a_norm_behind_a_linear_layer_gets():
    layers = nn.Linear(9, 4), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3)
    network = randomised(nn.Sequential(*layers))
    x = torch.randn(3, 4, 9).double()
    folded = fold_norm(network, x)
    assert folded.folded_norms == ("4",)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), network.eval()(x))
    assert not any(module._forward_pre_hooks for module in folded.modules())
    flat = nn.Sequential(nn.Linear(9, 4), nn.BatchNorm1d(4))
    assert fold_norm(flat, torch.randn(3, 9)).folded_norms == ("1",)


def test_the_pass_over_the_example_changes_nothing_of_the_module():
    class Clamps(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4)
            self.factor = nn.Parameter(-torch.ones(4))

        def forward(self, x):
            with torch.no_grad():
                self.factor.clamp_(min=0.5)
            return self.norm(self.linear(x)) * self.factor

    module = Clamps().eval()
    fold_norm(module, torch.randn(2, 6))
    assert torch.equal(module.factor, -torch.ones(4))


def test_a_network_that_cannot_be_copied_is_refused():
    module = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    module.computed = [module[0].weight * 2]
    with pytest.raises(ValueError, match=r"must be copyable by copy.deepcopy, and Sequential is not"):
        fold_norm(module)


@pytest.mark.parametrize("norm", [BatchNorm, BatchRenorm, GhostBatchNorm, CrossDeviceBatchNorm])
def test_every_batch_norm_of_ours_folds(norm):
    block = ConvNormAct(4, 6, norm=cs.spec(norm, eps=1e-2), act="tanh")
    assert type(check_equal(block, IMAGES, folded=["norm"]).norm) is not norm
    check_equal(nn.Sequential(nn.Conv2d(4, 6, 3), norm(6)), IMAGES, folded=["1"])


def test_a_network_with_another_batch_norm_folds_as_its_original():
    networks = [
        cs.zoo.get("resnet18", num_classes=5),
        swap_norm(cs.zoo.get("resnet18", num_classes=5), cs.spec(BatchRenorm)),
    ]
    names = [fold_norm(cs.create_model(network)).folded_norms for network in networks]
    assert names[0] == names[1]
    assert len(names[0]) == 20


def test_weight_norm_becomes_a_plain_convolution():
    block = ConvNormAct(4, 6, norm=cs.spec(WeightNorm), act="tanh").double()
    nn.init.uniform_(block.conv.g)
    twin = fold_norm(block)
    assert (type(block.conv), type(twin.conv), twin.folded_norms) == (WeightNormConv2d, nn.Conv2d, ())
    torch.testing.assert_close(outputs(twin, IMAGES.double()), outputs(block, IMAGES.double()))
    behind = randomised(nn.Sequential(WeightNormConv2d(4, 6), nn.BatchNorm2d(6)))
    assert type(check_equal(behind, IMAGES, folded=["1"])[0]) is nn.Conv2d


def test_a_weight_normalised_convolution_that_is_shared_stays_shared():
    conv = WeightNormConv2d(4, 4)
    twin = fold_norm(nn.Sequential(conv, nn.Tanh(), conv))
    assert twin[0] is twin[2]
    assert type(twin[0]) is nn.Conv2d


def test_hooked_weight_norm_stays():
    module = nn.Sequential(WeightNormConv2d(4, 6), nn.BatchNorm2d(6))
    module[0].register_forward_hook(lambda module, args, output: output * 2)
    assert type(check_equal(module, IMAGES, folded=[])[0]) is WeightNormConv2d


class Caught(nn.Module):
    """Goes another way where values cannot be had, which it notices by the error."""

    def __init__(self, asks):
        super().__init__()
        self.conv, self.norm, self.asks = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), asks

    def forward(self, x):
        y = self.norm(self.conv(x))
        try:
            return 2 * y if self.asks(y) else y
        except Exception:
            return 3 * y


QUESTIONS = {
    "bool": lambda y: y.mean() < 99,
    "float": lambda y: float(y.mean()) < 99,
    "int": lambda y: int(y.mean()) < 99,
    "length": lambda y: len(y) < 99,
    "loop": lambda y: [row for row in y],  # noqa: C416
    "sizes": lambda y: len(y.shape) < 99,
    "words": lambda y: f"{y.mean():.1f}" != "",
}


@pytest.mark.parametrize("asks", QUESTIONS.values(), ids=list(QUESTIONS))
def test_an_error_that_forward_catches_stops_the_tracing(asks):
    with pytest.raises(NotTraceableError):
        fold_norm(Caught(asks))
    outer = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), Caught(asks)).eval()
    x = torch.randn(2, 3, 5, 5)
    twin = fold_norm(outer)
    assert set(twin.folded_norms) == {"1"}  # what is inside is left alone
    torch.testing.assert_close(outputs(twin, x), outputs(outer, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "forward",
    [
        lambda x, own: x + torch.zeros(x.shape[3]),
        lambda x, own: x + own.narrow(3, 0, x.shape[3]),
        lambda x, own: x + torch.tile(own[..., :1], (1, 1, 1, x.shape[3])),
        lambda x, own: x @ torch.eye(x.shape[3]),
    ],
    ids=["zeros", "narrow", "tile", "eye"],
)
def test_sizes_that_torch_reads_off_a_map_are_traced(forward):
    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.register_buffer("own", torch.randn(1, 1, 1, 9))

        def forward(self, x):
            return forward(self.norm(self.conv(x)), self.own)

    module, x = Sized().eval(), torch.randn(2, 3, 5, 5)
    twin = fold_norm(module)
    assert set(twin.folded_norms) == {"norm"}
    torch.testing.assert_close(outputs(twin, x), outputs(module, x), rtol=1e-4, atol=1e-5)
