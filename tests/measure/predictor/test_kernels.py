"""What surrounds a kernel, as its numbers tell."""

import math

import pytest

from convsmith.measure.predictor.engines import ENGINES
from convsmith.measure.predictor.kernels import NUMBERS
from convsmith.measure.predictor.openvino import kernels as openvino
from convsmith.measure.predictor.writer import Writer


def kernels_of(backend, repeats, *, reuse=0, classes=10):
    """Of a network of equal convolutions, the last map added to that of the convolution `reuse` places before."""
    w = Writer((1, 16, 32, 32))
    maps = ["input"]
    for _ in range(repeats):
        maps.append(w.conv(maps[-1], 16, (3, 3)))
    joined = w.add(maps[-1], w.op("Sigmoid", [maps[-1 - reuse]], w.shapes[maps[0]])) if reuse else maps[-1]
    engine = ENGINES[backend]
    return engine.kernels(engine.executed(w.graph(w.linear(w.flatten(w.global_pool(joined)), classes), opset=18), 16))


@pytest.mark.parametrize(("backend", "names"), [("onnxruntime", NUMBERS), ("openvino", openvino.NUMBERS)])
def test_a_kernel_is_told_apart_by_how_long_the_pass_takes_around_it(backend, names):
    place = names.index("log_work")
    short, long = ([k for k in kernels_of(backend, n) if "onvolution" in k.group] for n in (2, 64))
    (work,), (more,) = ({k.numbers[place] for k in own} for own in (short, long))
    assert more - work == pytest.approx(5, abs=1)  # 32 times as many
    rest = [[(k.group, k.variant, k.law, k.numbers[:place]) for k in own] for own in (short, long)]
    assert set(rest[0]) == set(rest[1])


def test_a_map_that_is_read_again_late_is_told():
    place = NUMBERS.index("log_since_read")
    late, soon = (max(k.numbers[place] for k in kernels_of("onnxruntime", 12, reuse=n)) for n in (10, 1))
    assert late > soon


@pytest.mark.parametrize(("backend", "names"), [("onnxruntime", NUMBERS), ("openvino", openvino.NUMBERS)])
def test_a_kernel_is_told_apart_by_the_weights_of_the_whole_network(backend, names):
    """Those of two convolutions and of a classifier, in bytes; what is around a kernel is told in halves of a power."""
    place, told = names.index("log_all_weights"), {}
    for classes in (10, 20_000):
        (told[classes],) = {k.numbers[place] for k in kernels_of(backend, 2, classes=classes)}
        held = 2 * (16 * 16 * 3 * 3 + 16) + (16 + 1) * classes
        assert told[classes] == pytest.approx(math.log2(4 * held), abs=0.5)
    assert told[20_000] - told[10] == pytest.approx(6, abs=0.5)


def openvino_kernels(steps, channels=16):
    """Of a network of convolutions, each told by its width and the side of its kernel."""
    w = Writer((1, channels, 32, 32))
    x = "input"
    for width, side in steps:
        x = w.act(w.conv(x, width, (side, side)), "relu")
    engine = ENGINES["openvino"]
    return engine.kernels(engine.executed(w.graph(w.linear(w.flatten(w.global_pool(x)), 10), opset=18), 16))


def test_a_kernel_is_told_how_often_it_runs_and_how_many_others_lie_between():
    """Held against the passes written out: what ran since the same kernel ran last, maybe in the pass before."""
    kernels = openvino_kernels([(16, 3), (16, 1), (16, 3), (16, 3), (16, 5), (16, 1), (16, 3)])
    places = [openvino.NUMBERS.index(name) for name in ("log_repeats", "log_between")]
    names = [(own.variant, own.law) for own in kernels]
    for at, own in enumerate(kernels):
        passes = names + names[:at]
        last = max(n for n, name in enumerate(passes) if name == names[at])
        expected = names.count(names[at]), 1 + len(set(passes[last + 1 :]))
        assert [own.numbers[place] for place in places] == pytest.approx([math.log2(n) for n in expected], abs=0.25)
    assert {own.numbers[places[0]] for own in kernels} == {0.0, 1.0, 2.0}


@pytest.mark.parametrize(("channels", "whole", "step"), [(32, 1, 7), (24, 0, 5), (512, 1, 11), (1536, 1, 11)])
def test_a_kernel_is_told_how_its_channels_fit_vectors_and_caches(channels, whole, step):
    kernel = next(own for own in openvino_kernels([(channels, 1), (16, 3)]) if own.numbers[15:17] == (3.0, 3.0))
    told = dict(zip(openvino.NUMBERS, kernel.numbers, strict=True))
    assert (told["in_whole"], told["log_in_step"]) == (whole, step)
    assert (told["out_whole"], told["log_out_step"]) == (1, 6)


@pytest.mark.parametrize(("channels", "lines"), [(512, 48), (256, 24), (768, 24), (400, 1.5), (8, 1.5)])
def test_a_kernel_is_told_how_many_lines_of_the_rows_that_it_reads_share_a_set_of_the_cache(channels, lines):
    """Three rows of 32 pixels: 2048 bytes apart they share two sets, and 1600 or 32 apart all 64."""
    kernel = next(own for own in openvino_kernels([(channels, 1), (16, 3)]) if own.numbers[15:17] == (3.0, 3.0))
    assert 2 ** kernel.numbers[openvino.NUMBERS.index("log_lines_a_set")] == pytest.approx(lines)


@pytest.mark.parametrize("chosen", [False, True])
def test_a_kernel_is_told_whether_its_maps_have_their_channels_last(chosen):
    """Channels that are chosen one by one are first behind, up to the copy for the next convolution."""
    w = Writer((1, 16, 8, 8))
    x = w.concat([w.conv("input", 16, (3, 3)), w.conv("input", 16)])
    x = w.choose(x, [*range(16, 32), *range(16)]) if chosen else x
    x = w.conv(w.act(w.norm(x), "relu"), 8, (3, 3))
    engine = ENGINES["openvino"]
    ran = engine.executed(w.graph(w.linear(w.flatten(w.global_pool(x)), 10), opset=18), 16)
    place = openvino.NUMBERS.index("channels_last")
    told = [(op.kind, kernel.numbers[place]) for op, kernel in zip(ran.ops, engine.kernels(ran), strict=True)]
    assert [last for kind, last in told if kind == "Subgraph"] == [not chosen]
    assert {last for kind, last in told if kind == "Convolution"} == {1.0}
