"""Calibration on a device whose law is known: no clock decides anything here."""

import dataclasses
import importlib.metadata
import itertools
import json
import os
import shutil
import warnings
from itertools import islice
from random import Random
from unittest.mock import Mock

import numpy as np
import pytest
from safetensors import safe_open

import convsmith as cs
from convsmith.deploy.passes.blocks import BLOCK
from convsmith.measure import LatencyPredictor, UnknownKernelWarning
from convsmith.measure.predictor import predictor as module, table as tables, turns
from convsmith.measure.predictor.describe import describe
from convsmith.measure.predictor.jobs import NAMED, random_graph, random_jobs
from convsmith.measure.predictor.motifs import MOTIFS
from convsmith.measure.predictor.onnxruntime.profile import times_of
from convsmith.measure.predictor.speed import REFERENCES, Bursts, Speed, undisturbed
from convsmith.measure.predictor.steps import STEPS
from convsmith.nn import Classifier, ConvNormAct, InvertedResidual, MaxPool
from convsmith.search import spaces
from tests.hand_clock import HandClock
from tests.measure.predictor import fake

pytest.importorskip("onnx")

NETWORKS = 80
SHAPE = (1, 3, 32, 32)
SPACE = spaces.get("stages", num_classes=10, in_channels=3, input_size=32)
STRANGE = cs.Architecture(
    stem=[cs.spec(ConvNormAct, 16)],
    stages=[[cs.spec(ConvNormAct, 24, kernel_size=11, stride=2)]],
    head=cs.spec(Classifier, 10),
    name="strange",
)


class StopError(Exception):
    pass


def calibrate(path=None, *, networks=NETWORKS, **options):
    """Measure until there are so many networks, as if the clock had run out then."""

    def stop(count, seconds):
        if count >= networks:
            raise StopError

    try:
        LatencyPredictor.calibrate(path=path, progress=stop, minutes=60, **options)
    except StopError:
        return


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A finished calibration of the fake device."""
    path = tmp_path_factory.mktemp("calibration") / "fake.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        fake.install(patch)
        calibrate(path)
        LatencyPredictor.calibrate(path=path, minutes=1e-9)
    return path


@pytest.fixture
def predictor(file, monkeypatch, tmp_path):
    fake.install(monkeypatch)
    return LatencyPredictor.load(shutil.copy(file, tmp_path))  # a copy, which may grow


def truth_ms(architecture, shape=SHAPE):
    return fake.load(describe(architecture, shape, BLOCK)).latency_ms


def test_networks_never_measured_are_predicted(predictor):
    held_out = predictor.held_out
    assert predictor.networks == NETWORKS
    assert held_out.networks == predictor._table.timed().sum() == predictor.networks // 4
    assert held_out.within_10 > 0.8
    # What counts all multiply-accumulates alike is far off on the same networks.
    timed = predictor._table.timed()
    macs = np.array([sum(kernel.law[0] for kernel in own) for own in predictor._table.kernels])[timed]
    measured = np.array(predictor._table.latencies_ms)[timed]
    proportional = macs * np.median(measured / macs)
    assert (np.abs(proportional / measured - 1) < 0.1).mean() < 0.3


def test_members_of_a_space_are_predicted_without_being_run(predictor):
    members = [SPACE.sample(Random(seed)) for seed in range(3)]
    predicted = predictor.predict_ms(members, SHAPE, unknown="ignore")
    errors = [a / truth_ms(b) - 1 for a, b in zip(predicted, members, strict=True)]
    assert np.median(np.abs(errors)) < 0.1
    assert predictor.predict_ms(members[2], SHAPE, unknown="ignore") == predicted[2]


def test_the_sum_is_corrected_as_the_device_does(predictor):
    correction = predictor._fitted.correction
    assert correction.per_sum == pytest.approx(fake.PER_SUM, abs=0.05)
    assert correction.per_kernel == pytest.approx(fake.PER_KERNEL_US, abs=1)


def test_a_file_predicts_the_same(predictor, tmp_path):
    members = [SPACE.sample(Random(seed)) for seed in range(3)]
    before = predictor.predict_ms(members, SHAPE, unknown="ignore")
    predictor.save(tmp_path / "copy")
    again = LatencyPredictor.load(tmp_path / "copy")
    assert again.predict_ms(members, SHAPE, unknown="ignore") == before
    assert (again.about, again.held_out, again.networks) == (predictor.about, predictor.held_out, predictor.networks)
    np.testing.assert_equal(dataclasses.asdict(again._table), dataclasses.asdict(predictor._table))


def test_a_file_is_plain(file):
    with safe_open(file, framework="numpy") as content:
        document = json.loads(content.metadata()["convsmith"])
        assert content.get_tensor("table.time_us").dtype == np.float32
    assert document["format"] == "convsmith/latency/7"
    assert document["about"]["runtime"] == importlib.metadata.version("onnxruntime")
    assert document["about"]["threads"] == 1


@pytest.mark.parametrize("other", [{"runtime_version": "another version"}, {"processor": "another processor"}])
def test_a_calibration_of_another_device_is_refused(file, monkeypatch, other, tmp_path):
    fake.install(monkeypatch, **other)
    predictor = LatencyPredictor.calibrate(path=tmp_path / "other", minutes=1e-9)
    with pytest.raises(ValueError, match="calibrate again, or load it with elsewhere=True"):
        LatencyPredictor.load(tmp_path / "other")
    elsewhere = LatencyPredictor.load(tmp_path / "other", elsewhere=True)
    assert elsewhere.about == predictor.about
    with pytest.raises(ValueError, match="must be of this machine and runtime"):
        elsewhere.predict_ms(STRANGE, SHAPE, unknown="measure")
    with pytest.raises(ValueError, match="name another file, or remove it"):
        LatencyPredictor.calibrate(path=file)


def test_the_calibration_chooses_the_back_end(monkeypatch, tmp_path, file):
    pytest.importorskip("openvino")
    fake.install(monkeypatch, backend="openvino", loading=fake.load_openvino)
    path = tmp_path / "openvino"
    calibrate(path, networks=48, backend="openvino")
    predictor = LatencyPredictor.load(path)
    assert (predictor.about.backend, predictor.about.runtime) == ("openvino", importlib.metadata.version("openvino"))
    kinds = {kernel.group for own in predictor._table.kernels for kernel in own}
    assert "brgconv_1x1 convolution" in kinds
    member = SPACE.sample(Random(0))
    truth = fake.load_openvino(describe(member, SHAPE, None)).latency_ms
    assert predictor.predict_ms(member, SHAPE, unknown="ignore") == pytest.approx(truth, rel=0.3)
    with pytest.raises(ValueError, match=r"of openvino \S+ on 1 thread of cpu .* of onnxruntime .* or remove it"):
        LatencyPredictor.calibrate(backend="openvino", path=file)


def test_a_killed_calibration_keeps_its_networks(monkeypatch, tmp_path):
    seen = []
    fake.install(monkeypatch, loading=lambda graph: fake.load(graph, seen=seen))
    path = tmp_path / "killed"
    calibrate(path, networks=32)
    first = LatencyPredictor.load(path)
    names = list(first._table.names)
    assert [name.partition(":")[0] for name in names] == [f"random {number}" for number in range(32)]
    seen.clear()
    calibrate(path, networks=64)
    measured = seen[REFERENCES:]  # the references come first
    assert len(measured) == 32
    assert measured[0].shapes == random_graph(32).shapes
    assert LatencyPredictor.load(path)._table.names[:32] == names


def test_a_calibration_that_had_its_minutes_measures_nothing(file, monkeypatch, tmp_path):
    fake.install(monkeypatch)
    before = LatencyPredictor.load(shutil.copy(file, tmp_path / "again"))
    again = LatencyPredictor.calibrate(path=tmp_path / "again", minutes=1e-9)
    assert (again.networks, again.held_out, again.about) == (before.networks, before.held_out, before.about)


def test_a_calibration_that_goes_on_and_is_killed_keeps_its_model(file, monkeypatch, tmp_path):
    fake.install(monkeypatch)
    path = tmp_path / "more"
    shutil.copy(file, path)
    before = LatencyPredictor.load(path)
    calibrate(path, networks=before.networks + turns.CHUNK)
    again = LatencyPredictor.load(path)
    assert again.networks == before.networks + turns.CHUNK
    assert again.held_out == before.held_out


def test_a_link_to_a_calibration_stays_one(file, monkeypatch, tmp_path):
    fake.install(monkeypatch)
    target, link = tmp_path / "target", tmp_path / "link"
    shutil.copy(file, target)
    link.symlink_to(target)
    LatencyPredictor.load(link).update([STRANGE], SHAPE)
    assert link.is_symlink()
    assert STRANGE.name in LatencyPredictor.load(target)._table.names


def test_a_network_of_an_unknown_batch_is_measured_once(predictor):
    batch = (4, *SHAPE[1:])
    first = predictor.predict_ms(STRANGE, batch, unknown="measure")
    networks = predictor.networks
    assert predictor.predict_ms(STRANGE, batch, unknown="measure") == first
    assert predictor.networks == networks


def test_an_unknown_kernel_is_told_and_measured_on_demand(predictor):
    known = SPACE.sample(Random(0))
    unknown = predictor.unknown(STRANGE, SHAPE)
    assert any("11, 11" in name for name in unknown)
    with pytest.warns(UnknownKernelWarning, match=r"strange is predicted from what was never measured \(.*11, 11"):
        guessed = predictor.predict_ms(STRANGE, SHAPE)
    before, others = predictor.networks, predictor.predict_ms(known, SHAPE, unknown="ignore")
    measured = predictor.predict_ms(STRANGE, SHAPE, unknown="measure")
    assert predictor.networks == before + 1
    assert predictor.unknown(STRANGE, SHAPE) == []
    truth = truth_ms(STRANGE)
    assert abs(measured / truth - 1) < abs(guessed / truth - 1)
    assert predictor.predict_ms(known, SHAPE, unknown="ignore") == pytest.approx(others, rel=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.predict_ms(STRANGE, SHAPE)


def test_a_kernel_larger_than_any_measured_is_told(predictor):
    huge = cs.Architecture(
        stem=[cs.spec(ConvNormAct, 16)], stages=[[cs.spec(ConvNormAct, 9000, kernel_size=1)] * 2], name="huge"
    )
    assert any("e+08 weights, measured" in name for name in predictor.unknown(huge, (1, 3, 4, 4)))


def test_a_batch_or_a_size_outside_the_calibration_is_told(predictor):
    known = SPACE.sample(Random(0))
    assert not any("a batch" in told or "an input" in told for told in predictor.unknown(known, SHAPE))
    assert predictor.unknown(known, (2, 3, 32, 32))[0] == "a batch of 2, measured 1"
    largest = max(side for shape in predictor._table.input_shapes for side in shape[2:])
    told = predictor.unknown(known, (1, 3, 2 * largest, 32))[0]
    assert told == f"an input of {2 * largest}x32 pixels, measured 16 to {largest}"
    with pytest.warns(UnknownKernelWarning, match="a batch of 2, measured 1"):
        predictor.predict_ms(known, (2, 3, 32, 32))


def test_a_batch_is_known_once_enough_networks_of_it_were_measured(predictor):
    members = [SPACE.sample(Random(seed)) for seed in range(tables.LEAST_OF_A_BATCH)]
    predictor.update(members[:-1], (2, 3, 32, 32))
    assert any("a batch of 2" in told for told in predictor.unknown(members[-1], (2, 3, 32, 32)))
    predictor.update(members[-1:], (2, 3, 32, 32))
    assert not any("a batch of 2" in told for told in predictor.unknown(members[-1], (2, 3, 32, 32)))


def test_a_class_never_measured_is_not_taken_for_nothing(predictor):
    kernel = predictor._table.kernels[0][0]
    (first,) = predictor._fitted.predict_ms([[dataclasses.replace(kernel, group="new", variant="new")]])
    assert first > 0.5 * fake.time_us(kernel) / 1e3


def test_random_networks_are_named_by_what_they_are_made_of():
    parts = {part.__name__.strip("_") for part in (*MOTIFS, *STEPS)}
    for number, job in enumerate(islice(random_jobs(range(60)), 60)):
        name, _, made_of = job.name.partition(": ")
        assert name == f"random {number}"
        assert set(made_of.split(", ")) <= parts
        shuffles = any(op.kind == "Transpose" for op in job.graph.ops)
        shuffling = {"split_unit", "shuffled", "interleaved", "condensed", "halves", "grouped"}
        assert not shuffles or set(made_of.split(", ")) & shuffling


def test_a_file_grows_with_what_is_learnt_on_demand(predictor, file, tmp_path):
    before = predictor.networks
    measured = predictor.predict_ms(STRANGE, SHAPE, unknown="measure")
    grown = LatencyPredictor.load(tmp_path / file.name)
    assert (grown.networks, grown._table.names[-1]) == (before + 1, "strange")
    assert grown.predict_ms(STRANGE, SHAPE) == measured


def numbers_of(path):
    return [int(NAMED.match(name)[1]) for name in LatencyPredictor.load(path)._table.names if NAMED.match(name)]


def test_no_number_is_used_twice_where_networks_were_left_out(monkeypatch, tmp_path):
    """As those are whose kernels differ from the rules: the table holds fewer than were drawn."""
    loaded = []

    def loading(graph):
        network = fake.load(graph, seen=loaded)
        network.kernels = network.kernels[len(loaded) % 11 == 10 :]
        return network

    fake.install(monkeypatch, loading=loading)
    path = tmp_path / "gaps"
    for networks in (16, 40, 60):
        calibrate(path, networks=networks)
    numbers = numbers_of(path)
    assert len(numbers) == len(set(numbers)) >= 40
    assert max(numbers) >= len(numbers)


def test_two_that_grow_one_file_draw_other_networks(file, monkeypatch, tmp_path):
    fake.install(monkeypatch)
    path = tmp_path / "grown"
    shutil.copy(file, path)
    before = len(numbers_of(path))
    inner = iter([lambda: calibrate(path, networks=before + 3 * turns.CHUNK)])

    def meanwhile(count, seconds):  # the other one measures while this one does
        next(inner, lambda: None)()
        if count >= before + 4 * turns.CHUNK:
            raise StopError

    with pytest.raises(StopError):
        LatencyPredictor.calibrate(path=path, progress=meanwhile, minutes=60)
    numbers = numbers_of(path)
    assert len(numbers) == len(set(numbers)) >= before + 4 * turns.CHUNK


def test_a_calibration_that_was_removed_begins_anew(monkeypatch, tmp_path):
    fake.install(monkeypatch)
    path = tmp_path / "again"
    for _ in range(2):
        calibrate(path, networks=32)
        assert numbers_of(path) == list(range(32))
        path.unlink()


def test_the_callers_networks_are_measured_once(monkeypatch, tmp_path):
    fake.install(monkeypatch)
    members = [(SPACE.sample(Random(s)), SHAPE) for s in (0, 1, 2, 0, 1, 3)]
    for networks in (16, 32, 48):
        calibrate(tmp_path / "mixed", networks=networks, architectures=members)
    table = LatencyPredictor.load(tmp_path / "mixed")._table
    kernels = [own for own, name in zip(table.kernels, table.names, strict=True) if name == "stages"]
    assert len(kernels) == len(set(kernels)) == 4


def test_a_callers_networks_that_repeat_without_end_are_left(monkeypatch, tmp_path):
    fake.install(monkeypatch)
    calibrate(tmp_path / "mixed", networks=32, architectures=itertools.repeat((SPACE.sample(Random(0)), SHAPE)))
    assert LatencyPredictor.load(tmp_path / "mixed")._table.names.count("stages") == 1


def test_the_callers_networks_are_measured_among_the_random_ones(monkeypatch, tmp_path):
    fake.install(monkeypatch)
    calibrate(tmp_path / "mixed", networks=32, architectures=[(SPACE.sample(Random(s)), SHAPE) for s in range(2)])
    names = LatencyPredictor.load(tmp_path / "mixed")._table.names
    assert [i for i, name in enumerate(names) if name == "stages"] == [3, 7]


def test_what_the_runtime_does_not_take_is_left_out_unless_it_is_asked_for(monkeypatch, tmp_path):
    def loading(graph):
        if any(shape[2:] == (11, 11) for shape in graph.shapes.values()):
            raise ValueError("the runtime has no such convolution")
        return fake.load(graph)

    fake.install(monkeypatch, loading=loading)
    given = [(STRANGE, SHAPE), (SPACE.sample(Random(0)), SHAPE)]
    calibrate(tmp_path / "mixed", networks=48, architectures=given)
    predictor = LatencyPredictor.load(tmp_path / "mixed")
    assert {"strange", "stages"} & set(predictor._table.names) == {"stages"}
    with pytest.raises(ValueError, match="has no such convolution"):
        predictor.update([STRANGE], SHAPE)


@pytest.fixture
def turned(monkeypatch):
    """Turns on the fake device, their references, and three networks with their latencies at its usual speed."""
    loaded = []

    def loading(graph):
        loaded.append(fake.load(graph))
        return loaded[-1]

    monkeypatch.setattr(turns, "TIMED_EVERY", 1)
    measuring = turns.Turns(fake.install(monkeypatch, loading=loading))
    jobs = [turns.Job(str(number), random_graph(number)) for number in range(3)]
    (usual,) = measuring.measure(jobs)
    return measuring, loaded[:REFERENCES], jobs, [own.latency_ms for own in usual]


def test_times_are_those_at_the_speed_of_the_beginning(turned):
    measuring, references, jobs, usual = turned
    for reference in references:
        reference.slowness = 1.04
    (slower,) = measuring.measure(jobs)
    assert [own.latency_ms for own in slower] == pytest.approx([own / 1.04 for own in usual])
    assert slower[0].times_us[0] == pytest.approx(fake.load(jobs[0].graph).kernels[0].time_us / 1.04)
    assert [speed.change(measuring.usual) for speed in measuring.speeds] == pytest.approx([0, 0.04])


def test_each_fifth_network_is_timed_as_a_whole(turned, monkeypatch):
    """The others' kernels count as much, and are brought to the usual speed by what their sum tells of their size."""
    measuring, references, jobs, usual = turned
    monkeypatch.setattr(turns, "TIMED_EVERY", 5)
    chunk = [turns.Job(f"{number}", jobs[number % 3].graph) for number in range(12)]
    for place, reference in enumerate(references):
        reference.slowness = 1 + 0.01 * place
    (measured,) = measuring.measure(chunk)
    assert [own.name for own in measured if not np.isnan(own.latency_ms)] == ["0", "5", "10"]
    assert [measured[place].latency_ms for place in (0, 5, 10)] == pytest.approx(
        [usual[place] / Speed.of(measuring.speeds[1:]).slowdown(measuring.usual, usual[place]) for place in (0, 2, 1)]
    )
    assert measured[3].times_us == pytest.approx(measured[0].times_us, rel=1e-3)
    assert measured[0].times_us[0] < fake.load(jobs[0].graph).kernels[0].time_us
    (insisted,) = measuring.measure(chunk, insist=True)
    assert not np.isnan([own.latency_ms for own in insisted]).any()


def test_a_network_is_told_its_speed_by_references_of_its_size():
    usual, now = Speed((0.1, 1.0, 10.0)), Speed((0.1, 1.1, 10.0))
    assert now.slowdown(usual, 1.0) == pytest.approx(1.1)
    assert now.slowdown(usual, 10**0.5) == pytest.approx(1.1**0.5)
    assert [now.slowdown(usual, latency) for latency in (0.01, 0.1, 10, 100)] == pytest.approx([1.0] * 4)
    assert usual.slowdown(now, 1.1) == pytest.approx(1 / 1.1)


@pytest.mark.parametrize(("seconds", "untimed", "timed"), [(1e-3, 10, 8), (5e-3, 5, 3), (0.03, 1, 3)])
def test_a_burst_comes_behind_passes_that_settle(monkeypatch, seconds, untimed, timed):
    """The untimed passes take twice as long, and one of the timed ones, which the scheduler stopped, ten times."""
    takes = [*[2 * seconds] * untimed, *[seconds] * (timed - 1), 10 * seconds]
    call, passes = HandClock(monkeypatch).takes(*takes), []
    bursts = Bursts(lambda: (passes.append(1), call()), seconds)
    assert bursts.ms() == pytest.approx(1e3 * seconds)
    assert len(passes) == untimed + timed


def test_bursts_that_something_else_lengthens_do_not_count(turned):
    """Two of five of each network, and as many of the references'."""
    measuring, references, jobs, usual = turned

    def lengthened(network):
        factors = itertools.cycle([1.0, 1.3, 1.0, 1.0, 1.2])
        network.burst_ms = lambda: network.latency_ms * next(factors)
        return network

    for reference in references:
        lengthened(reference)
    measuring.runtime = Mock(wraps=measuring.runtime, load=lambda graph: lengthened(fake.load(graph)))
    (measured,) = measuring.measure(jobs)
    assert [own.latency_ms for own in measured] == pytest.approx(usual)
    assert undisturbed([4.0, 1.0, 9.0, 2.0]) == 1.5
    assert undisturbed([3.0, 7.0, 5.0]) == 4.0


def test_profiles_that_something_else_lengthens_do_not_count(turned):
    measuring, _, jobs, _ = turned
    chosen = []

    def lengthened(graph):
        network, factors = fake.load(graph), itertools.cycle([1.3, 1.0, 1.1, 1.0, 1.0])
        network.profile_ms = lambda: network.latency_ms * next(factors)
        network.times_us = lambda ran, profiles: chosen.append(profiles) or times_of(ran, network.kernels)
        return network

    measuring.runtime = Mock(wraps=measuring.runtime, load=lengthened)
    list(measuring.measure(jobs))
    assert chosen == [[1, 3, 4]] * 3


def test_rounds_at_another_speed_are_made_again(turned):
    """The networks stay loaded, and the faster half of all rounds counts, theirs and the references'."""
    measuring, references, jobs, usual = turned

    def slowed(network):
        slowness = itertools.chain([1.5] * turns.ROUNDS, itertools.repeat(1.0))
        network.burst_ms = lambda: network.latency_ms * next(slowness)
        return network

    for reference in references:
        slowed(reference)
    loaded = []
    measuring.runtime = Mock(
        wraps=measuring.runtime, load=lambda graph: loaded.append(slowed(fake.load(graph))) or loaded[-1]
    )
    (measured,) = measuring.measure(jobs)
    assert [own.latency_ms for own in measured] == pytest.approx(usual)
    assert (len(loaded), measuring.disturbed) == (3, 3)


def test_what_takes_long_is_measured_in_fewer_rounds(turned, monkeypatch):
    measuring, _, jobs, usual = turned
    monkeypatch.setattr(turns, "ENOUGH_SECONDS", 0)
    several = [Mock(wraps=fake.load(job.graph)) for job in jobs]
    loaded = iter(several)
    measuring.runtime = Mock(wraps=measuring.runtime, load=lambda graph: next(loaded))
    (measured,) = measuring.measure(jobs)
    assert [own.profile_ms.call_count for own in several] == [turns.LEAST_ROUNDS] * 3
    assert [own.latency_ms for own in measured] == pytest.approx(usual)


def test_networks_that_are_insisted_on_are_kept_at_any_speed(turned):
    measuring, references, jobs, usual = turned
    for reference in references:
        reference.slowness = 1.5
    (insisted,) = measuring.measure(jobs, insist=True)
    assert [own.latency_ms for own in insisted] == pytest.approx([own / 1.5 for own in usual])


def test_a_machine_that_is_another_one_is_refused_in_the_end(turned):
    measuring, references, jobs, _ = turned
    references[1].slowness = 1.5
    assert list(measuring.measure(jobs)) == [[]]
    assert len(measuring.speeds) == 1
    many = [turns.Job(f"{number}", jobs[0].graph) for number in range(turns.MOST_LOST * turns.CHUNK)]
    with pytest.raises(ValueError, match=r"the machine must keep its speed .* ms beside the last networks"):
        list(measuring.measure(many))


@pytest.mark.parametrize("first_second", [0.85, 1.5])
def test_a_calibration_is_at_the_usual_speed_of_its_minutes(first_second, monkeypatch, tmp_path):
    """Not at that of its first second, when the references were measured for the first time."""
    loaded = []

    def loading(graph):
        loaded.append(fake.load(graph))
        return loaded[-1]

    fake.install(monkeypatch, loading=loading)
    first = itertools.count()
    monkeypatch.setattr(
        fake.FakeNetwork,
        "burst_ms",
        lambda own: own.latency_ms * (first_second if own in loaded[:3] and next(first) < 3 * turns.FIRST else 1),
    )
    predictor = LatencyPredictor.calibrate(path=tmp_path / "file", minutes=1e-9)
    assert predictor.about.reference_ms == pytest.approx([own.latency_ms for own in loaded[:REFERENCES]])
    assert predictor._table.latencies_ms[0] == pytest.approx(loaded[REFERENCES].latency_ms)
    predictor.update([STRANGE], SHAPE)
    assert predictor._table.latencies_ms[-1] == pytest.approx(truth_ms(STRANGE))


def test_what_cannot_be_kept_is_told(predictor, monkeypatch):
    def full(path):
        raise OSError("no space left")

    monkeypatch.setattr(predictor, "save", full)
    with pytest.warns(RuntimeWarning, match="what was measured is not kept: no space left"):
        predictor.update([STRANGE], SHAPE)


def test_a_runtime_with_other_rules_is_refused(monkeypatch):
    def loading(graph):
        network = fake.load(graph)
        network.kernels = network.kernels[1:]
        return network

    fake.install(monkeypatch, loading=loading)
    with pytest.raises(ValueError, match=r"16 of 16 networks differ .* install the version that they were written for"):
        LatencyPredictor.calibrate(minutes=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, "can be calibrated for cpu, got 'cuda'"),
        ({"backend": "eager"}, "can be calibrated for onnxruntime or openvino, got 'eager'"),
        ({"threads": 0}, "threads must be a positive integer"),
        ({"threads": 1 + len(os.sched_getaffinity(0))}, "threads must be at most .*, 1 for each core"),
        ({"minutes": 0}, "minutes must be a finite positive number, got 0"),
        ({"minutes": float("nan")}, "minutes must be a finite positive number, got nan"),
    ],
)
def test_what_is_not_offered_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LatencyPredictor.calibrate(**options)


def test_another_word_for_the_unknown_is_refused(predictor):
    with pytest.raises(ValueError, match="unknown is one of warn, measure, ignore, got 'guess'"):
        predictor.predict_ms(STRANGE, SHAPE, unknown="guess")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="make one with `convsmith calibrate`"):
        LatencyPredictor.load(tmp_path / "none")
    (tmp_path / "text").write_text("no table")
    with pytest.raises(ValueError, match="is no calibration"):
        LatencyPredictor.load(tmp_path / "text")


def test_blocks_are_exported_once(monkeypatch):
    exported = []
    export = module.describe.__globals__["_exported"]
    monkeypatch.setitem(module.describe.__globals__, "_exported", lambda *a: exported.append(a) or export(*a))
    blocks = [cs.spec(InvertedResidual, 20, kernel_size=9), cs.spec(InvertedResidual, 20, kernel_size=9)]
    network = cs.Architecture(stem=[cs.spec(ConvNormAct, 20)], stages=[blocks, [cs.spec(MaxPool)]], name="twice")
    first = describe(network, (1, 3, 20, 20), None)
    count = len(exported)
    assert count <= 3
    assert describe(network, (1, 3, 20, 20), None).ops == first.ops
    assert len(exported) == count
