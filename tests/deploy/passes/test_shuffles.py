import copy
import random

import pytest
import torch
import torchvision
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

import convsmith as cs
from convsmith.deploy import NotTraceableError, fold_norm
from convsmith.deploy.passes.lean import lean
from convsmith.deploy.passes.shuffles import unshuffle
from convsmith.nn import ChannelShuffle, ConvNormAct, InterlacedGroupConv, ShuffleUnitV2, SqueezeExcite


def randomised(module):
    """In float64 and eval mode, He-scaled, with norms and biases that do something: a wrong order would show."""
    for layer in module.double().modules():
        if isinstance(layer, _BatchNorm):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.uniform_(0.5, 1.5)
        elif getattr(layer, "weight", None) is not None:
            nn.init.kaiming_normal_(layer.weight) if layer.weight.dim() > 1 else nn.init.uniform_(
                layer.weight, 0.5, 1.5
            )
            if layer.bias is not None:
                nn.init.normal_(layer.bias, 0, 0.3)
    return module.eval()


def check_equal(module, x, *, shuffles):
    """Unshuffle, compare with the module, and count what still permutes channels."""
    twin = unshuffle(module)
    with torch.no_grad():
        expected, actual = copy.deepcopy(module).eval()(x.clone()), twin(x.clone())
    assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert (expected[0] - expected[-1]).abs().max() > 1e-3 * expected.abs().max()
    assert permutations(twin) == shuffles
    return twin


def permutations(module):
    if not isinstance(module, fx.GraphModule):
        return "unchanged"
    names = [getattr(node.target, "__name__", node.target) for node in module.graph.nodes]
    return sum(name in ("channel_shuffle", "shuffle_channels", "index_select", "transpose") for name in names)


@pytest.mark.parametrize(
    ("name", "folded_norms", "shuffles"),
    [
        ("shufflenet_v2_x0_5", 0, 0),
        ("shufflenet_v2_x0_5", 56, 0),
        ("shufflenet_v2_x1_0_paper", 56, 0),
        ("shufflenet_v2_x2_0", 0, 0),  # halves of odd width
        ("shufflenet_v1_g3_x0_25", 49, 15),  # all but that of the first unit, whose first convolution has no groups
        ("shufflenet_v1_g8_x0_25", 0, 15),
    ],
)
def test_networks_without_their_shuffles_compute_the_same(name, folded_norms, shuffles):
    network = randomised(cs.create_model(name))
    network = fold_norm(network) if folded_norms else network
    twin = check_equal(network, torch.randn(2, 3, 64, 64, dtype=torch.float64), shuffles=shuffles)
    assert len(getattr(twin, "folded_norms", ())) == folded_norms


def test_torchvisions_shuffle_by_views_is_followed_too():
    network = randomised(torchvision.models.shufflenet_v2_x0_5(weights=None))
    check_equal(network, torch.randn(2, 3, 64, 64, dtype=torch.float64), shuffles=0)


def test_a_unit_copies_only_what_it_reads():
    network = fold_norm(randomised(cs.create_model("shufflenet_v2_x1_0")))
    twin = unshuffle(network)
    widths = {}

    class Widths(fx.Interpreter):
        def run_node(self, node):
            result = super().run_node(node)
            if node.target is torch.cat:
                widths[node] = result.shape[1]
            return result

    with torch.no_grad():
        Widths(twin).run(torch.randn(1, 3, 32, 32, dtype=torch.float64))
    assert list(widths.values()) == [58, 58, 58, 116, *[116] * 7, 232, *[232] * 3, 464]
    assert max(len(node.args[0]) for node in widths) == 9


class Residual(nn.Module):
    """A unit of SE-ShuffleNet v2-164: the second half is added to what it becomes, which is squeezed before that."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(ConvNormAct(half, 5, kernel_size=1), ConvNormAct(5, half), SqueezeExcite(half))
        self.shuffle = ChannelShuffle(channels, groups=2)

    def forward(self, x):
        a, b = x.chunk(2, 1)
        return self.shuffle(torch.cat((a, F.relu(self.branch(b) + b)), 1))


class Extended(nn.Module):
    """ShuffleNet v2*: a depthwise convolution in front of the unit's first one."""

    def __init__(self, channels):
        super().__init__()
        self.depthwise = ConvNormAct(channels // 2, channels // 2, groups=channels // 2)
        self.unit = ShuffleUnitV2(channels, channels)

    def forward(self, x):
        a, b = x.chunk(2, 1)
        return self.unit(torch.cat((a, self.depthwise(b)), 1))


class Sliced(nn.Module):
    """Split by index, shuffled by torch's own layer, the parts of three sizes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(12, 12, 1), nn.Conv2d(5, 6, 1)
        self.shuffle, self.last = nn.ChannelShuffle(3), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        x = self.shuffle(self.first(x).relu())
        a, b, _ = x.split([3, 5, 4], 1)
        x = torch.cat([x[:, 8:], self.second(b), a[:, ::2]], dim=1)
        return self.last(F.channel_shuffle(x, 4))


class ReadTwice(nn.Module):
    """Two convolutions, pooling and a sum read the shuffled map, in different parts."""

    def __init__(self):
        super().__init__()
        self.first, self.wide, self.narrow = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(6, 12, 1)
        self.last = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        x = F.channel_shuffle(self.first(x), 3)
        y = self.wide(x) + self.narrow(x[:, 3:9]) + F.max_pool2d(x, 3, 1, 1)
        return self.last(F.channel_shuffle(y, 2))


def chain(*layers):
    return nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), *layers)


GROUPED = nn.Conv2d(12, 12, 1, groups=3)
CASES = {
    "residual": (chain(Residual(12), Residual(12), Residual(12), nn.Conv2d(12, 4, 1)), 0),
    "extended": (chain(Extended(12), Extended(12), nn.Conv2d(12, 4, 1)), 0),
    "sliced": (Sliced(), 0),
    "read_twice": (ReadTwice(), 0),
    "norms_not_folded": (chain(ChannelShuffle(12, groups=3), nn.BatchNorm2d(12), nn.Conv2d(12, 4, 1)), 0),
    "depthwise_between": (chain(ChannelShuffle(12, groups=3), nn.Conv2d(12, 12, 3, groups=12), GROUPED), 0),
    "classifier_behind": (chain(*(ShuffleUnitV2(12, 12) for _ in range(3)), cs.nn.Classifier(12, 5, dropout=0.1)), 0),
    "group_norm_behind": (chain(nn.ReLU(), ChannelShuffle(12, groups=3), nn.GroupNorm(3, 12), nn.Conv2d(12, 4, 1)), 0),
    # The order of the last map, and that of groups, is given.
    "output": (nn.Sequential(nn.Conv2d(12, 48, 1), ShuffleUnitV2(48, 48), ShuffleUnitV2(48, 48)), 1),
    "between_groups": (chain(GROUPED, ChannelShuffle(12, groups=3), copy.deepcopy(GROUPED)), "unchanged"),
    "interlaced": (InterlacedGroupConv(12, 12), "unchanged"),
}


@pytest.mark.parametrize("name", CASES)
def test_wirings(name):
    module, shuffles = CASES[name]
    channels = next(layer.in_channels for layer in module.modules() if isinstance(layer, nn.Conv2d))
    check_equal(randomised(module), torch.randn(2, channels, 7, 7, dtype=torch.float64), shuffles=shuffles)


class Changed(nn.Module):
    """Maps that are changed in place: `how` says which."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.first, self.second = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 12, 1)
        self.last, self.act = nn.Conv2d(24, 4, 1), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.first(x)
        y = F.channel_shuffle(x, 3)
        if self.how == "shuffled map":
            y = self.act(y)
        elif self.how == "half of it":
            y.chunk(2, 1)[0].relu_()
        elif self.how == "what was shuffled":
            x.add_(1)
        elif self.how == "what was shuffled, behind an identity":
            F.dropout(x, 0.5, False).mul_(2)
        elif self.how == "own sum":
            y = self.second(y)
            y += x
            y = F.relu(y, True)
        return self.last(torch.cat((y, x), 1))


@pytest.mark.parametrize(
    ("how", "shuffles"),
    [
        ("nothing", 0),
        ("shuffled map", 0),
        ("half of it", "unchanged"),
        ("what was shuffled", "unchanged"),
        ("what was shuffled, behind an identity", "unchanged"),
        ("own sum", 0),
    ],
)
def test_maps_that_are_changed_in_place(how, shuffles):
    check_equal(randomised(Changed(how)), torch.randn(2, 12, 5, 5, dtype=torch.float64), shuffles=shuffles)


class SharedConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 12, 1)

    def forward(self, x):
        return self.second(F.channel_shuffle(self.second(F.channel_shuffle(self.first(x), 3)).relu(), 2))


class ReadWeight(SharedConvolution):
    def forward(self, x):
        return self.second(F.channel_shuffle(self.first(x), 3)) * self.first.weight.mean((1, 2, 3)).view(1, -1, 1, 1)


class Scaled(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * torch.arange(1, 1 + self.out_channels).to(x).view(1, -1, 1, 1)


def hooked():
    module = chain(ChannelShuffle(12, groups=3), nn.Conv2d(12, 4, 1))
    module[0].register_forward_hook(lambda layer, arguments, output: output * torch.arange(12.0).view(1, -1, 1, 1))
    return module


@pytest.mark.parametrize(
    ("module", "shuffles"),
    [
        (SharedConvolution(), 1),  # its own weights must do for both of its calls
        (ReadWeight(), "unchanged"),
        (nn.Sequential(Scaled(12, 12, 1), ChannelShuffle(12, groups=3), nn.Conv2d(12, 4, 1)), "unchanged"),
        (hooked(), "unchanged"),
        (nn.Sequential(nn.Conv2d(12, 12, 1), nn.ReLU(), nn.Conv2d(12, 4, 1)), "unchanged"),
    ],
)
def test_layers_whose_weights_are_not_theirs_alone_keep_their_order(module, shuffles):
    check_equal(randomised(module), torch.randn(2, 12, 5, 5, dtype=torch.float64), shuffles=shuffles)


def test_the_module_is_untouched_and_shares_nothing_with_the_copy():
    module = randomised(chain(ChannelShuffle(12, groups=3), nn.BatchNorm2d(12), nn.Conv2d(12, 4, 1)))
    module[0].weight.requires_grad_(False)
    module.float().train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    twin = unshuffle(module)
    assert [(p.dtype, p.requires_grad) for p in twin.parameters()] == [
        (torch.float32, p is not module[0].weight) for p in module.parameters()
    ]
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert module.training
    assert not any(part.training for part in twin.modules())


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_or_was_misread_is_left_as_it_is(monkeypatch):
    with pytest.raises(NotTraceableError, match="could not follow that of Branching"):
        unshuffle(Branching())
    assert isinstance(lean(Branching(), torch.ones(1, 2)), Branching)
    module = randomised(chain(ChannelShuffle(12, groups=3), nn.Conv2d(12, 4, 1))).float()
    example = torch.randn(1, 12, 5, 5)
    assert isinstance(lean(module, example), fx.GraphModule)
    monkeypatch.setattr("convsmith.deploy.passes.shuffles._permute_weights", lambda *arguments: None)
    assert not isinstance(lean(module, example), fx.GraphModule)


@pytest.mark.slow
def test_the_onnx_model_of_shufflenet_v2_moves_no_axes():
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from convsmith.deploy import onnx as conversion

    network = fold_norm(randomised(cs.create_model("shufflenet_v2_x1_0")).float())
    example = torch.randn(2, 3, 64, 64)
    data = conversion.convert(unshuffle(network), example, {})
    graph = onnx.load_model_from_string(data).graph
    kinds = [node.op_type for node in graph.node]
    assert set(kinds) == {"Conv", "Relu", "MaxPool", "Split", "Concat", "GlobalAveragePool", "Flatten", "Gemm"}
    assert kinds.count("Flatten") == 1  # of the classifier
    expected = network(example)
    actual = conversion.load(data, 1)(example)
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def layer(kind, width, number):
    if kind == "convolution":
        return nn.Conv2d(width, 6 * (number % 2 + 1), 1)
    if kind == "norm":
        return nn.BatchNorm2d(width)
    return nn.Conv2d(width, width, 3, padding=1, groups=width if kind == "depthwise" else 3)


class Dice(nn.Module):
    """A wiring at random, of three sources and up to 14 layers, sums, shuffles, halves and concatenations."""

    KINDS = ("convolution", "convolution", "depthwise", "grouped", "norm", "relu", "sum", "shuffle", "cat", "half")

    def __init__(self, seed):
        super().__init__()
        dice = random.Random(seed)
        self.layers = nn.ModuleList(nn.Conv2d(3, 12, 1) for _ in range(3))
        self.steps, widths = [], [12, 12, 12]
        for _ in range(dice.randint(4, 14)):
            kind, i, number = dice.choice(self.KINDS), dice.randrange(len(widths)), dice.randrange(12)
            width = widths[i]  # 3 * 2^n
            if kind == "half" and width % 2:
                continue
            if kind in ("convolution", "depthwise", "grouped", "norm"):
                number = len(self.layers)
                self.layers.append(layer(kind, width, number))
            elif kind in ("sum", "cat"):
                number = dice.choice([k for k, other in enumerate(widths) if other == width])
            elif kind == "shuffle":
                number = 3 if width % 2 else dice.choice([2, 3])
            self.steps.append((kind, i, number))
            widths.append({"cat": 2 * width, "half": width // 2}.get(kind, width))
            if kind == "convolution":
                widths[-1] = self.layers[-1].out_channels
        self.open = dice.random() < 0.3
        self.last = nn.Conv2d(sum(widths[-4:]), 4, 1)

    def forward(self, x):
        maps = [layer(x) for layer in self.layers[:3]]
        for kind, i, number in self.steps:
            y = maps[i]
            if kind == "relu":
                y = y.relu()
            elif kind == "sum":
                y = y + maps[number] * 2
            elif kind == "shuffle":
                y = F.channel_shuffle(y, number)
            elif kind == "cat":
                y = torch.cat((y, maps[number]), 1)
            elif kind == "half":
                y = y.chunk(2, 1)[number % 2]
            else:
                y = self.layers[number](y)
            maps.append(y)
        x = torch.cat(maps[-4:], 1)
        return x if self.open else self.last(x)


def test_random_wirings():
    rewired = 0
    for seed in range(60):
        torch.manual_seed(seed)
        module = randomised(Dice(seed))
        x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
        twin = unshuffle(module)
        with torch.no_grad():
            expected, actual = module(x), twin(x)
        assert (actual - expected).abs().max() <= 1e-12 * expected.abs().max(), seed
        rewired += isinstance(twin, fx.GraphModule)
    assert rewired > 20
