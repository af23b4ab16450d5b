import dataclasses
import json
import time
from typing import ClassVar

import pytest
import torch
from torch import nn

from convsmith.deploy import clock
from convsmith.measure.latency import latencies, latency


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


def test_threads_are_restored_after_a_failing_network():
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match=r"the network must take torch.float32 of shape \(1, 4, 4, 4\)"):
        latency(Probe(), (1, 4, 4, 4), threads=before + 1)
    assert torch.get_num_threads() == before


def test_networks_take_turns():
    found = latencies({name: Probe(0.003, name) for name in "ab"}, (1, 3, 4, 4), rounds=4)
    assert list(found) == ["a", "b"]
    assert "".join(str(call["name"]) for call in Probe.record).endswith("aabbbbaaaabbbbaa")


def test_the_slower_network_is_measured_slower():
    found = latencies({"slow": Probe(0.02), "quick": nn.Identity()}, (1, 3, 4, 4), rounds=3)
    assert found["slow"].median_ms > 50 * found["quick"].median_ms
    assert found["slow"].median_ms >= 20


def test_the_result_says_how_it_was_measured_and_is_plain_data():
    found = latency(Probe(0.003), (2, 3, 4, 4), rounds=5)
    assert (found.rounds, found.calls_per_round, found.backend, found.device) == (5, 1, "eager", "cpu")
    assert (found.batch, found.threads, found.torch_version) == (2, 1, torch.__version__)
    assert found.noisy == (found.spread_ms > 0.05 * found.median_ms)
    assert json.loads(json.dumps(dataclasses.asdict(found))) == dataclasses.asdict(found)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.median_ms = 0.0


def test_an_unsteady_network_is_noisy():
    class Unsteady(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            time.sleep(0.005 * (1 + self.calls % 3))
            return x

    assert latency(Unsteady(), (1, 1), rounds=9).noisy


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
        ({"a": nn.Identity()}, (0, 3), {}, "each size of input_shape must be a positive integer, got 0"),
        ({"a": nn.Identity()}, (3,), {}, "with a batch dimension"),
        ({"a": nn.Identity()}, (1, 3), {"threads": 0}, "threads must be a positive integer"),
        ({"a": nn.Identity()}, (1, 3), {"rounds": 0}, "rounds must be a positive integer"),
        ({"a": nn.Identity()}, (1, 3), {"budget_seconds": 0}, "budget_seconds must be positive"),
        ({"a": nn.Identity()}, (1, 3), {"backend": "eagr"}, "did you mean 'eager'"),
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
