import contextlib
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torchvision.ops import DeformConv2d

from convsmith import deploy
from convsmith.deploy import backends, clock, onnx
from convsmith.deploy.agreement import eager_run
from convsmith.deploy.backends.openvino import onnx_bytes, read_model, settings
from convsmith.deploy.backends.registry import _BACKENDS, Backend, register
from convsmith.deploy.comparison import compare
from convsmith.deploy.passes import lean as lean_module
from convsmith.deploy.rounds import Timing


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))


class Deformed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.offset = DeformConv2d(3, 4, 3), nn.Conv2d(3, 18, 3)

    def forward(self, x):
        return self.conv(x, self.offset(x))


IMAGES = torch.randn(2, 3, 4, 4)


@pytest.fixture
def add_backend(monkeypatch):
    """Registers a back end for one test."""

    def add(name, prepare, requires=()):
        monkeypatch.setitem(_BACKENDS, name, Backend(name, prepare, requires, "extra_of_it"))

    return add


def test_eager_computes_with_a_copy_in_eval_mode_and_without_gradients():
    module = network()
    with torch.no_grad():
        expected = module.eval()(IMAGES)
    module.train()
    prepared = deploy.prepare(module, IMAGES, backend="eager")
    with torch.no_grad():
        module[0].weight.zero_()
    output = prepared(IMAGES)
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    assert not output.requires_grad
    assert module.training
    assert module[1].num_batches_tracked == 0
    assert (prepared.backend, prepared.threads) == ("eager", torch.get_num_threads())
    assert prepared(IMAGES[:1]).shape == (1, 5)


@pytest.mark.parametrize("backend", backends.installed(thorough=True))
def test_an_autocast_around_it_is_not_what_a_network_is_prepared_in(backend):
    module = network().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prepared = deploy.prepare(module, IMAGES, backend=backend)
        compared = deploy.compare(module, IMAGES, backend=backend).candidates.values()
    assert [candidate.rejected for candidate in compared if candidate.rejected] == []
    assert prepared.difference < 1e-5
    torch.testing.assert_close(prepared(IMAGES), module(IMAGES).detach(), rtol=1e-5, atol=1e-6)


def test_onnxruntime_agrees_with_eager_at_other_batch_sizes():
    pytest.importorskip("onnxruntime")
    module = network().eval()
    prepared = deploy.prepare(module, IMAGES, backend="onnxruntime", threads=1)
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 4, 4)
        with torch.no_grad():
            torch.testing.assert_close(prepared(x), module(x), rtol=1e-4, atol=1e-5)


class Island(nn.Module):
    """Group norm and gelu in float64, inside a float32 network."""

    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(2, 8).double()

    def forward(self, x):
        return nn.functional.gelu(self.norm(x.double())).float()


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("onnxruntime", r"ONNX Runtime has no \w+ in float64, which 1\.norm needs; compute there in float32"),
        ("openvino", r"in one type, and GroupNorm 1\.norm has float64 in a network of float32; try onnxruntime"),
    ],
)
def test_a_part_of_another_type_is_named(backend, message):
    pytest.importorskip(backend)
    with pytest.raises(ValueError, match=message):
        deploy.prepare(nn.Sequential(nn.Conv2d(3, 8, 3), Island()), IMAGES, backend=backend)


class Resized(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return nn.functional.interpolate(x, scale_factor=self.factor, mode="bilinear", antialias=True)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
            r"cannot take Pad of 0 \(Unsupported padding mode: \[w",
        ),
        (Deformed(), r"has no DeformConv, which 0.* needs; try onnxruntime"),
        (Resized(0.5), "has no antialiased Resize, which 0 needs; try onnxruntime"),
    ],
)
def test_openvino_names_the_operator_that_it_cannot_take(part, message):
    pytest.importorskip("openvino")
    with pytest.raises(ValueError, match=f"OpenVINO {message}"):
        deploy.prepare(nn.Sequential(part, nn.ReLU()), IMAGES, backend="openvino")


def test_openvino_enlarges_where_antialiasing_changes_nothing():
    pytest.importorskip("openvino")
    assert deploy.prepare(nn.Sequential(Resized(2.0)), IMAGES, backend="openvino", threads=1).difference <= 1e-5


def test_an_openvino_that_takes_no_weights_from_outside_gets_them_in_the_model():
    openvino = pytest.importorskip("openvino")

    class Core:
        def __init__(self):
            self.sizes = []

        def read_model(self, data):
            self.sizes.append(len(data))
            if len(self.sizes) == 1:
                raise RuntimeError("no such file")
            return openvino.Core().read_model(data)

    module, core, weights = nn.Conv2d(3, 256, 3).eval(), Core(), onnx.Apart(onnx.MEMORY)
    data = onnx_bytes(module, IMAGES, weights=weights)
    model = read_model(core, data, weights)
    assert core.sizes[0] < 2000 < 4 * module.weight.numel() < core.sizes[1]
    found = openvino.compile_model(model, "CPU", settings(1, "float32"))(IMAGES.numpy())[0]
    torch.testing.assert_close(torch.from_numpy(found), eager_run(module)(IMAGES), rtol=1e-4, atol=1e-5)


class Looping(nn.Module):
    """The network of the other tests, for one image after the other."""

    def __init__(self):
        super().__init__()
        self.each = network()

    def forward(self, x):
        return torch.cat([self.each(x[i : i + 1]) for i in range(x.shape[0])])


def test_auto_goes_on_where_forward_loops_over_the_batch(capfd):
    pytest.importorskip("onnxruntime")
    prepared = deploy.prepare(Looping(), IMAGES, backend="auto", threads=1)
    assert prepared.backend == "eager"
    assert "forward takes image 1 of the batch, which not every batch has" in prepared.rejected["onnxruntime"]
    assert prepared(torch.randn(3, 3, 4, 4)).shape == (3, 5)
    assert capfd.readouterr() == ("", "")


class Clips(nn.Module):
    """Images that belong together, four to a clip."""

    def forward(self, x):
        return x.view(-1, 4, *x.shape[1:]).mean(1)


class Pairs(nn.Module):
    def forward(self, x):
        a, b = x.chunk(2)
        return a - b


ANY_SIZE = r"must take any batch size, and fails at 1 \(.+\); give a single image as \(1, C, H, W\), and images that"


@pytest.mark.parametrize(
    ("module", "example"),
    [(Clips(), torch.randn(8, 3, 4, 4)), (Pairs(), IMAGES), (nn.Conv2d(3, 4, 1), IMAGES[0])],
    ids=["clips", "pairs", "a single image"],
)
def test_a_network_that_does_not_take_every_batch_size_is_told_so(module, example, tmp_path):
    pytest.importorskip("onnxruntime")
    for refused in (
        lambda: deploy.prepare(module, example, threads=1),
        lambda: deploy.export(module, tmp_path / "a.onnx", example),
        lambda: deploy.quantize(module, [example], threads=1),
        lambda: deploy.ship(module, tmp_path / "a", example, threads=1),
    ):
        with pytest.raises(ValueError, match=ANY_SIZE):
            refused()
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(deploy.prepare(module, example, backend="eager")(example), module(example))


def test_auto_says_which_back_ends_lack_a_precision():
    pytest.importorskip("onnxruntime")
    prepared = deploy.prepare(network(), IMAGES, precision="bfloat16", threads=1)
    assert "computes in float32 or float16, and bfloat16 is asked for" in prepared.rejected["onnxruntime"]
    assert prepared.backend not in prepared.rejected


def test_what_is_close_to_the_fastest_is_measured_again_by_itself(add_backend, monkeypatch):
    turns = []

    def told(calls, *, watch, **options):
        watch()
        watch()
        turns.append([name.partition("/")[0] for name in calls])
        medians = {"eager": 5.0, "a": 1.0, "b": 1.1} if len(turns) == 1 else {"a": 1.2, "b": 1.1}
        return {name: Timing(ms, 0.0, (ms,), 1) for name in calls for ms in [medians[name.partition("/")[0]]]}

    monkeypatch.setattr(clock, "measure", told)
    monkeypatch.setattr(backends, "installed", lambda thorough: ["eager", "a", "b"])
    for name in ("a", "b"):
        add_backend(name, lambda network, example, threads, precision: eager_run(network))
    prepared = deploy.prepare(network(), IMAGES, threads=1)
    assert turns == [["eager", "a", "b"], ["a", "b"]]
    assert (prepared.backend, prepared.timings) == ("b", {"eager": 5.0, "a": 1.2, "b": 1.1})


def test_auto_measures_on_held_cores(monkeypatch):
    held = []
    module = sys.modules["convsmith.deploy.comparison"]
    monkeypatch.setattr(module, "pinned", lambda count: held.append(count) or contextlib.nullcontext())
    deploy.prepare(network(), IMAGES, threads=1)
    assert set(held) == {1}


@pytest.mark.parametrize("backend", ["eager", "onnxruntime"])
def test_a_network_that_changes_its_input_in_place_is_compared_on_equal_inputs(backend):
    pytest.importorskip("onnxruntime")

    class Scaled(nn.Module):
        def forward(self, x):
            return x.sub_(0.5).mul_(2)

    module, example = nn.Sequential(Scaled(), nn.Conv2d(3, 4, 3)), IMAGES.clone()
    prepared = deploy.prepare(module, example, backend=backend, threads=1)
    assert torch.equal(example, IMAGES)
    with torch.no_grad():
        expected = module[1](2 * (IMAGES - 0.5))
    torch.testing.assert_close(prepared(IMAGES.clone()), expected, rtol=1e-4, atol=1e-5)


def test_timing_a_network_that_changes_its_input_leaves_what_others_are_compared_on(add_backend):
    class Scaled(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    found = compare(Scaled(), IMAGES, backend="eager", threads=1)
    assert torch.equal(found.example, IMAGES)
    assert all(torch.equal(y, 2 * x) for x, y in found.reference.pairs)
    add_backend("doubling", lambda network, example, threads, precision: lambda x: 2 * x)
    assert found.add("doubling", "float32").difference == 0


def test_a_network_of_several_inputs_is_told_what_it_takes():
    class Two(nn.Module):
        def forward(self, a, b, *rest, scale=1.0):
            return a + scale * b

    with pytest.raises(ValueError, match="must take one tensor, and Two takes a, b; wrap it in a module that makes"):
        deploy.prepare(Two(), IMAGES, backend="eager")


def test_a_network_that_draws_numbers_is_told_so(add_backend, tmp_path):
    class Drawing(nn.Module):
        def forward(self, x):
            return x + torch.rand(1)

    add_backend("same", lambda network, example, threads, precision: eager_run(network))
    message = "must give the same output for the same input, and two passes of eager differ by .*; take out what draws"
    with pytest.raises(ValueError, match=message):
        deploy.prepare(Drawing(), IMAGES, backend="same")
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match=message):
        deploy.export(Drawing(), tmp_path / "a.onnx", IMAGES)
    assert list(tmp_path.iterdir()) == []


class Counting(nn.Module):
    """A network that counts its calls, in a buffer or beside them."""

    def __init__(self, kept_in):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.kept_in, self.number = kept_in, 0

    def forward(self, x):
        if self.kept_in == "a buffer in place":
            self.calls.add_(1)
        elif self.kept_in == "a new buffer":
            self.calls = self.calls + 1.0
        self.number += self.kept_in == "an attribute"
        return x * (self.calls + self.number)


@pytest.mark.parametrize(
    ("kept_in", "message"),
    [
        ("a buffer in place", r"take out what changes the buffer 0\.calls in eval mode"),
        ("a new buffer", r"take out what changes the buffer 0\.calls in eval mode"),
        ("an attribute", "take out what draws random numbers or keeps something from call to call in eval mode"),
    ],
)
def test_a_network_that_keeps_something_from_call_to_call_is_told_so(add_backend, kept_in, message):
    add_backend("still", lambda network, example, threads, precision: torch.clone)
    with pytest.raises(ValueError, match=rf"two passes of eager differ by 1 of the largest output; {message}"):
        deploy.prepare(nn.Sequential(Counting(kept_in)), IMAGES, backend="still")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("x", [IMAGES.int(), IMAGES.double(), IMAGES[..., 1:]], ids=["integers", "float64", "size"])
def test_inputs_of_another_type_or_size_are_refused(backend, x):
    pytest.importorskip(backend)
    prepared = deploy.prepare(network(), IMAGES, backend=backend, threads=1)
    with pytest.raises(ValueError, match=r"prepared for torch.float32 of shape \(N, 3, 4, 4\)"):
        prepared(x)


def test_threads_hold_during_the_call_and_are_restored():
    class Threads(nn.Module):
        def forward(self, x):
            return x + torch.get_num_threads()

    before = torch.get_num_threads()
    assert (
        deploy.prepare(Threads(), torch.zeros(1, 1), backend="eager", threads=before + 1)(torch.zeros(1, 1))
        == before + 1
    )
    assert torch.get_num_threads() == before


def test_precision_is_that_of_the_computation_and_the_output_keeps_the_inputs_type():
    class Rounding(nn.Module):
        def forward(self, x):
            return (1 + x) - 1

    x = torch.full((1, 1), 1e-5, dtype=torch.float64)
    for precision, expected in (("float64", 1e-5), ("float32", 1.0014e-5), ("bfloat16", 0.0), (None, 1e-5)):
        module = nn.Sequential(Rounding(), nn.Linear(1, 1).double())
        nn.init.ones_(module[1].weight)
        nn.init.ones_(module[1].bias)
        output = deploy.prepare(module, x, backend="eager", precision=precision)(x)
        assert output.dtype == torch.float64
        assert output.item() - 1 == pytest.approx(expected, rel=2e-2, abs=1e-9)


def test_a_backend_that_differs_from_eager_is_refused(add_backend):
    add_backend("rounding", lambda network, example, threads, precision: lambda x: network(x) * 1.001)
    with pytest.raises(ValueError, match=r"the back end rounding in float32 may differ from eager by 0\.0001"):
        deploy.prepare(network(), IMAGES, backend="rounding")


def test_auto_picks_the_fastest_of_those_that_agree(add_backend, monkeypatch):
    def fails(network, example, threads, precision):
        raise ValueError("this one cannot")

    def slow(network, example, threads, precision):
        return lambda x: (slow_calls.append(x), network(x))[1]

    def told(calls, *, watch, **options):  # as a clock would find them: whose calls get to the slow one takes longer
        watch()
        watch()
        found = {}
        for name, call in calls.items():
            before = len(slow_calls)
            call()
            found[name] = Timing(ms := 1.0 + 19.0 * (len(slow_calls) > before), 0.0, (ms,), 1)
        return found

    slow_calls = []
    monkeypatch.setattr(clock, "measure", told)
    for name in set(_BACKENDS) - {"eager"}:
        monkeypatch.delitem(_BACKENDS, name)
    add_backend("slow", slow)
    add_backend("wrong", lambda network, example, threads, precision: lambda x: 2 * network(x))
    add_backend("failing", fails)
    add_backend("missing", fails, requires=("no_such_package",))
    prepared = deploy.prepare(network(), IMAGES, backend="auto")
    assert prepared.backend == "eager"
    assert set(prepared.rejected) == {"wrong", "failing"}
    monkeypatch.delitem(_BACKENDS, "eager")
    assert deploy.prepare(network(), IMAGES).backend == "slow"
    monkeypatch.delitem(_BACKENDS, "slow")
    with pytest.raises(ValueError, match=r"no back end can run Sequential: .*this one cannot"):
        deploy.prepare(network(), IMAGES)


def test_a_backend_whose_package_is_missing_names_the_extra(add_backend):
    add_backend("missing", lambda network, example, threads, precision: network, requires=("no_such_package",))
    assert "missing" in deploy.backends.names()
    assert "missing" not in deploy.backends.installed()
    with pytest.raises(ImportError, match=r"pip install 'convsmith\[extra_of_it\]'"):
        deploy.prepare(network(), IMAGES, backend="missing")


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="the back end's name 'eager' is taken"):
        register(Backend("eager", lambda network, example, threads, precision: network))


def test_a_single_precision_may_be_given_as_a_word():
    found = compare(nn.Linear(4, 2), IMAGES, backend="eager", precisions="float32", threads=1)
    assert list(found.candidates) == [("eager", "float32")]


class TwoOutputs(nn.Module):
    def forward(self, x):
        return {"out": x}


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (network(), {"backend": "onnxruntme"}, "unknown back end 'onnxruntme'; did you mean 'onnxruntime'?"),
        (network(), {"backend": "xyz"}, "unknown back end 'xyz'; there are compile, eager, "),
        (network(), {"precision": "int4"}, "unknown precision 'int4'; the precisions are float64, float32"),
        (network(), {"precision": "int8"}, r"int8 is calibrated with some; quantise by cs\.deploy\.quantize, or"),
        ("resnet18", {}, r"a network must be a torch\.nn\.Module, got 'resnet18'; build it by cs\.create_model"),
        (network(), {"backend": "eager", "threads": 0}, "threads must be a positive integer"),
        (network(), {"threads": 10**6}, "threads must be at most .*, got 1000000; give"),
        (nn.Linear(3, 3), {"backend": "eager"}, "the network must take"),
        (TwoOutputs(), {"backend": "eager"}, "must return one tensor, and TwoOutputs returns a dict"),
    ],
)
def test_wrong_arguments_are_refused(module, options, message):
    with pytest.raises(ValueError, match=message):
        deploy.prepare(module, IMAGES, **options)


def test_a_network_that_counts_its_calls_is_prepared_as_it_is():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls.add_(1)
            return x * self.calls

    module, x = Counting(), torch.ones(2, 3)
    assert deploy.prepare(module, x, backend="eager")(x).max() == 1
    assert module.calls == 0


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_wrong_rewriting_is_found_by_what_comes_of_it(backend, fails, monkeypatch):
    """It is not compared with eager by itself at first."""

    def wrong(draft):
        layer = getattr(draft.network, "0")
        layer.weight = nn.Parameter(layer.weight[:, :2] if fails else layer.weight + 1)
        draft.commit()

    monkeypatch.setattr(lean_module, "CHANGES", (wrong, *lean_module.CHANGES))
    module = network().eval()
    run = deploy.prepare(module, IMAGES, backend=backend, threads=1)
    assert run.difference <= 1e-5
    torch.testing.assert_close(run(IMAGES), eager_run(module)(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("misread", [lambda y: (y, y), lambda y: y.bfloat16() * 2, lambda y: y[1000]])
def test_a_forward_that_is_misread_costs_only_the_rewriting(backend, misread):
    """What comes of it returns something else, has what the back end lacks, or fails."""

    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

        def forward(self, x):
            y = self.norm(self.conv(x))
            return y if isinstance(x, torch.Tensor) else misread(y)

    module = Asking().eval()
    run = deploy.prepare(module, IMAGES, backend=backend, threads=1)
    torch.testing.assert_close(run(IMAGES), eager_run(module)(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_back_end_that_converts_weights_leaves_those_that_others_get(dtype):
    pytest.importorskip("openvino")
    found = compare(
        network().to(dtype),
        IMAGES.to(dtype),
        backend="openvino",
        precisions=("float16", "bfloat16", "float32"),
        threads=1,
    )
    assert {own.dtype for own in found.network.parameters()} == {dtype}
    assert found.candidates["openvino", "float32"].median_ms is not None
    assert found.reference.difference(found.eager) == 0


class Head(nn.Module):
    """A network whose output is its bias, but for so much of the input."""

    def __init__(self, share):
        super().__init__()
        self.share, self.conv, self.bias = share, nn.Conv2d(3, 4, 3), nn.Parameter(torch.ones(4))

    def forward(self, x):
        y = self.conv(x).mean((2, 3))
        return self.bias + self.share * y / y.abs().max()


@pytest.mark.parametrize(("share", "told"), [(0.0, True), (5e-5, True), (0.1, False)])
def test_an_agreement_that_shows_nothing_is_told(add_backend, share, told):
    module = Head(share)

    def prepare(given, example, threads, precision):
        given.share = 0.0 if told else share  # it ignores its input
        return eager_run(given)

    add_backend("blind", prepare)
    with pytest.warns(UserWarning, match=r"shows nothing") if told else contextlib.nullcontext():
        assert deploy.prepare(module, IMAGES, backend="blind").difference <= 1e-4
    deploy.prepare(module, IMAGES, backend="eager")  # has nothing to show


def pruned(layer):
    return prune.l1_unstructured(layer, "weight", 0.5)


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
@pytest.mark.parametrize("hooked", [pruned, nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "openvino"])
def test_weights_that_a_hook_computes_are_prepared_as_they_are(backend, hooked):
    module = network()
    hooked(module[0])
    module.train()(IMAGES)  # since when the weight is no leaf
    weight = module[0].weight
    assert not weight.is_leaf
    run = deploy.prepare(module, IMAGES, backend=backend, threads=1)
    assert module[0].weight is weight
    with torch.no_grad():
        expected = module.eval()(IMAGES)
    torch.testing.assert_close(run(IMAGES), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["eager", "onnxruntime"])
def test_the_wrong_rank_for_a_norm_is_told_as_a_rule(backend):
    with pytest.raises(ValueError, match=r"the network must take .* and fails .*give an example of the shape"):
        deploy.prepare(nn.Sequential(nn.BatchNorm2d(3)), torch.randn(2, 3), backend=backend)


def test_what_a_network_itself_says_of_its_input_passes():
    class Strict(nn.Module):
        def forward(self, x):
            raise ValueError("images are square, got 4 x 5; crop them")

    with pytest.raises(ValueError, match=r"^images are square"):
        deploy.prepare(Strict(), IMAGES, backend="eager")


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", [name for name in ("compile", "executorch") if name in backends.installed(thorough=True)]
)
def test_what_forward_skips_while_it_is_exported_is_no_branch(backend):
    class Checked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            if not torch.compiler.is_compiling():
                assert x.isfinite().all()
            return self.conv(x)

    assert deploy.prepare(Checked(), IMAGES, backend=backend, threads=1).difference <= 1e-4
