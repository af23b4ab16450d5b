import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import Shift, channel_dependency_graph, native, shift_copy, shift_cpu, shift_masked
from convsmith.nn.shift_forms import Moves, by_padding
from tests.nn.operators import called, needs_a_compiler, without_operators

ROWS, LAST = torch.contiguous_format, torch.channels_last


def displacement(channel, channels, kernel_size, interleaved):
    """(dy, dx) of a channel, in taps."""
    group, taps = channels // kernel_size**2, kernel_size**2
    if channel >= group * taps:
        return 0, 0
    tap = channel % taps if interleaved else channel // group
    return tap // kernel_size - kernel_size // 2, tap % kernel_size - kernel_size // 2


def by_formula(x, *, kernel_size, dilation=1, stride=1, interleaved=False):
    """Channel by channel, pixel by pixel."""
    n, channels, height, width = x.shape
    out = x.new_zeros(n, channels, -(-height // stride), -(-width // stride))
    for c in range(channels):
        dy, dx = displacement(c, channels, kernel_size, interleaved)
        for i, j in product(range(out.shape[2]), range(out.shape[3])):
            h, w = stride * i + dilation * dy, stride * j + dilation * dx
            if 0 <= h < height and 0 <= w < width:
                out[:, c, i, j] = x[:, c, h, w]
    return out


def by_convolution(x, *, kernel_size, dilation=1, stride=1, interleaved=False):
    """The depthwise convolution with one-hot kernels."""
    channels, middle = x.shape[1], kernel_size // 2
    weight = x.new_zeros(channels, 1, kernel_size, kernel_size)
    for c in range(channels):
        dy, dx = displacement(c, channels, kernel_size, interleaved)
        weight[c, 0, middle + dy, middle + dx] = 1
    return F.conv2d(x, weight, None, stride, middle * dilation, dilation, channels)


def shift_of(channels, *, interleaved=False, **arguments):
    return Shift(channels, assignment="interleaved" if interleaved else "contiguous", **arguments)


@pytest.fixture(params=["few", "many", pytest.param("operator", marks=needs_a_compiler)])
def form_of_copies(request, monkeypatch):
    """Small maps are copied in another way than large ones, and all by the operator where it is built: take each."""
    if request.param == "operator":
        assert native.is_built()
        yield
        return
    without_operators(monkeypatch)
    for module in (shift_copy, shift_masked):
        monkeypatch.setattr(module, "FEW_ELEMENTS", 2**16 if request.param == "few" else 0)
    shift_copy._plan.cache_clear()
    yield
    shift_copy._plan.cache_clear()


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize(("channels", "kernel_size"), [(3, 1), (9, 3), (20, 3), (27, 3), (28, 5), (51, 7)])
@pytest.mark.usefixtures("form_of_copies")
def test_it_is_the_depthwise_convolution_with_one_hot_kernels(channels, kernel_size, dilation, stride, interleaved):
    arguments = {"kernel_size": kernel_size, "dilation": dilation, "stride": stride, "interleaved": interleaved}
    block = shift_of(channels, **arguments).double()
    for size, form in product([(1, 1), (2, 5), (6, 3), (11, 12)], [ROWS, LAST]):
        x = torch.randn(3, channels, *size, dtype=torch.float64).to(memory_format=form)[1:].requires_grad_()
        y, expected = block(x), by_convolution(x, **arguments)
        assert torch.equal(y, expected)
        assert y.is_contiguous(memory_format=form)
        gradient = torch.randn_like(expected)
        assert torch.equal(*(torch.autograd.grad(z, x, gradient)[0] for z in (y, expected)))


@pytest.mark.parametrize("interleaved", [False, True])
def test_it_is_the_formula(interleaved):
    x = torch.randn(2, 29, 6, 5, dtype=torch.float64)
    for arguments in ({"kernel_size": 5}, {"kernel_size": 3, "dilation": 2, "stride": 2}):
        expected = by_formula(x, **arguments, interleaved=interleaved)
        assert torch.equal(shift_of(29, **arguments, interleaved=interleaved).double()(x), expected)


def test_the_assignments_are_those_of_the_paper_and_of_its_code():
    """A mark in the middle of each channel's map, and where it went: it moves against the displacement that is read."""
    x = torch.zeros(1, 20, 5, 5)
    x[:, :, 2, 2] = 1
    moved = {a: Shift(20, assignment=a)(x).nonzero()[:, 2:].sub(2).tolist() for a in ("contiguous", "interleaved")}
    assert (
        moved["contiguous"] == [[-dy, -dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1) for _ in range(2)] + [[0, 0]] * 2
    )
    assert moved["interleaved"] == [[1 - c // 3 % 3, 1 - c % 3] for c in range(18)] + [[0, 0]] * 2


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.usefixtures("form_of_copies")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch itself, where tangents are first used
def test_its_derivatives(stride, interleaved):
    block = shift_of(11, dilation=2, stride=stride, interleaved=interleaved).double()
    x = torch.randn(2, 11, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(block, x)


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("form", [ROWS, LAST])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_moves_numbers_of_every_type_as_they_are(dtype, form):
    for channels, size in ((20, 9), (200, 6), (160, 24)):  # few channels a group, many, many elements
        x = torch.randn(2, channels, size, size).to(dtype).to(memory_format=form)
        expected = by_convolution(x.double(), kernel_size=3)
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                y = Shift(channels).to(dtype)(x)
            assert y.dtype is dtype
            assert y.is_contiguous(memory_format=form)
            assert torch.equal(y.double(), expected)


@pytest.mark.usefixtures("operators")
def test_under_autocast_it_keeps_its_type():
    x = torch.randn(2, 20, 7, 7).to(memory_format=LAST)
    with torch.autocast("cpu", torch.bfloat16):
        y = Shift(20)(x)
    assert torch.equal(y, by_convolution(x, kernel_size=3))


@pytest.mark.usefixtures("operators")
def test_an_infinite_value_moves_alone():
    x = torch.zeros(1, 18, 4, 4)
    x[0, 0, 1, 1], x[0, 17, 2, 2] = float("inf"), float("nan")
    y = Shift(18)(x)
    assert y.isinf().nonzero().tolist() == [[0, 0, 2, 2]]
    assert y.isnan().nonzero().tolist() == [[0, 17, 1, 1]]


@pytest.mark.usefixtures("operators")
def test_inputs_that_are_views_and_empty_batches():
    block = Shift(20)
    x = torch.randn(4, 5, 2, 20, dtype=torch.float32)
    view = x.permute(2, 3, 1, 0)  # (2, 20, 5, 4), dense in neither order
    assert torch.equal(block(view), by_convolution(view.contiguous(), kernel_size=3))
    assert torch.equal(
        block(x[:1, :1, :1, :].permute(0, 3, 1, 2)), by_convolution(x[:1, :1, :1].permute(0, 3, 1, 2), kernel_size=3)
    )
    leaf = torch.randn(1, 20, 5, 4, requires_grad=True)
    block(leaf).sum().backward()  # an expanded gradient
    assert torch.equal(leaf.grad, torch.autograd.grad(by_convolution(leaf, kernel_size=3).sum(), leaf)[0])
    assert block(torch.empty(0, 20, 5, 4)).shape == (0, 20, 5, 4)


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("form", [ROWS, LAST])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transforms_of_functions(form, interleaved):
    block = shift_of(20, stride=2, interleaved=interleaved).double()
    x = torch.randn(3, 20, 5, 4, dtype=torch.float64).to(memory_format=form)

    def loss(x):
        return block(x).square().sum()

    per_image = torch.func.vmap(torch.func.grad(lambda image: loss(image[None])))(x)
    leaf = x.clone().requires_grad_()
    loss(leaf).backward()
    assert torch.equal(per_image, leaf.grad)
    assert torch.equal(torch.func.jvp(block, (x,), (x,))[1], block(x))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("form", [ROWS, LAST])
def test_compiled_it_is_the_same_in_value_and_gradient(form, interleaved):
    torch._dynamo.reset()
    block = shift_of(29, kernel_size=5, interleaved=interleaved).double()
    x = torch.randn(2, 29, 6, 5, dtype=torch.float64).to(memory_format=form).requires_grad_()
    y = torch.compile(block, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(y, block(x))
    assert y.is_contiguous(memory_format=form)
    gradient = torch.randn_like(y)
    assert torch.equal(*(torch.autograd.grad(z, x, gradient)[0] for z in (y, block(x))))


# Of the widths 8, 16, 7, 12, 14, 28 and 33 each is made in tiles of another width, or with one that overlaps.
SIZES = (1, 1), (2, 5), (3, 8), (5, 16), (7, 7), (9, 12), (4, 14), (6, 28), (40, 33)


@needs_a_compiler
@pytest.mark.parametrize("form", [ROWS, LAST])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64])
def test_the_operator_of_compiled_programs(dtype, form):
    assert native.is_built()
    kernels = (9, 3), (29, 3), (27, 5), (3, 1), (200, 3), (160, 5), (144, 3), (90, 3)
    cases = product(kernels, (1, 3), (1, 2), (False, True), (1, -1), SIZES)
    for (channels, kernel_size), dilation, stride, interleaved, sign, size in cases:
        if sign < 0 and stride > 1:
            continue
        x = torch.randint(256, (3, channels, *size)).to(dtype).to(memory_format=form)[1:]
        moves = Moves(kernel_size, dilation, stride, interleaved, sign)
        y = shift_cpu.by_operator(x, moves)
        assert torch.equal(y, by_padding(x, moves)), moves
        assert y.is_contiguous(memory_format=form)
    for check in ("test_schema", "test_faketensor"):
        torch.library.opcheck(torch.ops.convsmith.shift.default, (x, *moves, form is LAST), test_utils=check)


@needs_a_compiler
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("channels", [130, 260, 300, 304])  # far, far and wide, large, and large and streamed
@pytest.mark.parametrize("interleaved", [False, True])
def test_of_large_maps_memory_is_asked_for_ahead_of_time(channels, kernel_size, interleaved):
    assert native.is_built()
    x = torch.randint(256, (2, channels, 61, 60)).to(torch.int32).to(memory_format=LAST)
    assert 2 * x.nbytes > 6 << 20
    assert (channels < 300) == (x.nbytes < 8 << 20)
    moves = Moves(kernel_size, 1, 1, interleaved)
    assert torch.equal(shift_cpu.by_operator(x, moves), by_padding(x, moves))


@needs_a_compiler
@pytest.mark.parametrize("stride", [1, 2])
def test_compiled_for_any_size_it_keeps_the_memory_format_of_gradients(stride):
    torch._dynamo.reset()
    assert native.is_built()
    run = torch.compile(Shift(29, stride=stride), fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 29, 6, 5), (3, 29, 8, 16), (1, 29, 9, 7)):
        x = torch.randn(shape).to(memory_format=LAST).requires_grad_()
        y = run(x)
        assert torch.equal(y, by_convolution(x, kernel_size=3, stride=stride))
        assert y.is_contiguous(memory_format=LAST)
        gradient = torch.randn_like(y)
        (expected,) = torch.autograd.grad(by_convolution(x, kernel_size=3, stride=stride), x, gradient)
        (actual,) = torch.autograd.grad(y, x, gradient)
        assert torch.equal(actual, expected)
        assert actual.is_contiguous(memory_format=LAST)


@needs_a_compiler
@pytest.mark.parametrize("operator", [True, False])
def test_compiled_programs_take_the_operator_where_it_is_built(operator, monkeypatch):
    torch._dynamo.reset()
    if not operator:
        without_operators(monkeypatch)
    called = []

    def backend(graph, _):
        called.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    x = torch.randn(2, 29, 6, 5)
    with torch.no_grad():
        y = torch.compile(Shift(29), fullgraph=True, backend=backend)(x)
    assert torch.equal(y, by_convolution(x, kernel_size=3))
    assert any("in_graph" in name for name in called) == operator


def test_eager_passes_take_the_operator_where_it_is_built_and_nobody_follows_values(operators):
    block, x = Shift(20), torch.randn(2, 20, 5, 4)
    assert ("convsmith::shift" in called(block, x)) == operators
    assert "convsmith::shift" not in called(block, x, follows_values=True)


def test_operators_do_not_bring_the_compiler_along():
    """Which takes seconds to import: `convsmith list` and all that only counts would wait for it."""
    code = "import sys, convsmith as cs; cs.zoo.names(); print({'torch._dynamo', 'torch._inductor'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
@pytest.mark.parametrize("form", [ROWS, LAST])
def test_compiled_by_inductor(form):
    torch._dynamo.reset()
    block = Shift(29, kernel_size=3)
    x = torch.randn(2, 29, 6, 5).to(memory_format=form).requires_grad_()
    y = torch.compile(block, fullgraph=True)(x)
    assert torch.equal(y, block(x))
    gradient = torch.randn_like(y)
    found, expected = (torch.autograd.grad(z, x, gradient)[0] for z in (y, block(x)))
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()


def test_a_program_takes_any_batch_and_any_size():
    block = shift_of(20, stride=2).double()
    x = torch.randn(2, 20, 8, 6, dtype=torch.float64)
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=4)}
    program = torch.export.export(block, (x,), dynamic_shapes=(sizes,), strict=True).module()
    x = torch.randn(3, 20, 5, 6, dtype=torch.float64)
    assert torch.equal(program(x), by_convolution(x, kernel_size=3, stride=2))


def test_a_traced_graph_has_it_as_one_node():
    network = nn.Sequential(nn.Conv2d(3, 20, 1), Shift(20), cs.nn.ReLU(20))
    traced = torch.fx.symbolic_trace(network)
    assert [node.target.__name__ for node in traced.graph.nodes if node.op == "call_function"] == ["shift", "relu"]
    x = torch.randn(1, 3, 5, 5)
    assert torch.equal(traced(x), network(x))
    assert torch.equal(traced(x.to(memory_format=LAST)), network(x.to(memory_format=LAST)))


def test_it_costs_nothing_and_has_nothing_to_learn_or_save():
    block = Shift(64, kernel_size=5)
    for shape in ((1, 64, 56, 56), (8, 64, 14, 14)):
        cost = cs.measure.cost(block, shape)
        assert (cost.macs, cost.params, cost.activations, cost.uncounted) == (0, 0, 0, {})
        assert 2 * 4 * torch.Size(shape).numel() <= cost.memory_bytes  # read and written once at least
    assert block.state_dict() == {}


def test_its_channels_depend_on_themselves():
    graph = channel_dependency_graph([nn.Conv2d(20, 20, 1, groups=20), Shift(20)])
    assert torch.equal(graph, torch.eye(20, dtype=torch.bool))


def test_as_a_convolution():
    block = shift_of(20, kernel_size=3, dilation=2, stride=2, interleaved=True).double().eval()
    convolution = block.as_convolution()
    x = torch.randn(2, 20, 7, 6, dtype=torch.float64)
    assert torch.equal(convolution(x), block(x))
    assert not convolution.training
    assert not convolution.weight.requires_grad
    assert convolution.weight.data_ptr() != block.taps.data_ptr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 4}, r"kernel_size must be odd here, got kernel_size=4; take 5"),
        (
            {"kernel_size": 5},
            r"a channel for each of its kernel_size\*\*2 displacements, got in_channels=24 and kernel_",
        ),
        ({"dilation": 0}, r"dilation and stride of a shift must be positive, got dilation=0 and stride=1"),
        ({"stride": 0}, r"dilation and stride of a shift must be positive, got dilation=1 and stride=0"),
        ({"assignment": "random"}, "assignment must be one of 'contiguous', 'interleaved', got 'random'"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        Shift(24, **arguments)


IN_TRITON = """
import torch
from convsmith.nn.shift_forms import Moves, run_differentiably
from convsmith.nn.shift_triton import by_triton
from tests.nn.test_shift import LAST, ROWS, by_convolution, product

cases = product(((9, 3), (29, 3), (27, 5), (3, 1)), (1, 2), (1, 2), (False, True), ((5, 4), (9, 12)), (ROWS, LAST))
for (channels, kernel_size), dilation, stride, interleaved, size, form in cases:
    x = torch.randn(2, channels, *size).to(memory_format=form).requires_grad_()
    arguments = {"kernel_size": kernel_size, "dilation": dilation, "stride": stride, "interleaved": interleaved}
    y, expected = run_differentiably(x, by_triton, Moves(**arguments)), by_convolution(x, **arguments)
    assert torch.equal(y, expected), arguments
    assert y.is_contiguous(memory_format=form)
    dy = torch.randn_like(expected)
    assert torch.equal(*(torch.autograd.grad(z, x, dy)[0] for z in (y, expected))), arguments
"""


@pytest.mark.slow
def test_the_kernel_for_gpus_in_tritons_interpreter():
    pytest.importorskip("triton")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    done = subprocess.run([sys.executable, "-c", IN_TRITON], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_compiled_for_a_gpu_it_is_the_operator():
    pytest.importorskip("triton")
    graphs = []
    block = Shift(32)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        # No device is needed to follow a program over tensors without values.
        x = torch.empty(2, 32, 8, 8, device="cuda")
        torch.compile(block, backend=lambda graph, _: graphs.append(graph.graph) or graph.forward)(x)
    assert shift_cpu.in_graph in {node.target for node in graphs[0].nodes}


@pytest.mark.gpu
@pytest.mark.parametrize("form", [ROWS, LAST])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("triton", [True, False])
def test_on_a_gpu(triton, interleaved, form, monkeypatch):
    if not triton:
        monkeypatch.setattr("convsmith.nn.shift.triton_kernel", lambda: None)
    block = shift_of(200, kernel_size=5, stride=2, interleaved=interleaved).cuda()
    for dtype in (torch.float32, torch.float16, torch.float64):
        x = torch.randn(3, 200, 29, 30).to("cuda", dtype).to(memory_format=form).requires_grad_()
        y, expected = block(x), by_convolution(x.double(), kernel_size=5, stride=2, interleaved=interleaved)
        assert torch.equal(y.double(), expected)
        assert y.is_contiguous(memory_format=form)
        (found,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(found, torch.autograd.grad(expected.sum(), x)[0])


@pytest.mark.gpu
@pytest.mark.parametrize("form", [ROWS, LAST])
@pytest.mark.parametrize("interleaved", [False, True])
def test_compiled_for_a_gpu_it_is_one_kernel(interleaved, form):
    pytest.importorskip("triton")
    block = shift_of(200, kernel_size=5, interleaved=interleaved).cuda()
    x = torch.randn(3, 200, 29, 30, device="cuda").to(memory_format=form).requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as record:
        y = torch.compile(block)(x)
        (found,) = torch.autograd.grad(y.sum(), x)
    expected = by_convolution(x.double(), kernel_size=5, interleaved=interleaved)
    assert torch.equal(y.double(), expected)
    assert torch.equal(found.double(), torch.autograd.grad(expected.sum(), x)[0].double())
    kernel = "_last_kernel" if form is LAST else "_rows_kernel"
    assert sum(event.count for event in record.key_averages() if event.key == kernel) == 2


@pytest.mark.filterwarnings("ignore:`torch.jit.trace.*` is deprecated")
@pytest.mark.parametrize("interleaved", [False, True])
def test_a_trace_holds_an_operator_of_torch_for_any_size(interleaved):
    shift = shift_of(20, interleaved=interleaved, stride=2)
    traced = torch.jit.trace(shift, torch.randn(1, 20, 6, 6))
    assert "convsmith::" not in str(traced.graph)
    x = torch.randn(2, 20, 9, 7)
    assert torch.equal(traced(x), shift(x))
