"""Graphs of blocks that are followed without an export, against those that the export gives."""

import gc
from random import Random
from threading import Thread

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.arch import block as registered_block
from convsmith.deploy.uncollected import uncollected
from convsmith.measure.predictor.describe import _exported, describe
from convsmith.measure.predictor.follow import follow, no_values
from convsmith.measure.predictor.sizes import resized
from convsmith.measure.predictor.tape import NotFollowedError
from convsmith.nn import BatchNorm, ConvNormAct, InvertedResidual, ShuffleUnitV2
from convsmith.search import spaces
from tests.contracts.test_blocks import IN_CHANNELS, calls

pytest.importorskip("onnx")


def told(graph):
    """A graph without the names of its maps, and without the values of its weights."""
    numbers = {name: n for n, name in enumerate(graph.inputs)}

    def number(name):
        return numbers.setdefault(name, len(numbers))

    def read(name, kind):
        constant = name in graph.constants
        return (
            number(name),
            graph.shapes[name],
            constant,
            graph.constants[name] if constant and kind == "Clip" else None,
        )

    ops = [
        (
            op.kind,
            [read(n, op.kind) for n in op.inputs],
            [(number(n), graph.shapes[n]) for n in op.outputs],
            op.attributes,
        )
        for op in graph.ops
    ]
    return ops, [number(name) for name in graph.outputs], graph.opset


def exported(module, shape):
    return told(_exported(module, torch.randn(shape), None))


def members(name, size, count):
    space = spaces.get(name, num_classes=10, in_channels=3, input_size=size)
    for n in range(count):
        architecture, before = space.sample(Random(n)), (1, 3, size, size)
        for _, spec, behind in cs.network.output_shapes(architecture, before):
            yield spec, before
            (before,) = behind


def blocks():
    """Each registered block as the contract calls it, and those of random members of the spaces."""
    found = [(spec, (2, IN_CHANNELS.get(spec.block, 16), 17, 16)) for spec in calls() if spec.carries == 1]
    return dict.fromkeys([*found, *members("stages", 16, 6), *members("mobile", 32, 3)])


def test_what_is_followed_is_what_is_exported_at_any_size():
    followed = {}
    for spec, shape in blocks():
        module = spec.build(shape[1]).eval()
        try:
            graph, of_any_size = follow(module, shape)
        except NotFollowedError:
            continue
        assert told(graph) == exported(module, shape), spec
        followed[spec.block] = followed.get(spec.block, 0) + 1
        other = (3, shape[1], 11, 24)
        if of_any_size and followed[spec.block] <= 3:
            assert told(resized(graph, other)) == exported(module, other), spec
    wanted = {"conv_norm_act", "inverted_residual", "depthwise_separable", "basic_block", "bottleneck", "max_pool",
              "avg_pool", "classifier", "squeeze_excite"}  # fmt: skip
    assert wanted <= followed.keys()


@pytest.mark.parametrize("name", spaces.names())
def test_every_member_of_a_space_is_followed(name):
    for spec, shape in members(name, 32, 4):
        follow(spec.build(shape[1]).eval(), shape)


class _Block(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.conv, self.other, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), BatchNorm(8)
        self.own = forward

    def forward(self, x):
        return self.own(self, x)


REFUSED = {
    "a norm that stands alone": lambda m, x: m.conv(m.norm(x)),
    "a map behind a convolution that its norm does not alone read": lambda m, x: m.norm(y := m.conv(x)) + y,
    "two convolutions that may be one": lambda m, x: m.other(m.conv(x)),
    "a layer that is called twice": lambda m, x: m.conv(nn.functional.relu(m.conv(x))),
    "a change of the input": lambda m, x: m.conv(nn.functional.relu(x, inplace=True)),
    "a factor": lambda m, x: m.conv(x) * 2,
    "a weight that is computed": lambda m, x: nn.functional.conv2d(x, m.conv.weight * 2, m.conv.bias),
    "another padding": lambda m, x: m.conv(nn.functional.pad(x, (1, 1, 1, 1))),
    "another view": lambda m, x: m.conv(x).flatten(1),
    "a decision by values": lambda m, x: m.conv(x) if x.mean() > 0 else m.other(x),
    "pooling of single pixels": lambda m, x: nn.functional.max_pool2d(m.conv(x), 1),
    "several maps": lambda m, x: (m.conv(x), x),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_a_pass_may_change_is_refused(why):
    with pytest.raises(NotFollowedError):
        follow(_Block(REFUSED[why]).eval(), (1, 8, 6, 6))


def test_what_nobody_reads_is_not_there_and_gradients_are_off():
    unread = _Block(lambda m, x: (m.conv(x), nn.functional.relu(m.other(x)))[1])
    asking = _Block(lambda m, x: m.conv(x) if torch.is_grad_enabled() else nn.functional.relu(m.other(x)))
    for block in (unread, asking):
        graph, _ = follow(block.eval(), (1, 8, 6, 6))
        assert [op.kind for op in graph.ops] == ["Conv", "Relu"]


@registered_block("asks_what_a_tensor_answers")
class _Asks(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.conv, self.out_channels = nn.Conv2d(in_channels, in_channels, 1), in_channels

    def forward(self, x):
        return nn.functional.relu(self.conv(x)) if isinstance(x, torch.Tensor) else self.conv(x)


def test_blocks_of_users_are_exported():
    network = cs.Architecture(stem=[cs.spec(ConvNormAct, 8)], stages=[[cs.spec(_Asks)]], name="asking")
    graph = describe(network, (1, 3, 8, 8), None)
    assert [op.kind for op in graph.ops] == ["Conv", "Relu", "Conv", "Relu"]


def test_modes_of_the_caller_tell_nothing():
    networks = [
        cs.Architecture(stem=[cs.spec(ConvNormAct, 8)], stages=[[cs.spec(ShuffleUnitV2, width)]], name="unit")
        for width in (16, 24, 32)
    ]
    with torch.inference_mode():
        first = describe(networks[0], (1, 3, 8, 8), None)
    with torch.autocast("cpu"):
        second = describe(networks[1], (1, 3, 8, 8), None)
    with torch.device("meta"):
        third = describe(networks[2], (1, 3, 8, 8), None)
    kinds = [[op.kind for op in graph.ops] for graph in (first, second, third)]
    assert kinds[0] == kinds[1] == kinds[2]
    assert "Cast" not in kinds[0]


def test_hooks_training_and_small_maps_are_refused():
    hooked = ConvNormAct(8, 8).eval()
    hooked.conv.register_forward_hook(lambda *_: None)
    for module, shape in ((hooked, (1, 8, 6, 6)), (ConvNormAct(8, 8).train(), (1, 8, 6, 6))):
        with pytest.raises(NotFollowedError):
            follow(module, shape)
    with pytest.raises(NotFollowedError, match="at least as large as the kernel"):
        follow(ConvNormAct(8, 8, kernel_size=5, padding=0).eval(), (1, 8, 4, 4))


def test_a_block_that_asks_for_its_size_is_followed_at_each():
    block = _Block(lambda m, x: m.conv(x) if x.shape[-1] > 6 else nn.functional.relu(m.other(x)))
    (large, any_size), (small, _) = follow(block.eval(), (1, 8, 9, 9)), follow(block.eval(), (1, 8, 6, 6))
    assert not any_size
    assert [op.kind for op in large.ops] == ["Conv"]
    assert [op.kind for op in small.ops] == ["Conv", "Relu"]


def test_telling_a_network_draws_no_random_numbers_and_weights_are_drawn_elsewhere():
    network = cs.Architecture(stem=[cs.spec(ConvNormAct, 13)], stages=[[cs.spec(InvertedResidual, 26)]], name="drawn")
    before = torch.get_rng_state()
    describe(network, (1, 3, 18, 18), None)
    assert torch.equal(torch.get_rng_state(), before)
    drawn = []
    with no_values():
        assert nn.Conv2d(3, 4, 3).weight.shape == (4, 3, 3, 3)
        assert nn.BatchNorm2d(4).running_var.shape == (4,)
        assert torch.equal(torch.get_rng_state(), before)
        other = Thread(target=lambda: drawn.append(nn.Conv2d(3, 4, 3).weight.std().item()))
        other.start()
        other.join()
    assert drawn[0] > 0.01
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3).weight
    torch.manual_seed(0)
    assert torch.equal(nn.Conv2d(3, 4, 3).weight, first)
    assert first.std() > 0.01


def test_collection_goes_on_after_an_error_and_stays_off_where_it_was():
    seen = []
    with pytest.raises(IndexError), uncollected():
        seen[gc.isenabled()]
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
