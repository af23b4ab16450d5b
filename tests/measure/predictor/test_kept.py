"""Calibrations that several processes grow."""

import multiprocessing
import shutil

import numpy as np
import pytest

import convsmith as cs
from convsmith.measure import LatencyPredictor
from convsmith.measure.predictor.kept import locked
from convsmith.measure.predictor.reading import load
from convsmith.measure.predictor.speed import Speed
from convsmith.nn import Classifier, ConvNormAct
from tests.measure.predictor import fake

pytest.importorskip("onnx")

SHAPE = (1, 3, 32, 32)


def network(name, width):
    blocks = [[cs.spec(ConvNormAct, width, kernel_size=11, stride=2)]]  # a kernel that no random network has
    return cs.Architecture(stem=[cs.spec(ConvNormAct, 16)], stages=blocks, head=cs.spec(Classifier, 10), name=name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("calibration") / "file"
    with pytest.MonkeyPatch.context() as patch:
        fake.install(patch)
        LatencyPredictor.calibrate(path=path, minutes=1e-9)
    return path


@pytest.fixture
def file(finished, monkeypatch, tmp_path):
    fake.install(monkeypatch)
    return shutil.copy(finished, tmp_path / "file")


def grow(path, name, both_have_read, results):
    """What a process of its own does: load, wait for the other one, and learn three networks."""
    with pytest.MonkeyPatch.context() as patch:
        fake.install(patch)
        predictor = LatencyPredictor.load(path)
        both_have_read.wait(60)
        for number in range(3):
            predictor.update([network(f"{name} {number}", 8 * (number + 1))], SHAPE)
        results.put((name, predictor.networks))


@pytest.mark.slow
def test_two_processes_lose_nothing_of_each_other(file):
    before, _, _ = load(file)
    context = multiprocessing.get_context("spawn")
    both_have_read, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=grow, args=(file, name, both_have_read, results)) for name in ("one", "other")]
    for process in processes:
        process.start()
    networks = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    after, _, _ = load(file)
    count = len(before)
    assert after.names[:count] == before.names
    np.testing.assert_array_equal(after.latencies_ms[:count], before.latencies_ms)
    assert sorted(after.names[count:]) == [f"{name} {n}" for name in ("one", "other") for n in range(3)]
    assert max(networks.values()) == count + 6  # who wrote last knows all
    assert LatencyPredictor.load(file).unknown(network("other", 16), SHAPE) == []


def test_what_others_added_is_learnt_from(file):
    one, other = LatencyPredictor.load(file), LatencyPredictor.load(file)
    strange = network("strange", 24)
    one.update([strange], SHAPE)
    assert other.unknown(strange, SHAPE)
    other.update([network("another", 8)], SHAPE)
    assert not other.unknown(strange, SHAPE)
    assert other._table.names[-2:] == ["strange", "another"]
    assert other.predict_ms(strange, SHAPE) == LatencyPredictor.load(file).predict_ms(strange, SHAPE)


def test_times_are_at_the_speed_of_the_file(file):
    """Whose reference took another time when it was written last."""
    predictor = LatencyPredictor.load(file)
    table, arrays, notes = load(file)
    table.at_speed(Speed(tuple(1.25 * own for own in table.about.reference_ms)))
    table.save(file, arrays, notes)
    predictor.update([network("strange", 24)], SHAPE)
    predictor.update([network("strange", 24)], SHAPE)
    first, second = predictor._table.latencies_ms[-2:]
    assert second == pytest.approx(first)
    assert predictor.about == table.about
    np.testing.assert_array_equal(predictor._table.latencies_ms[:-2], table.latencies_ms)


def test_another_calibration_in_its_place_is_left_alone(file, tmp_path):
    predictor = LatencyPredictor.load(file)
    LatencyPredictor.calibrate(path=tmp_path / "new", minutes=1e-9)
    table, arrays, notes = load(tmp_path / "new")
    table.latencies_ms[0] *= 2
    table.save(file, arrays, notes)
    with pytest.warns(RuntimeWarning, match="what was measured is not kept: .* it holds another calibration now"):
        predictor.update([network("strange", 24)], SHAPE)
    assert not predictor.unknown(network("strange", 24), SHAPE)
    np.testing.assert_array_equal(load(file)[0].latencies_ms, table.latencies_ms)


def test_a_file_that_is_gone_is_written_again(file):
    predictor = LatencyPredictor.load(file)
    file.unlink()
    predictor.update([network("strange", 24)], SHAPE)
    assert LatencyPredictor.load(file).networks == predictor.networks


def test_of_two_that_begin_a_file_the_second_is_refused(finished, monkeypatch, tmp_path):
    fake.install(monkeypatch)

    def meanwhile(networks, seconds):
        if not seen:
            seen.append(load(tmp_path / "file")[0].names)
            shutil.copy(finished, tmp_path / "moved").replace(tmp_path / "file")
            table, arrays, notes = load(tmp_path / "file")
            table.latencies_ms[0] *= 2
            table.save(tmp_path / "file", arrays, notes)

    seen = []
    with pytest.raises(ValueError, match="it holds another calibration now"):
        LatencyPredictor.calibrate(path=tmp_path / "file", minutes=1e-9, progress=meanwhile)
    assert seen
    assert load(tmp_path / "file")[0].names == load(finished)[0].names


def test_a_lock_is_free_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(IndexError), locked(tmp_path / "folder" / "file"):
            [][0]
