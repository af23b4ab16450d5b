import dataclasses
import json
import os
import time
from typing import ClassVar

import pytest
import torch
from torch import nn

from convsmith.deploy import allocator, clock, rounds, timed
from convsmith.deploy.conditions import Conditions
from convsmith.measure.cuda_graph import captured
from convsmith.measure.latency import latencies, latency
from tests.hand_clock import HandClock
from tests.measure.test_cost import TINY


class Probe(nn.Module):
    """Records how it is run; copies share the record."""

    record: ClassVar[list[dict[str, object]]] = []

    def __init__(self, seconds=0.0, name=""):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.seconds, self.name = seconds, name

    def forward(self, x):
        self.record.append(
            {
                "name": self.name,
                "training": self.training or self.norm.training,
                "inference": torch.is_inference_mode_enabled(),
                "threads": torch.get_num_threads(),
                "shape": tuple(x.shape),
                "dtype": x.dtype,
            }
        )
        time.sleep(self.seconds)
        return self.norm(x)


@pytest.fixture(autouse=True)
def _fresh_record(monkeypatch):
    monkeypatch.setattr(Probe, "record", [])


def test_the_network_runs_in_eval_and_inference_mode_on_the_threads_asked_for():
    before = torch.get_num_threads()
    latency(Probe().double(), (2, 3, 4, 5), threads=before + 1, rounds=2)
    assert len(Probe.record) > 2
    for call in Probe.record:
        assert call == {
            "name": "",
            "training": False,
            "inference": True,
            "threads": before + 1,
            "shape": (2, 3, 4, 5),
            "dtype": torch.float64,
        }
    assert torch.get_num_threads() == before


def test_the_network_is_left_as_it_was():
    module = Probe()
    module.norm.eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    latency(module, (2, 3, 4, 4), rounds=2)
    assert (module.training, module.norm.training) == (True, False)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_compiled_network_is_measured_as_it_was_written():
    def refuse(*_):
        raise AssertionError("compiled")

    latency(torch.compile(Probe(), backend=refuse), (1, 3, 4, 4), rounds=2)
    assert {call["shape"] for call in Probe.record} >= {(1, 3, 4, 4)}


def test_threads_are_restored_after_a_failing_network():
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match=r"the network must take torch.float32 of shape \(1, 4, 4, 4\)"):
        latency(Probe(), (1, 4, 4, 4), threads=before + 1)
    assert torch.get_num_threads() == before


def test_networks_take_turns():
    found = latencies({name: Probe(0.025, name) for name in "ab"}, (1, 3, 4, 4), rounds=4)
    assert list(found) == ["a", "b"]
    assert "".join(str(call["name"]) for call in Probe.record).endswith("aabbbbaabbaaaabb")


class Timed(nn.Module):
    """Takes what it is told to; its copies share the calls."""

    def __init__(self, takes):
        super().__init__()
        self.takes = {"forward": takes}

    def forward(self, x):
        return self.takes["forward"](x)


def test_each_network_has_its_own_time(monkeypatch):
    hand = HandClock(monkeypatch)
    modules = {"slow": Timed(hand.takes(0.02)), "quick": Timed(hand.takes(0.004))}
    found = latencies(modules, (1, 3, 4, 4), rounds=3)
    assert [own.median_ms for own in found.values()] == pytest.approx([20.0, 4.0])
    assert found["quick"].ratio.median == pytest.approx(0.2)
    assert not any(own.noisy for own in found.values())


def test_a_network_is_timed_by_this_machines_clock():
    assert latency(Probe(0.02), (1, 3, 4, 4), rounds=3).median_ms >= 20


def test_the_result_says_how_it_was_measured_and_is_plain_data():
    found = latency(Probe(0.003), (2, 3, 4, 4), rounds=5)
    assert (found.rounds, found.calls_per_round, found.backend, found.device) == (5, 1, "eager", "cpu")
    assert (found.batch, found.threads, found.torch_version) == (2, 1, torch.__version__)
    assert found.noisy == (found.spread_ms > 0.05 * found.median_ms)
    assert found.low_ms <= found.median_ms <= found.high_ms
    assert found.coverage == 0.9375
    assert (found.precision, found.layout, found.cuda_graph, found.ratio) == ("float32", "contiguous", False, None)
    plain = json.loads(json.dumps(dataclasses.asdict(found)))
    assert plain["conditions"]["cores"] == list(found.conditions.cores)
    assert plain["warnings"] == list(found.warnings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.median_ms = 0.0


@pytest.mark.parametrize(("seconds", "noisy"), [((0.005, 0.01, 0.015), True), ((0.0100, 0.0104, 0.0096), False)])
def test_an_unsteady_network_is_noisy(monkeypatch, seconds, noisy):
    found = latency(Timed(HandClock(monkeypatch).takes(*seconds)), (1, 1), rounds=9)
    assert found.noisy == noisy
    assert any("the spread is" in warning for warning in found.warnings) == noisy


def test_threads_are_held_on_cores_while_measured_and_free_before_and_after(monkeypatch):
    seen = []
    measure = clock.measure

    def recording(*args, **kwargs):
        seen.append(os.sched_getaffinity(0))
        return measure(*args, **kwargs)

    monkeypatch.setattr(clock, "measure", recording)
    allowed = os.sched_getaffinity(0)
    found = latency(Probe(), (1, 3, 4, 4), rounds=3)
    assert seen == [set(found.conditions.cores)]
    assert len(found.conditions.cores) == 1
    assert found.conditions.pinned
    assert os.sched_getaffinity(0) == allowed

    class Failing(Probe):
        def forward(self, x):
            if seen[1:]:
                raise KeyError("late")
            return super().forward(x)

    with pytest.raises(KeyError):
        latency(Failing(), (1, 3, 4, 4))
    assert os.sched_getaffinity(0) == allowed


def test_ratios_are_to_the_first_and_paired_by_round(monkeypatch):
    series = {"a": (1.0, 2.0, 4.0, 3.0, 5.0, 1.0), "b": (2.0, 4.0, 8.0, 6.0, 10.0, 3.0)}

    def measure(candidates, *, watch, **_):
        watch(), watch()
        return {name: rounds.timing(list(series[name]), 1) for name in candidates}

    monkeypatch.setattr(clock, "measure", measure)
    found = latencies({name: nn.Identity() for name in "ab"}, (1, 3))
    assert found["a"].ratio is None
    assert found["b"].ratio == timed.Ratio("a", 2.0, 2.0, 3.0, 0.96875)
    assert (found["b"].low_ms, found["b"].high_ms) == (2.0, 10.0)
    assert "the interval is 160% of the median wide; more rounds narrow it" in found["b"].warnings


def state(**changes):
    quiet = Conditions((0,), True, 2.0, 0.1, 0.2, 0.01, 0.0, 0.01, 3000.0, 3050.0, None)
    return dataclasses.replace(quiet, **changes)


@pytest.mark.parametrize(
    ("conditions", "threads", "message"),
    [
        (state(others_share=0.25), 1, "other processes took 25% of the time of the cores that computed"),
        (state(stolen_share=0.04), 1, "other guests of this machine's host took 4% of the cores' time"),
        (state(waited_share=0.5), 1, "its threads waited for a core during 50% of the time"),
        (state(slowest_mhz=2000.0), 1, "the frequency of the cores changed between 2000 and 3050 MHz"),
        (state(), 4, "4 threads computed on 1 cores"),
    ],
)
def test_doubtful_conditions_are_told(conditions, threads, message):
    (found,) = timed.doubts(conditions, threads=threads)
    assert message in found


def test_quiet_conditions_and_unknown_ones_raise_no_doubt():
    unknown = Conditions((0,), False, 2.0, *[None] * 8)
    assert timed.doubts(state(), threads=1) == timed.doubts(unknown, threads=2) == []


def test_a_steady_series_has_no_warning_and_three_rounds_have_one():
    steady = timed.timed({"": rounds.timing([1.0, 1.01, 0.99] * 7, 1)}, state(), threads=1)[""]
    assert (steady.warnings, steady.noisy) == ((), False)
    few = timed.timed({"": rounds.timing([1.0, 1.01, 0.99], 1)}, state(), threads=1)[""]
    assert few.warnings == ("3 rounds give an interval of 75% only; ask for more",)
    one = timed.timed({"": rounds.timing([1.0], 1)}, state(), threads=1)[""]
    assert one.warnings == ("one round gives no interval; ask for more",)


class Layout(nn.Module):
    seen: ClassVar[set[tuple[bool, bool]]] = set()

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        last = torch.channels_last
        self.seen.add((x.is_contiguous(memory_format=last), self.conv.weight.is_contiguous(memory_format=last)))
        return self.conv(x)


def test_channels_last_is_for_weights_and_input_and_leaves_the_network_alone(monkeypatch):
    monkeypatch.setattr(Layout, "seen", set())
    module = Layout()
    latency(module, (2, 3, 8, 8), rounds=2)
    assert Layout.seen == {(False, False)}
    Layout.seen.clear()
    assert latency(module, (2, 3, 8, 8), rounds=2, layout="channels_last").layout == "channels_last"
    assert (True, True) in Layout.seen
    assert Layout.seen <= {(True, True), (False, True)}  # the checks of `prepare` make noise of their own layout
    assert module.conv.weight.is_contiguous()


def test_precision_is_what_the_network_computes_in():
    class Type(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            types.add(self.weight.dtype)
            return x * self.weight

    types = set()
    found = latency(Type(), (1, 3), rounds=2, precision="bfloat16")
    assert found.precision == "bfloat16"
    assert types == {torch.float32, torch.bfloat16}  # the first is what it was compared with


def test_the_result_says_whether_memory_was_kept(monkeypatch):
    monkeypatch.setattr(allocator, "_kept", False)
    assert not latency(nn.Identity(), (1, 3), rounds=2).keeps_memory
    monkeypatch.setattr(allocator, "_kept", True)
    assert latency(nn.Identity(), (1, 3), rounds=2).keeps_memory


class Several(nn.Module):
    """A convolution, what its map is made into, and then the time that this takes."""

    def __init__(self, outputs, takes):
        super().__init__()
        self.conv, self.outputs, self.takes = nn.Conv2d(3, 4, 3), outputs, {"forward": takes}

    def forward(self, x):
        return self.takes["forward"](self.outputs(self.conv(x)))


@pytest.mark.parametrize(
    "outputs", [lambda y: (y, y.mean()), lambda y: {"out": y}, lambda y: [{"boxes": []}, (None, y)]]
)
def test_a_network_of_several_outputs_is_measured_in_eager(monkeypatch, outputs):
    hand = HandClock(monkeypatch)
    network = Several(outputs, hand.takes(0.02))
    assert latency(network, (1, 3, 8, 8), rounds=3).median_ms == pytest.approx(20.0)
    for backend in ("onnxruntime", "auto"):
        with pytest.raises(ValueError, match="must return one tensor, and Several returns a"):
            latency(network, (1, 3, 8, 8), backend=backend)


def test_a_network_without_a_tensor_to_return_is_refused():
    with pytest.raises(ValueError, match="must return one tensor, and Several returns a NoneType"):
        latency(Several(lambda y: None, lambda y: y), (1, 3, 8, 8))


def test_the_budget_is_per_network(monkeypatch):
    budgets = []
    measure = clock.measure

    def recording(*args, budget_seconds, **kwargs):
        budgets.append(budget_seconds)
        return measure(*args, budget_seconds=budget_seconds, **kwargs)

    monkeypatch.setattr(clock, "measure", recording)
    assert latencies({"a": Probe(), "b": Probe()}, (1, 3, 4, 4), rounds=9, budget_seconds=1e-9)["a"].rounds == 3
    assert budgets == [2e-9]


def test_onnxruntime_is_measured_too():
    pytest.importorskip("onnxruntime")
    found = latency(nn.Conv2d(3, 4, 3), (1, 3, 8, 8), backend="onnxruntime", rounds=3)
    assert found.backend == "onnxruntime"
    assert found.median_ms > 0


@pytest.mark.parametrize(
    ("modules", "shape", "options", "message"),
    [
        ({}, (1, 3), {}, "at least one network"),
        ({"a": nn.Identity()}, (0, 3), {}, r"all positive integers, got \(0, 3\); give one such as"),
        ({"a": nn.Identity()}, (3,), {}, r"a batch and further sizes, all positive integers, got \(3,\)"),
        ({"a": nn.Identity()}, 224, {}, "all positive integers, got 224; give one such as"),
        ({"a": TINY}, (1, 3, 8, 8), {}, r"must be a torch\.nn\.Module, got the architecture tiny; build it by"),
        ({"a": "tiny"}, (1, 3, 8, 8), {}, r"must be a torch\.nn\.Module, got 'tiny'; build it by cs\.create_model"),
        ({"a": nn.Identity()}, (1, 3), {"threads": 0}, "threads must be a positive integer"),
        ({"a": nn.Identity()}, (1, 3), {"threads": 10**6}, "threads must be at most .*, got 1000000; give"),
        ({"a": nn.Identity()}, (1, 3), {"rounds": 0}, "rounds must be a positive integer"),
        ({"a": nn.Identity()}, (1, 3), {"budget_seconds": 0}, "budget_seconds must be positive"),
        ({"a": nn.Identity()}, (1, 3), {"backend": "eagr"}, "did you mean 'eager'"),
        ({"a": nn.Identity()}, (1, 3), {"precision": "float8"}, "unknown precision 'float8'"),
        ({"a": nn.Identity()}, (1, 3), {"layout": "nhwc"}, "unknown layout 'nhwc'; the layouts are contiguous"),
        (
            {"a": nn.Identity()},
            (1, 3),
            {"layout": "channels_last"},
            r"of inputs \(N, C, H, W\), got the shape \(1, 3\)",
        ),
        ({"a": nn.Identity()}, (1, 3, 4, 4), {"layout": "channels_last", "backend": "auto"}, "auto chooses its own"),
        ({"a": nn.Identity()}, (1, 3), {"device": "cuda:99"}, "the device must be the CPU or a CUDA device"),
    ],
)
def test_wrong_arguments_are_refused(modules, shape, options, message):
    with pytest.raises(ValueError, match=message):
        latencies(modules, shape, **options)


@pytest.mark.gpu
def test_a_cuda_device_is_measured():
    found = latency(nn.Conv2d(3, 64, 3), (8, 3, 224, 224), device="cuda", rounds=5)
    assert found.device == "cuda"
    assert found.median_ms > 0


@pytest.mark.gpu
def test_a_pass_is_recorded_where_it_can_be():
    class Waiting(nn.Module):
        def forward(self, x):
            return x * x.sum().item()

    class Synchronising(nn.Module):
        def forward(self, x):
            torch.cuda.synchronize()
            return x

    networks = {"a": nn.Conv2d(3, 8, 3), "b": nn.Conv2d(3, 8, 3)}
    assert all(found.cuda_graph for found in latencies(networks, (1, 3, 32, 32), device="cuda", rounds=3).values())
    launched = latencies(networks, (1, 3, 32, 32), device="cuda", rounds=3, cuda_graph=False)
    assert not any(found.cuda_graph for found in launched.values())
    for waiting in (Waiting(), Synchronising()):
        mixed = latencies({**networks, "c": waiting}, (1, 3, 32, 32), device="cuda", rounds=3)
        assert not any(found.cuda_graph for found in mixed.values())
        torch.randn(3, device="cuda")  # refused where a recording that failed was not taken back


@pytest.mark.gpu
def test_a_replayed_pass_computes_what_the_network_computes():
    module, x = nn.Conv2d(3, 8, 3).cuda().eval(), torch.randn(2, 3, 16, 16, device="cuda")
    with torch.inference_mode():
        replay = captured(module, x)
        torch.testing.assert_close(replay(), module(x))
        x.mul_(2)
        torch.testing.assert_close(replay(), module(x))


@pytest.mark.gpu
def test_a_recording_holds_what_it_reads():
    def recording():
        module = nn.Conv2d(3, 8, 3).cuda().eval()
        x = torch.randn(2, 3, 16, 16, device="cuda")
        return captured(module, x), module(x)

    with torch.inference_mode():
        replay, expected = recording()
        torch.cuda.empty_cache()
        others = torch.randn(2**20, device="cuda")  # what the memory would be given to
        torch.testing.assert_close(replay(), expected)
        assert others.isfinite().all()
