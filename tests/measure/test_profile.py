import json
import sys
from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.measure.profile import CATEGORIES, Profile, Step, profile
from convsmith.measure.profile.faults import fault_ms
from convsmith.measure.profile.run import middle
from convsmith.measure.profile.slowdowns import eager_slowdowns
from convsmith.measure.roofs import Roofs, _timed, device_roofs
from tests.hand_clock import HandClock
from tests.measure.untouched import state

ROOFS = Roofs(gmacs_per_s=100.0, source="made up", copies=((2**10, 50.0), (2**20, 200.0), (2**30, 20.0)))
SHAPE = (2, 16, 8, 8)
profiled = partial(profile, roofs=ROOFS, passes=3)


class Net(nn.Module):
    """One operator of each category, some in modules and some not."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.act = nn.ReLU()
        self.inner = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU6())
        self.shuffle = cs.nn.ChannelShuffle(16, groups=4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, 5)

    def forward(self, x):
        y = self.act(self.norm(self.conv(x))) + x
        y = torch.cat((self.shuffle(self.inner(y)), y), 1)
        return self.fc(self.pool(y).flatten(1))


EXPECTED = [
    ("conv", "convolution", "convolution"),
    ("norm", "batch_norm", "elementwise"),
    ("act", "relu", "elementwise"),
    ("", "add", "elementwise"),
    ("inner.0", "convolution", "convolution"),
    ("inner.1", "hardtanh", "elementwise"),
    ("shuffle", "channel_shuffle", "shuffle"),
    ("", "cat", "data"),
    ("pool", "adaptive_avg_pool2d", "other"),
    ("fc", "linear", "convolution"),
]


@pytest.fixture(scope="module")
def found():
    return profiled(Net(), SHAPE)


def test_each_operator_with_its_module_and_category(found):
    # The shuffle is torch's operator, or ours where it is built.
    steps = [(step.module, step.operator.removeprefix("convsmith::"), step.category) for step in found.steps]
    assert steps == EXPECTED
    assert found.unknown == ()


def test_macs_and_bytes_are_those_of_cost(found):
    cost = cs.measure.cost(Net(), SHAPE)
    assert sum(step.macs for step in found.steps) == cost.macs
    assert sum(step.memory_bytes for step in found.steps) == cost.memory_bytes
    assert found.by_module["inner"].macs == cost.by_module["inner"].macs == 2 * 64 * 16 * 16
    assert found.steps[0].shape == SHAPE


def test_the_parts_add_up(found):
    assert list(found.by_category) == [*CATEGORIES, "unattributed"]
    assert sum(share.share for share in found.by_category.values()) == pytest.approx(1)
    assert all(share.share >= 0 for share in found.by_category.values())
    assert sum(share.ms for share in found.by_operator.values()) == pytest.approx(found.attributed_ms)
    assert found.by_module[""].ms == pytest.approx(found.attributed_ms)
    assert found.by_module["inner"].calls == 2
    assert list(found.by_module) == ["", "conv", "norm", "act", "inner", "inner.0", "inner.1", "shuffle", "pool", "fc"]
    assert found.total_ms == pytest.approx(found.attributed_ms + found.unattributed_ms)
    assert all(step.ms > 0 for step in found.steps)


def test_the_whole_is_never_less_than_its_parts():
    step = Step("", "relu", "", "elementwise", (1,), 0, 8, ms=3.0)
    shown = {"backend": "eager", "device": "cpu", "batch": 1, "threads": 1, "torch_version": "", "page_faults": 0}
    more = {"passes": 1, "unknown": (), "roofs": ROOFS, "slowdowns": (), "profiled_ms": 9.0, **shown}
    slowed, usual = (Profile(steps=(step,), latency_ms=ms, **more) for ms in (2.0, 4.0))
    assert (slowed.total_ms, slowed.unattributed_ms) == (3.0, 0.0)
    assert (usual.total_ms, usual.by_category["unattributed"].share) == (4.0, 0.25)


def test_the_document_is_plain_data(found):
    document = json.loads(json.dumps(found.document()))
    assert len(document["by_layer"]) == len(EXPECTED)
    assert {"of_peak", "of_roof", "roof", "intensity", "share", "macs", "memory_bytes"} <= document["by_layer"][
        0
    ].keys()
    assert document["roofs"]["gmacs_per_s"] == 100
    with pytest.raises(ValueError, match="unknown view 'block' of a profile; the views are category, operator"):
        found.rows("block")


def functional(x, groups=4):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def reshaped(x):
    n, c, h, w = x.shape
    return x.reshape(n, 2, c // 2, h, w).permute(0, 2, 1, 3, 4).reshape(n, -1, h, w)


def flattened(x):
    return x.unflatten(1, (2, 8)).transpose(1, 2).flatten(1, 2)


def by_rows(x):  # as timm and our own channels-last form write it
    n, c, h, w = x.shape
    y = x.permute(0, 2, 3, 1).contiguous().view(n, h, w, 4, c // 4).transpose(3, 4).reshape(n, h, w, c)
    return y.permute(0, 3, 1, 2)


def attention(x):  # heads are exchanged with positions, and then merged with something else
    n, c, _, _ = x.shape
    heads = x.flatten(2).view(n, 4, c // 4, -1).transpose(2, 3).contiguous()
    return heads.transpose(1, 2).reshape(n, -1, c)


def windows(x):
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 2, 2, c)


def pixels(x):
    n, c, h, w = x.shape
    return x.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("function", [functional, reshaped, flattened, by_rows, partial(F.channel_shuffle, groups=4)])
def test_shuffles_are_recognised_however_they_are_written(function):
    assert torch.equal(function(x := torch.randn(2, 16, 4, 4)).sort(1)[0], x.sort(1)[0])
    assert "shuffle" in [step.category for step in profiled(Function(function), (2, 16, 4, 4)).steps]


@pytest.mark.parametrize("groups", [3, 4])
@pytest.mark.parametrize("layer", [cs.nn.ChannelShuffle, lambda c, groups: nn.ChannelShuffle(groups)])
def test_modules_shuffle_in_both_memory_formats(groups, layer):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        network = nn.Sequential(
            Function(lambda x, m=memory_format: x.contiguous(memory_format=m)), layer(12, groups=groups)
        )
        shuffling = [step for step in profiled(network, (1, 12, 4, 4)).steps if step.module == "1"]
        assert {step.category for step in shuffling} == {"shuffle"}


@pytest.mark.parametrize("function", [attention, windows, pixels, partial(F.pixel_shuffle, upscale_factor=2)])
def test_other_copies_are_data(function):
    categories = {step.category for step in profiled(Function(function), (2, 16, 4, 4)).steps}
    assert categories == {"data"}


def test_the_kernel_of_a_convolution_is_told():
    network = nn.Sequential(nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3, padding=1), nn.ConvTranspose2d(32, 8, 2))
    kernels = [step.kernel for step in profiled(network, (1, 32, 28, 28)).steps]
    with torch.autograd.profiler.profile(use_kineto=False) as watched, torch.inference_mode():
        network(torch.randn(1, 32, 28, 28))
    ran = {event.name for event in watched.function_events}
    assert set(kernels) - ran == {""}  # the third one has no name in Python
    assert kernels[0] == "aten::_slow_conv2d_forward"
    assert kernels[1:] == ["aten::mkldnn_convolution", ""]


STEPS = (
    Step("a", "convolution", "aten::_slow_conv2d_forward", "convolution", (1,), 2 * 10**8, 4, ms=4.0),
    Step("b", "batch_norm", "", "elementwise", (1,), 0, 4, ms=2.0, reads=(0,)),
    Step("c", "relu", "", "elementwise", (1,), 0, 4, ms=1.0, reads=(1,)),
    Step("d", "max_pool2d", "", "other", (1,), 0, 4, ms=1.0, reads=(2,)),
    Step("e", "batch_norm", "", "elementwise", (1,), 0, 4, ms=1.0, reads=(3,)),
    Step("f", "convolution", "aten::mkldnn_convolution", "convolution", (1,), 10**8, 4, ms=1.0, reads=(4,)),
)


def test_what_slows_eager_is_found_with_its_share():
    found = {s.name: s for s in eager_slowdowns(STEPS, total_ms=16.0, faults=0, roofs=ROOFS, between_ms=6.0)}
    shares = {name: slowdown.share for name, slowdown in found.items()}
    assert shares == {
        "between_operators": 6 / 16,
        "convolutions_as_products": 4 / 16,
        "separate_norms": 2 / 16,
        "separate_activations": 1 / 16,
    }
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    message = found["convolutions_as_products"].message
    assert (
        "1 convolution took 25 % of the time at 50 GMAC/s, 50 % of this device's peak, at which 12 % would" in message
    )
    assert "1 norm behind convolutions" in found["separate_norms"].message


def test_new_pages_are_told_where_the_kernel_gives_them():
    without = eager_slowdowns(STEPS, total_ms=16.0, faults=0, roofs=ROOFS, between_ms=0.0)
    with_faults = eager_slowdowns(STEPS, total_ms=16.0, faults=10**6, roofs=ROOFS, between_ms=0.0)
    assert {s.name for s in with_faults} - {s.name for s in without} == {"returned_memory"}
    assert with_faults[0].share == pytest.approx(10**6 * fault_ms() / 16, rel=0.9)


def test_the_network_and_torch_are_left_as_they_were():
    module = Net()
    module.norm.eval()
    torch.manual_seed(3)
    before = state(module)
    profiled(module, SHAPE)
    assert state(module) == before


def test_a_failing_network_leaves_everything_as_it_was():
    class Failing(Net):
        calls = 0

        def forward(self, x):
            Failing.calls += 1
            if Failing.calls > 4:
                raise RuntimeError("enough")
            return super().forward(x)

    module, threads = Failing(), torch.get_num_threads()
    before = state(module)
    with pytest.raises(RuntimeError, match="enough"):
        profiled(module, SHAPE, threads=threads + 1)
    assert state(module) == before
    assert torch.get_num_threads() == threads


def test_a_network_that_changes_from_pass_to_pass_is_refused():
    class Changing(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x.relu() if self.calls % 3 else x.relu().relu()

    with pytest.raises(ValueError, match="must run the same operators in each pass, and Changing ran"):
        profiled(Changing(), SHAPE)


def test_networks_of_other_libraries():
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet18").eval()
    found = profiled(network, (1, 3, 64, 64))
    assert sum(step.macs for step in found.steps) == cs.measure.cost(network, (1, 3, 64, 64)).macs
    assert found.by_module["layer1.0.conv1"].calls == 1
    assert found.unknown == ()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 16, 8), {}, "the network must take torch.float32 of shape"),
        ((2, 3, 8, 8), {}, "the network must take torch.float32 of shape"),
        ((2, 16, 0, 8), {}, r"all positive integers, got \(2, 16, 0, 8\); give one such as"),
        ((16,), {}, "an input shape is a batch and further sizes"),
        (224, {}, "all positive integers, got 224; give one such as"),
        (SHAPE, {"backend": "eagr"}, "unknown back end 'eagr'; did you mean 'eager'"),
        (SHAPE, {"threads": 0}, "threads must be a positive integer"),
        (SHAPE, {"threads": 10**6}, "threads must be at most .*, got 1000000; give"),
        (SHAPE, {"passes": 0}, "passes must be a positive integer"),
        (SHAPE, {"device": "cuda:99"}, "the device must be the CPU or a CUDA device"),
    ],
)
def test_wrong_arguments_are_refused(shape, options, message):
    with pytest.raises(ValueError, match=message) as error:
        profiled(Net(), shape, **options)
    assert "\n" not in str(error.value)


def test_an_architecture_is_no_module():
    with pytest.raises(ValueError, match=r"must be a torch\.nn\.Module, got the architecture resnet18; build it by cs"):
        profiled(cs.zoo.get("resnet18"), SHAPE)


def test_the_middle_is_the_mean_of_the_middle_half():
    assert middle([100.0, 1.0, 2.0, 3.0]) == 2.5
    assert middle([7.0]) == 7.0
    assert middle([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 90.0]) == 3.5


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        x = self.first(x)
        return {"fine": x, "coarse": [self.second(x)]}


def test_a_network_of_several_outputs_is_profiled_in_eager():
    found = profiled(Pyramid(), (1, 3, 8, 8))
    assert {row["module"] for row in found.rows("layer")} >= {"first", "second"}
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match="must return one tensor, and Pyramid returns a dict"):
        profiled(Pyramid(), (1, 3, 8, 8), backend="onnxruntime")


def test_where_a_layer_stands_under_the_roofs():
    assert [ROOFS.gbytes_per_s(size) for size in (1, 2**10, 2**15, 2**20, 2**25, 2**40)] == [200, 200, 200, 200, 20, 20]
    bound_by_arithmetic = ROOFS.place(macs=10**9, memory_bytes=10**6, ms=20.0)
    assert (bound_by_arithmetic["roof"], bound_by_arithmetic["of_peak"]) == ("compute", 0.5)
    assert bound_by_arithmetic["intensity"] == 1000
    bound_by_memory = ROOFS.place(macs=10**5, memory_bytes=10**6, ms=0.01)
    assert (bound_by_memory["roof"], bound_by_memory["of_roof"]) == ("bandwidth", pytest.approx(0.5))
    assert bound_by_memory["of_peak"] == pytest.approx(0.1)
    assert bound_by_memory["gbytes_per_s"] == pytest.approx(100)


def test_the_roofs_of_this_device(monkeypatch):
    roofs = sys.modules["convsmith.measure.roofs"]
    for name, value in (
        ("CONVOLUTIONS", ((8, 6),)),
        ("PRODUCT_SIDE", 16),
        ("WORKING_SETS", (2**12, 2**14)),
        ("ROUNDS", 3),
    ):
        monkeypatch.setattr(roofs, name, value)
    found = device_roofs.__wrapped__()
    assert found.gmacs_per_s > 0
    assert found.source.split(",")[0] in ("torch", "ONNX Runtime", "OpenVINO")
    assert [size for size, _ in found.copies] == [2**12, 2**14]
    assert all(rate > 0 for _, rate in found.copies)


def test_what_takes_long_is_called_once_or_twice(monkeypatch):
    """In a type that the processor lacks, a matrix product takes seconds."""
    hand, calls = HandClock(monkeypatch), Counter()

    def work(name, *seconds):
        takes = hand.takes(*seconds)
        return lambda: (calls.update([name]), takes())

    works = {
        "slow": (5, work("slow", 1.2)),
        "long": (6, work("long", 0.5, 0.3)),
        "late": (7, work("late", 0.5, *[0.001] * 10**4)),
    }
    found = _timed(works, "cpu", threads=2)
    assert {name: work for name, (work, _) in found.items()} == {"slow": 5, "long": 6, "late": 7}
    assert [ms for _, ms in found.values()] == pytest.approx([1200, 300, 1])
    assert (calls["slow"], calls["long"]) == (1, 2)
    assert calls["late"] > 9
    assert _timed({"slow": works["slow"]}, "cpu", threads=2) == {"slow": (5, pytest.approx(1200))}


@pytest.mark.gpu
def test_a_cuda_device_is_profiled():
    found = profile(Net(), SHAPE, device="cuda", passes=3)
    assert [(step.module, step.category) for step in found.steps] == [(m, c) for m, _, c in EXPECTED]
    assert all(step.ms > 0 for step in found.steps)
