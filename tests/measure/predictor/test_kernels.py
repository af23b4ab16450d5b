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
