"""What is judged by execution: activations behind depthwise convolutions, shortcuts, gates, groups that meet."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convsmith.measure import advise
from convsmith.measure.advice.case import Case
from convsmith.measure.advice.elementwise import few_elementwise
from convsmith.measure.advice.flow import follow
from convsmith.measure.advice.joins import gates_in, longest_chain, shortcuts_in
from convsmith.nn import SqueezeExcite, Swish
from tests.measure.untouched import state

SHAPE = (1, 8, 16, 16)
BYTES = 4 * 8 * 16 * 16  # of one map of that shape


class Calls(nn.Module):
    """A module whose forward is a function of itself and the input."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def depthwise():
    return nn.Conv2d(8, 8, 3, padding=1, groups=8)


def pointwise():
    return nn.Conv2d(8, 8, 1)


def case_of(network):
    return Case(network, None, SHAPE, "classification", 32, 1, "cpu", timed=False)


def findings(module, shape=SHAPE):
    return {finding.rule: finding for finding in advise(module, input_shape=shape, timed=False)}


# fmt: off
FUNCTIONS = {
    "F.relu": (lambda x: F.relu(x), 2),
    "F.gelu": (lambda x: F.gelu(x), 2),
    "torch.sigmoid": (lambda x: torch.sigmoid(x), 2),
    "x.relu()": (lambda x: x.relu(), 2),
    "x.relu_()": (lambda x: x.relu_(), 2),
    "clamp": (lambda x: x.clamp(min=0), 2),
    "written out": (lambda x: x * torch.sigmoid(x), 5),  # reads one map and writes one, then reads two and writes one
    "a hard swish": (lambda x: x * (F.relu6(x + 3) / 6), 5),
}
# fmt: on


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_behind_a_depthwise_convolution_is_found_with_its_own_traffic(function):
    call, maps = FUNCTIONS[function]
    block = Calls(lambda self, x: self.two(call(self.norm(self.one(x)))), one=depthwise(), norm=nn.BatchNorm2d(8))
    block.two = pointwise()
    network = nn.Sequential(pointwise(), block)
    found = findings(network)["G4"]
    assert found.where == ("1",)
    assert found.value == maps * BYTES / case_of(network).cost.memory_bytes


def test_the_network_is_left_as_it_was():
    network = nn.Sequential(depthwise(), nn.BatchNorm2d(8), Calls(lambda self, x: F.relu_(x))).train()
    before = state(network)
    assert follow(network, SHAPE)[-1].name == "relu"
    assert state(network) == before


def test_the_time_is_that_of_activations_alone():
    block = Calls(lambda self, x: self.two(F.relu_(self.one(x))) + x, one=depthwise(), two=pointwise())
    case = case_of(block)
    names = {"relu_": 1.0, "add": 2.0, "convolution": 7.0}
    steps = [SimpleNamespace(module="", operator=name, category="elementwise", ms=ms) for name, ms in names.items()]
    vars(case)["profile"] = SimpleNamespace(steps=steps, total_ms=10.0)
    (found,) = few_elementwise(case)
    assert case.finished(found).time_share == 0.1
    assert case.time_share(("",)) == 1.0


@pytest.mark.parametrize(
    ("between", "found"),
    [
        (lambda self, x: x, True),
        (lambda self, x: F.dropout(x, 0.5, self.training), True),
        (lambda self, x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), True),
        (lambda self, x: self.scale * x + 1, True),
        (lambda self, x: torch.cat([self.other(x), self.one(x)], 1)[:, :8], True),
        (lambda self, x: self.point(x), False),
        (lambda self, x: F.linear(x.movedim(1, -1), self.point.weight.flatten(1)).movedim(-1, 1), False),
        (lambda self, x: F.avg_pool2d(x, 2), False),
        (lambda self, x: x + self.point(x), False),
    ],
)
def test_what_may_stand_between(between, found):
    network = Calls(
        lambda self, x: F.relu(between(self, self.one(x))), one=depthwise(), other=depthwise(), point=pointwise()
    )
    network.scale = nn.Parameter(torch.ones(8, 1, 1))
    assert ("G4" in findings(network)) == found
    assert findings(network)["G4"].where == ("",) if found else True


def test_the_order_of_execution_counts_and_not_that_of_registration():
    def forward(self, x):
        return self.point(self.depth(self.act(x)))

    assert "G4" not in findings(Calls(forward, depth=depthwise(), act=nn.ReLU(), point=pointwise()))

    def behind(self, x):
        return self.point(self.act(self.depth(x)))

    assert findings(Calls(behind, act=nn.ReLU(), point=pointwise(), depth=depthwise()))["G4"].where == ("act",)


def test_of_a_shared_activation_only_the_calls_behind_count():
    def forward(self, x):
        return self.act(self.point(self.act(self.depth(x))))

    network = Calls(forward, act=nn.ReLU(), point=pointwise(), depth=depthwise())
    case = case_of(network)
    assert findings(network)["G4"].value == 2 * BYTES / case.cost.memory_bytes
    assert case.cost.by_module["act"].memory_bytes == 4 * BYTES


def test_a_pass_that_needs_values_is_followed_too():
    def forward(self, x):
        return F.relu(self.depth(x)) if x.sum() > 1e9 else self.depth(x).relu()

    (found,) = few_elementwise(case_of(Calls(forward, depth=depthwise())))
    assert found.where == ("",)


@pytest.mark.slow
def test_other_libraries_networks():
    models = pytest.importorskip("torchvision.models")
    images = (1, 3, 64, 64)
    assert "G4" not in findings(models.convnext_tiny(), images)  # a linear layer stands between
    found = {name: findings(getattr(models, name)(), images) for name in ("mobilenet_v2", "mobilenet_v3_small")}
    assert [len(own["G4"].where) for own in found.values()] == [17, 11]
    assert found["mobilenet_v2"]["G4"].where[0] == "features.1.conv.0.2"
    assert ["attention" in own for own in found.values()] == [True, False]


def chain(number):
    return nn.Sequential(*(nn.Sequential(pointwise(), nn.ReLU()) for _ in range(number)))


# fmt: off
JOINS = {  # what the forward does, and whether it is a shortcut
    "residual": (lambda self, x: x + self.one(x), True),
    "in place": (lambda self, x: self.one(x).add_(x), True),
    "dense": (lambda self, x: torch.cat([x, self.one(x)], 1), True),
    "projected": (lambda self, x: self.one(x) + self.two(self.other(x)), True),
    "written in place": (lambda self, x: kept(x, self.one(x)), True),
    "position embedding": (lambda self, x: self.one(x) + self.embedding, False),
    "bias": (lambda self, x: self.one(x) + 1.0, False),
    "branches of one depth": (lambda self, x: self.one(x) + self.other(x), False),
    "of one depth, beside one another": (lambda self, x: torch.cat([self.one(x), self.other(x)], 1), False),
    "a pooled vector": (lambda self, x: x + self.one(x.mean((2, 3), keepdim=True)), False),
    "an average": (lambda self, x: x - x.mean(1, keepdim=True), False),
}
# fmt: on


def kept(x, new):
    whole = x.new_empty(x.shape[0], 16, *x.shape[2:])
    whole[:, :8], whole[:, 8:] = x, new
    return whole * 2


@pytest.mark.parametrize("name", JOINS)
def test_what_is_a_shortcut(name):
    forward, is_shortcut = JOINS[name]
    network = Calls(forward, one=pointwise(), two=pointwise(), other=pointwise())
    network.embedding = nn.Parameter(torch.zeros(1, 8, 16, 16))
    assert bool(shortcuts_in(follow(network, SHAPE))) == is_shortcut


def test_a_single_addition_hides_no_long_chain():
    plain = Calls(lambda self, x: self.convs(x) + self.embedding, convs=chain(12))
    plain.embedding = nn.Parameter(torch.zeros(1, 8, 16, 16))
    assert findings(plain)["shortcuts"].value == 12
    assert "shortcuts" not in findings(nn.Sequential(*(residual(6) for _ in range(3))))
    ending = nn.Sequential(residual(6), chain(11), residual(6))
    assert findings(ending)["shortcuts"].value == 17  # until the last one is joined
    assert "shortcuts" not in findings(nn.Sequential(chain(4), residual(6), chain(4)))


def residual(number):
    return Calls(lambda self, x: x + self.convs(x), convs=chain(number))


def test_convolutions_that_make_a_gate_are_in_no_chain():
    network = nn.Sequential(pointwise(), SqueezeExcite(8), pointwise())
    assert longest_chain(follow(network, SHAPE)) == (2, frozenset())


# fmt: off
GATES = {  # what the forward does, and whether it is attention
    "squeeze and excitation": (lambda self, x: self.se(x), True),
    "broadcast by hand": (lambda self, x: x * torch.sigmoid(self.one(x.mean((2, 3), keepdim=True))).expand_as(x), True),
    "pooled alone": (lambda self, x: x * F.hardsigmoid(F.adaptive_avg_pool2d(x, 1)), True),
    "a hard sigmoid written out": (lambda self, x: x * (F.relu6(self.one(F.adaptive_avg_pool2d(x, 1)) + 3) / 6), True),
    "of positions": (lambda self, x: x * torch.sigmoid(self.narrow(x)), True),
    "of everything": (lambda self, x: x * torch.sigmoid(self.one(x)), True),
    "swish": (lambda self, x: self.one(x) * torch.sigmoid(self.one(x)), False),
    "swish of the same": (lambda self, x: swish(self.one(x)), False),
    "swish with a factor": (lambda self, x: self.swish(x), False),
    "hard swish written out": (lambda self, x: x * F.relu6(x + 3) / 6, False),
    "gated linear unit": (lambda self, x: F.glu(self.one(x), 1), False),
    "a last sigmoid": (lambda self, x: torch.sigmoid(self.one(x)), False),
    "a scale": (lambda self, x: x * torch.sigmoid(self.scale), False),
}
# fmt: on


def swish(x):
    return x * torch.sigmoid(x)


@pytest.mark.parametrize("name", GATES)
def test_what_is_attention(name):
    forward, is_gate = GATES[name]
    network = Calls(forward, one=pointwise(), narrow=nn.Conv2d(8, 1, 1), se=SqueezeExcite(8))
    network.swish, network.scale = Swish(8, beta="channel"), nn.Parameter(torch.ones(8, 1, 1))
    assert bool(gates_in(follow(network, SHAPE))) == is_gate
    assert ("attention" in findings(nn.Sequential(pointwise(), network))) == (not is_gate)


def grouped():
    return nn.Conv2d(8, 8, 3, padding=1, groups=2)


def test_layers_side_by_side_are_one_stage():
    flat = [grouped(), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), pointwise(), nn.Flatten(), nn.Linear(8 * 64, 4)]
    assert "channel receptive field" not in findings(nn.Sequential(*flat))
    found = findings(nn.Sequential(grouped(), nn.ReLU(), grouped(), nn.Flatten()))["channel receptive field"]
    assert (found.where, found.value, found.architecture) == (("0", "2"), 2, None)
    blocks = (nn.Sequential(pointwise(), nn.ReLU()), nn.Sequential(pointwise(), nn.ReLU()))
    mixed = nn.Sequential(*blocks, grouped(), grouped(), nn.Sequential(pointwise(), nn.ReLU()))
    assert findings(mixed)["channel receptive field"].where == ("2", "3")


def test_one_grouped_convolution_is_mixed_by_the_next_stage():
    def forward(self, x):
        return self.last(F.relu(self.middle(F.relu(self.first(x)))))

    assert "channel receptive field" not in findings(
        Calls(forward, first=grouped(), middle=pointwise(), last=grouped())
    )
    stages = {"last": pointwise(), "first": nn.Sequential(grouped(), nn.ReLU()), "middle": grouped()}
    assert findings(Calls(forward, **stages))["channel receptive field"].where == ("first",)
    across = Calls(forward, first=grouped(), middle=depthwise(), last=grouped())
    assert findings(across)["channel receptive field"].where == ("first",)

    def shuffling(self, x):
        return self.last(F.channel_shuffle(self.first(x), 2))

    assert "channel receptive field" not in findings(Calls(shuffling, first=grouped(), last=grouped()))
    assert "channel receptive field" not in findings(
        Calls(forward, first=depthwise(), middle=depthwise(), last=pointwise())
    )


def test_a_container_among_layers_is_a_stage_of_its_own():
    inner = nn.Sequential(grouped(), nn.ReLU(), grouped(), nn.ReLU())
    found = findings(
        nn.Sequential(pointwise(), nn.ReLU(), inner, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    )
    assert found["channel receptive field"].where == ("2",)


@pytest.mark.parametrize(
    "join",
    [
        lambda self, x, y: torch.cat([y[:, :4] + x[:, :4], y[:, 4:]], 1),
        lambda self, x, y: torch.addcmul(x, y, self.scale),
        lambda self, x, y: torch.lerp(x, y, 0.5),
    ],
    ids=["of some channels", "scaled", "interpolated"],
)
def test_other_ways_to_add_are_shortcuts(join):
    blocks = nn.Sequential(*(Calls(lambda self, x: join(self, x, self.conv(x)), conv=pointwise()) for _ in range(14)))
    for block in blocks:
        block.scale = nn.Parameter(torch.ones(8, 1, 1))
    assert "shortcuts" not in findings(blocks)


def test_the_field_of_an_early_map_says_nothing_of_later_ones():
    def attended(self, x):
        y = x.flatten(2)
        return self.last((y @ (y.transpose(1, 2) @ y).softmax(-1)).view_as(x))

    later = Calls(attended, last=pointwise())
    assert "receptive field" in findings(nn.Sequential(pointwise(), nn.ReLU()))
    assert "receptive field" not in findings(nn.Sequential(pointwise(), later))


class Tokens(nn.Module):
    """Patches, attention between them, and the mean of all."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(self.attention(x, x, x)[0].mean(1))


def test_a_transformer_needs_no_field_no_gates_and_no_batch_norm():
    rules = {finding.rule for finding in advise(Tokens(), input_shape=(1, 3, 32, 24), timed=False)}
    assert not rules & {"receptive field", "attention", "norm"}


def test_layer_norms_over_the_maps_of_convolutions_are_judged():
    def normed(self, x):
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)

    assert "norm" in findings(nn.Sequential(pointwise(), Calls(normed, norm=nn.LayerNorm(8))))


def test_a_softmax_behind_the_last_product_is_no_attention():
    assert "attention" in findings(nn.Sequential(pointwise(), nn.Flatten(), nn.Softmax(-1), nn.Linear(8 * 16 * 16, 4)))


def test_an_input_that_is_no_image_has_no_field_to_judge():
    network = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU())
    found = advise(network, input_shape=(2, 3, 16), timed=False)
    assert "receptive field" not in {finding.rule for finding in found}


def test_a_field_that_is_not_found_is_a_note():
    def decides(self, x):
        return self.last(x) if x.mean() > 0 else x

    found = advise(nn.Sequential(Calls(decides, last=nn.Conv2d(3, 3, 1))), input_shape=(1, 3, 16, 16), timed=False)
    (note,) = (finding for finding in found if finding.rule == "receptive field")
    assert note.is_note
    assert note.reason.startswith("not judged")
    assert not any(finding.is_note for finding in found if finding is not note)
