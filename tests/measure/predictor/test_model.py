"""The models of kernel times: their laws, their trees, and what they are fitted to."""

import copy

import numpy as np
import pytest

from convsmith.measure.predictor import model, trees as module
from convsmith.measure.predictor.fitted import FOLDS, Fitted, _fold, fit, fit_folds, fit_without
from convsmith.measure.predictor.kernels import LAW, NUMBERS, Kernel
from convsmith.measure.predictor.model import LEAST_ROWS, fit_models
from convsmith.measure.predictor.rows import Rows, rows_by_group
from convsmith.measure.predictor.table import About, Table
from convsmith.measure.predictor.trees import Trees, fit_trees

NETWORKS = 60
ABOUT = About("cpu", "a processor", "onnxruntime", "1", 1, 16, "2026-01-01", (0.1, 1.0, 4.0, 20.0))


def kernel(group, size, whole=True):
    law = (size, 0.01 * size, 0.01 * size, 0.0, 0.0, 0.0)
    return Kernel(group, f"{group}, variant", law[: len(LAW)], (np.log2(size), whole, *[0.0] * (len(NUMBERS) - 2)))


@pytest.fixture(scope="module")
def measured():
    """Kernels that take a microsecond a thousand units, of one class twice as long where they are not whole."""
    rng = np.random.default_rng(0)
    made = Table(ABOUT)
    for number in range(NETWORKS):
        sizes = np.exp(rng.uniform(np.log(3e3), np.log(3e5), 10))
        kernels = tuple(kernel("even" if n % 2 else "odd", size, n % 4 < 2) for n, size in enumerate(sizes))
        times = [own.law[0] / 1e3 * (2 if own.group == "odd" and not own.numbers[1] else 1) for own in kernels]
        made.names.append(str(number))
        made.input_shapes.append((1, 3, 32, 32))
        made.kernels.append(kernels)
        made.times_us.append(tuple(times))
        made.latencies_ms.append((1.1 * sum(times) + 3) / 1e3)
    return made


@pytest.fixture(scope="module")
def fitted(measured):
    return fit(measured)


def test_what_a_law_leaves_over_is_learnt_by_trees(fitted):
    """The law of one coefficient lies between the two; a network takes a tenth more, and three microseconds."""
    whole, rest = kernel("odd", 1e5), kernel("odd", 1e5, whole=False)
    told = fitted.models.kernels_us([whole, rest], pass_=9)
    assert (told[whole], told[rest]) == (pytest.approx(100, rel=0.05), pytest.approx(200, rel=0.05))
    law_us = fitted.models.groups["odd"].law_us(np.array([whole.law]))[0]
    assert 110 < law_us < 190
    (latency_ms,) = fitted.predict_ms([[kernel("even", 5e4)] * 8])
    assert latency_ms == pytest.approx((1.1 * 8 * 50 + 3) / 1e3, rel=0.05)


def test_the_error_is_of_networks_that_were_left_out(fitted, measured, monkeypatch):
    assert fitted.held_out.networks == NETWORKS
    assert fitted.held_out.mean_error < 0.05
    noisy = Table(ABOUT, measured.names, measured.input_shapes, measured.latencies_ms)
    factors = np.random.default_rng(1).uniform(0.7, 1.4, NETWORKS)
    noisy.kernels = [tuple(kernel("even", 1e5 * own) for own in np.linspace(1, 2, 5) + f) for f in factors]
    noisy.times_us = [tuple(1e2 * f for _ in own) for own, f in zip(noisy.kernels, factors, strict=True)]
    noisy.latencies_ms = [sum(own) / 1e3 for own in noisy.times_us]
    in_sample = np.array(fit(noisy).predict_ms(noisy.kernels)) / noisy.latencies_ms - 1
    assert fit(noisy).held_out.mean_error > 1.2 * np.abs(in_sample).mean()


def test_without_some_networks_nothing_of_them_is_known(measured):
    """A kernel and latencies that only two networks have, and those are left out."""
    made = copy.deepcopy(measured)
    strange = kernel("strange", 1e5)
    for place in (0, 1):
        made.kernels[place] = (*made.kernels[place], strange)
        made.times_us[place] = (*made.times_us[place], 700.0)
        made.latencies_ms[place] = 99.0
    found = fit_without(made, {"0", "1"}, fit_folds(made)[1])
    assert "strange" in fit(made).models.groups
    assert "strange" not in found.models.groups
    assert strange.variant not in found.known
    assert found.correction.per_sum == pytest.approx(1.1, rel=0.02)
    seen = np.array(found.predict_ms(measured.kernels[:2])) / measured.latencies_ms[:2]
    assert seen == pytest.approx([1, 1], rel=0.05)


def test_a_kernel_takes_longer_in_passes_after_which_caches_hold_nothing_of_it(measured):
    """Twice as long in each second network, which takes a hundred times as long: its numbers are the same."""
    long = kernel("even", 1e6)
    kernels = [(*own, *[long] * 10 * (i % 2)) for i, own in enumerate(measured.kernels)]
    times_us = [(*(us * (1 + i % 2) for us in own), *[1e3] * 10 * (i % 2)) for i, own in enumerate(measured.times_us)]
    models = fit_models(rows_by_group(kernels, times_us))
    once = kernel("even", 5e4)
    short, slow = models.sums_us([[once] * 8, [once] * 8 + [long] * 10])
    assert short == pytest.approx(8 * 50, rel=0.1)
    assert slow == pytest.approx(8 * 100 + 10 * 1e3, rel=0.02)
    assert models.passes([[once] * 8, [long] * 10]) == [9.0, 13.5]  # the law lies between


def test_one_measured_twice_is_in_one_fold(measured):
    assert len({_fold(own) for own in (measured.kernels[0], tuple(measured.kernels[0]))}) == 1
    shares = np.bincount([_fold(own) for own in measured.kernels], minlength=FOLDS) / NETWORKS
    assert shares.min() > 0.1


def test_a_class_of_few_rows_is_told_by_its_law_alone(measured):
    """Of three times that the law of a single coefficient does not fit, far from what is asked."""
    few = [kernel("seldom", size) for size in (1e3, 2e3, 4e3)]
    kernels = [(*own, few[i]) if i < 3 else own for i, own in enumerate(measured.kernels)]
    times_us = [(*own, (1.0, 3.0, 2.0)[i]) if i < 3 else own for i, own in enumerate(measured.times_us)]
    models = fit_models(rows_by_group(kernels, times_us))
    assert models.groups["seldom"].trees == models.groups[model.ANY].trees == ()
    assert all(len(models.groups[name].trees) == 2 for name in ("even", "odd"))
    large = kernel("seldom", 1e6)
    assert models.kernels_us([large], pass_=20)[large] == models.groups["seldom"].law_us(np.array([large.law]))[0]


def test_trees_say_what_scikit_learn_says(monkeypatch):
    """The mean of both kinds, after a way through arrays."""
    from sklearn import ensemble

    made = []
    for kind in ("ExtraTreesRegressor", "GradientBoostingRegressor"):
        own = getattr(ensemble, kind)
        monkeypatch.setattr(
            ensemble, kind, lambda *args, own=own, **given: made.append(own(*args, **given)) or made[-1]
        )
    rng = np.random.default_rng(0)
    numbers, targets = rng.random((300, 5)).astype(np.float32), rng.random(300)
    found = fit_trees(numbers, targets)
    again = [Trees.from_arrays(own.arrays(), width=5) for own in found]
    asked = rng.random((600, 5)).astype(np.float32)
    expected = np.mean([own.predict(asked) for own in made], axis=0)
    for both in (found, again):
        np.testing.assert_allclose(sum(own.predict(asked) for own in both), expected, atol=1e-5)
    assert len(found[0].roots) == module.TREES
    assert np.std([own.predict(asked) for own in made], axis=0).max() > 0.01


def test_boosted_trees_find_what_drawn_thresholds_blur():
    """One value of sixteen is another: a threshold that is drawn falls next to it once in fifteen times."""
    rng = np.random.default_rng(0)
    numbers = np.stack([rng.integers(0, 16, 400), *rng.random((9, 400))], axis=1).astype(np.float32)
    drawn, boosted = fit_trees(numbers, np.where(numbers[:, 0] == 0, 1.0, 0.0) - 0.5)
    asked = np.column_stack([np.repeat([0, 1], 50), rng.random((100, 9))]).astype(np.float32)
    apart = [2 * (own.predict(asked)[:50].mean() - own.predict(asked)[50:].mean()) for own in (drawn, boosted)]
    assert apart[1] > apart[0]
    assert apart[1] == pytest.approx(1, abs=0.1)


def test_everything_is_kept_as_arrays(fitted, measured):
    arrays, notes = fitted.arrays()
    again = Fitted.from_arrays(arrays, notes, width=len(NUMBERS))
    assert again.predict_ms(measured.kernels) == fitted.predict_ms(measured.kernels)
    assert (again.correction, again.held_out, again.known) == (fitted.correction, fitted.held_out, fitted.known)


def test_rows_hold_each_kernel_of_a_network_once():
    small, large = kernel("even", 1e4), kernel("even", 2e4)
    (rows,) = rows_by_group([[small, large, small], [small]], [[1.0, 5.0, 3.0], [7.0]]).values()
    assert isinstance(rows, Rows)
    assert rows.network.tolist() == [0, 0, 1]
    assert rows.time_us.tolist() == [2.0, 5.0, 7.0]
    assert rows.of(np.array([False, True])).time_us.tolist() == [7.0]
    assert len(rows) < LEAST_ROWS
