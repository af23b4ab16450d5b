"""The network of kernel times, on kernels whose profile does not add up to the latency."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch

from convsmith.measure.predictor import model, net as module, trees
from convsmith.measure.predictor.fitted import _fold, fit
from convsmith.measure.predictor.kernels import LAW, NUMBERS, Kernel
from convsmith.measure.predictor.net import LEAST_NETWORKS, NETS, Examples, Net, fit_net
from convsmith.measure.predictor.rows import Rows, rows_by_group
from convsmith.measure.predictor.table import About, Table

NETWORKS = LEAST_NETWORKS + 32
ABOUT = About("cpu", "a processor", "onnxruntime", "1", 1, 16, "2026-01-01", (0.1, 1.0, 4.0, 20.0))


def kernel(group, size):
    law = (size, 0.01 * size, 0.01 * size, 0.0, 0.0, 0.0)
    numbers = (np.log2(size), np.log2(size) % 1, *[0.0] * (len(NUMBERS) - 2))
    return Kernel(group, f"{group}, variant", law[: len(LAW)], numbers)


def table():
    """Kernels that take a microsecond a thousand units; the profiler reads those of one class half as long again."""
    rng = np.random.default_rng(0)
    made = Table(ABOUT)
    for number in range(NETWORKS):
        share = rng.random()
        kernels = tuple(
            kernel("misread" if rng.random() < share else "read well", float(size))
            for size in np.exp(rng.uniform(np.log(3e3), np.log(3e5), rng.integers(4, 10)))
        )
        true_us = [own.law[0] / 1e3 for own in kernels]
        made.names.append(str(number))
        made.input_shapes.append((1, 3, 32, 32))
        made.kernels.append(kernels)
        made.times_us.append(
            tuple(time * (1.5 if own.group == "misread" else 1) for own, time in zip(kernels, true_us, strict=True))
        )
        made.latencies_ms.append(sum(true_us) / 1e3)
    return made


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "TREES", 8)
        patch.setattr(module, "EPOCHS", 40)
        yield


@pytest.fixture(scope="module")
def measured():
    return table()


@pytest.fixture(scope="module")
def net(measured):
    return fit_net(examples(measured))


def examples(measured):
    rows = rows_by_group(measured.kernels, measured.times_us)
    law_us = {name: own.time_us.mean() * np.ones(len(own)) for name, own in rows.items()}
    return Examples(rows, law_us, 1e3 * np.array(measured.latencies_ms), (1.0, 0.0, 0.0))


def test_whole_networks_teach_what_the_profile_misreads(measured, monkeypatch):
    held_out = fit(measured).held_out
    assert NETWORKS // 6 < held_out.networks < NETWORKS // 3
    monkeypatch.setattr(model, "fit_net", lambda examples: Mock(without=lambda groups: None))
    assert held_out.mean_error < 0.9 * fit(measured).held_out.mean_error


def test_one_measured_twice_is_in_one_fold(measured):
    assert len({_fold(own) for own in (measured.kernels[0], tuple(measured.kernels[0]))}) == 1
    shares = np.bincount([_fold(own) for own in measured.kernels], minlength=4) / NETWORKS
    assert shares.min() > 0.15


def test_a_few_networks_train_none(measured):
    few = Table(ABOUT, *(own[:40] for own in (measured.names, measured.input_shapes, measured.latencies_ms)))
    few.kernels, few.times_us = measured.kernels[:40], measured.times_us[:40]
    fitted = fit(few)
    assert fitted.models.net is None
    assert fitted.held_out.networks == 40


def test_a_class_of_few_rows_is_told_by_its_law_alone(measured, monkeypatch):
    """Of three times that the law of a single coefficient does not fit, far from what is asked."""
    monkeypatch.setattr(module, "EPOCHS", 2)
    few = [kernel("seldom", size) for size in (1e3, 2e3, 4e3)]
    kernels = [(*own, few[i]) if i < 3 else own for i, own in enumerate(measured.kernels)]
    times_us = [(*own, (1.0, 3.0, 2.0)[i]) if i < 3 else own for i, own in enumerate(measured.times_us)]
    latencies_us = 1e3 * np.array(measured.latencies_ms)
    models = model.fit_models(rows_by_group(kernels, times_us), kernels, latencies_us, with_net=True)
    assert models.net.groups == ("misread", "read well")
    large = kernel("seldom", 1e6)
    assert models.kernels_us([large])[large] == models.groups["seldom"].law_us(np.array([large.law]))[0]


def test_kernels_alone_are_learned_too(measured, net):
    """Both classes' laws say the mean time of all: the network knows the size of each, and its class."""
    rows = rows_by_group(measured.kernels, measured.times_us)
    for name, own in rows.items():
        law_us = own.time_us.mean() * np.ones(len(own))
        told = net.predict(name, own.numbers, law_us) + np.log(law_us)
        assert np.corrcoef(told, np.log(own.time_us))[0, 1] > 0.99


def test_predicting_is_what_was_trained(measured, net):
    """The mean of several networks, each with the same layers in torch, in float64."""
    rows = rows_by_group(measured.kernels, measured.times_us)["misread"]
    law_us = np.linspace(1, 50, len(rows))
    x = torch.tensor((np.concatenate([rows.numbers, np.log(law_us)[:, None]], axis=1) - net.mean) / net.scale)
    told = []
    for one in range(NETS):
        first, bias, *deeper = (torch.from_numpy(own[one]).double() for own in net.weights)
        y = x.clamp(-6, 6) @ first + bias[net.groups.index("misread")]
        for weight, bias in zip(deeper[::2], deeper[1::2], strict=True):
            y = torch.nn.functional.silu(y) @ weight + bias
        told.append(y[:, 0].numpy())
    assert np.std(told, axis=0).mean() > 1e-4  # each has weights of its own
    assert net.predict("misread", rows.numbers, law_us) == pytest.approx(np.mean(told, axis=0), abs=1e-4)


def test_it_is_kept_as_arrays(measured, net):
    again = Net.from_arrays(net.arrays(), list(net.groups), width=len(net.mean) - 1)
    numbers = np.array([own.numbers for own in measured.kernels[0]])
    law_us = np.ones(len(numbers))
    assert (again.predict("misread", numbers, law_us) == net.predict("misread", numbers, law_us)).all()


def test_classes_are_left_to_the_trees(measured, net):
    numbers, law_us = np.zeros((1, len(NUMBERS))), np.ones(1)
    without = net.without({"misread"})
    assert without.groups == ("read well",)
    assert without.predict("read well", numbers, law_us) == net.predict("read well", numbers, law_us)


def test_training_is_repeatable_and_touches_nothing(measured, net):
    state = torch.random.get_rng_state()
    with torch.inference_mode():
        again = fit_net(examples(measured))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(np.allclose(one, other, atol=1e-3) for one, other in zip(net.weights, again.weights, strict=True))


def test_rows_hold_each_kernel_of_a_network_once():
    small, large = kernel("read well", 1e4), kernel("read well", 2e4)
    (rows,) = rows_by_group([[small, large, small], [small]], [[1.0, 5.0, 3.0], [7.0]]).values()
    assert isinstance(rows, Rows)
    assert rows.network.tolist() == [0, 0, 1]
    assert rows.count.tolist() == [2, 1, 1]
    assert rows.time_us.tolist() == [2.0, 5.0, 7.0]
    assert rows.of(np.array([False, True])).time_us.tolist() == [7.0]
