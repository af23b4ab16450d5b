import contextlib
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import convsmith as cs
from convsmith import deploy
from convsmith.deploy.agreement import Reference, eager_run
from convsmith.deploy.onnx import GIVEN, Apart, convert, held, load
from convsmith.deploy.onnx.batch import Batch, BatchBranchError
from convsmith.deploy.onnx.forms.table import FORMS
from convsmith.deploy.onnx.quick import quick
from convsmith.deploy.onnx.record import record
from convsmith.deploy.onnx.refusals import BranchError, NotQuickError, Refusals
from convsmith.deploy.onnx.shapes import shaped
from convsmith.nn.shuffle import shuffle_channels

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
aten = torch.ops.aten


class Does(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.rand(8, 1, 1) + 0.5)

    def forward(self, x):
        return self.function(x, self.weight) if self.function.__code__.co_argcount == 2 else self.function(x)


def images(side=(9, 7)):
    return torch.randn(2, 8, *side)


def norms_set(module):
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module.eval()


def masked(x):
    """Attention in windows begins its mask like this."""
    mask = x.new_zeros((9, 7))
    for i, rows in enumerate((slice(0, -3), slice(-3, None))):
        mask[rows, 2 * i : 5] = i + 1
    return x.masked_fill(x > 9, 0) + mask.masked_fill(mask != 0, -100.0)


def made_for_each_image(x):
    shape = x.shape[0], 1, 9, 7
    return torch.cat((x, torch.zeros(shape), torch.ones(shape), torch.full(shape, 0.5)), 1)


def made_in_the_type_of_a_map(x):
    shape = x.shape[0], 1, 9, 7
    return torch.cat((x, x.new_zeros(shape), x.new_ones(shape), x.new_full(shape, 0.5)), 1)


def parts_that_every_batch_has(x):
    both = torch.stack((x, 2 * x), 1).flatten(0, 1)
    return both[1::2] - both[::2] + x[0] + x[-1]


CASES = {
    "convolution": nn.Conv2d(8, 6, 3, stride=2, padding=1, dilation=2, groups=2),
    "transposed convolution": nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    "batch norm": nn.BatchNorm2d(8),
    "batch norm without weights": nn.BatchNorm2d(8, affine=False),
    "group norm": nn.GroupNorm(4, 8),
    "layer norm": nn.LayerNorm((9, 7)),
    "layer norm over channels": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2),
    "linear": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    "linear over positions": nn.Sequential(nn.Flatten(2), nn.Linear(63, 5)),
    "linear without bias": nn.Sequential(nn.Flatten(), nn.Linear(504, 5, bias=False)),
    "attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1, attn_mask=torch.eye(9)),
    "products": lambda x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)) + (x @ x.mT).mean((2, 3))[..., None],
    "a product and a sum": lambda x: torch.baddbmm(x.flatten(2)[..., :8], x.flatten(2), x.flatten(2).mT),
    "activations": nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.SiLU()),
    "hard activations": nn.Sequential(nn.Mish(), nn.Hardswish(), nn.Hardsigmoid()),
    "gelu": nn.Sequential(nn.GELU(), nn.GELU("tanh")),
    "elu and others": nn.Sequential(nn.ELU(0.7), nn.SELU(), nn.LeakyReLU(0.2), nn.PReLU(8), nn.Softplus(), nn.ReLU6()),
    "softmax": lambda x: x.softmax(1) + x.log_softmax(-1),
    "clamping": lambda x: x.clamp(min=-0.5) + x.clamp(max=0.5) + x.clamp(-0.1, 0.2) + F.hardtanh(x, -2, 2),
    "max pooling": nn.MaxPool2d(3, 2, 1),
    "max pooling, rounded up": nn.MaxPool2d(2, 2, ceil_mode=True),
    "max pooling, rounded up and padded": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "average pooling": nn.AvgPool2d(3, 2, 1),
    "average pooling without padding": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average pooling, rounded up": nn.AvgPool2d(2, 2, ceil_mode=True),
    "average pooling, rounded up, of values only": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "pooling into equal parts": nn.AdaptiveAvgPool2d((3, 7)),
    "pooling of a channels-last map": lambda x: F.adaptive_avg_pool2d(x.to(memory_format=torch.channels_last), 1) * x,
    "pooling in three dimensions": lambda x: F.max_pool3d(F.avg_pool3d(x[:, None], (2, 1, 1)), (1, 2, 2))[:, 0],
    "reductions": lambda x: x.sum(1, keepdim=True) + x.mean((2, 3), keepdim=True) + x.amax(1, True) * x.amin((1, 2), True),  # noqa: E501
    "reductions of weights and images": lambda x, w: x * (x * 0 + w).mean() / w.sum() + x.sum() * 0,
    "functions": lambda x: (-x).exp() + x.sin() * x.cos() + x.floor() - x.ceil() + x.erf() + (x.abs() + 1).log(),
    "powers": lambda x: (x.abs() + 0.1) ** x.sigmoid() + 1 / (x.abs() + 0.1),
    "mean of everything in an image": lambda x: x.mean((1, 2, 3)),
    "a norm": lambda x: x / x.norm(p=2, dim=(2, 3), keepdim=True) + x.norm(p=1, dim=1, keepdim=True),
    "arithmetic": lambda x, w: (1 - x) * 2 + x / 3 - w * x**2 + x.add(x, alpha=0.5) + (x + 3).abs().sqrt().rsqrt(),
    "multiplied and added": lambda x, w: torch.addcmul(w, x, x, value=0.5) + torch.maximum(x, w) - torch.minimum(x, w),
    "in place": lambda x: F.relu(x.mul(2).add_(1), inplace=True).sub_(3),
    "computed from weights": lambda x, w: F.conv2d(x, (w - w.mean())[..., None] / w.std(), groups=8),
    "views": lambda x: x.view(x.size(0), 2, 4, 63).transpose(1, 2).reshape(x.shape[0], -1).unsqueeze(1).squeeze(1),
    "batch and channels in one": lambda x: F.max_pool2d(x.reshape(x.shape[0] * 8, 1, 9, 7), 2).view(x.size(0), 8, 4, 3),
    "the batch inside": lambda x: (x.flatten(1).t() * 2).t(),
    "joining": lambda x: torch.stack((torch.cat((x, x[:, 2:5]), 1), torch.cat((x, x[:, ::3]), 1)), 2).flatten(2),
    "splitting": lambda x: sum(x.chunk(4, 1)) + torch.split(x, (2, 6), 1)[0] + x.unbind(2)[3][:, :2, None] + x[:, 1:2],
    "selecting": lambda x: x[:, -1] + x[..., 2:, :].select(1, 3)[:, :1] + x[:, [0, 3, 3]].sum(1),
    "selecting by a tensor": lambda x: x.index_select(1, torch.tensor([0, 3]))[..., :1, :1].squeeze((2, 3)),
    "expanding": lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 9, 7) * x,
    "padding": lambda x: F.pad(F.pad(x, (1, 2, 0, 3), value=0.5), (-1, 1, -2, -1)),
    "padding with values": lambda x: F.pad(F.pad(x, (1, 2, 0, 3), mode="reflect"), (2, 1, 3, 0), mode="replicate"),
    "repeating": lambda x, w: torch.cat((x.repeat(1, 2, 1, 3)[..., :7], w.repeat(x.shape[0], 2, 9, 7)[:, :8]), 1),
    "shuffling": lambda x: F.pixel_shuffle(F.channel_shuffle(x, 4), 2),
    "our shuffling": lambda x: shuffle_channels(x, 4) + 1,
    "rolling": lambda x: x.roll((2, -3), (2, 3)),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest by a fraction": lambda x: F.interpolate(x, size=(6, 14)),
    "bilinear": lambda x: F.interpolate(x, size=(13, 20), mode="bilinear"),
    "bilinear, corners aligned": lambda x: F.interpolate(x, size=(13, 20), mode="bilinear", align_corners=True),
    "a token for each image": lambda x, w: torch.cat((w.view(1, 1, 8).expand(x.shape[0], -1, -1), x.flatten(2).mT), 1),
    "two of a weight for each image": lambda x, w: w.expand(2 * x.shape[0], 8, 9, 7).reshape(-1, 2, 8, 9, 7)[:, 1] + x,
    "made for each image": made_for_each_image,
    "made in the type of a map": made_in_the_type_of_a_map,
    "made like a map": lambda x: x - torch.ones_like(x) + torch.full_like(x, 0.5) * torch.zeros_like(x),
    "made like what is alike for all": lambda x: x + torch.ones_like(x.new_zeros(9, 7)),
    "parts that every batch has": parts_that_every_batch_has,
    "a mask": masked,
    "positions": lambda x: x + (~torch.zeros(x.shape[0], 1, 9, 7, dtype=torch.bool)).cumsum(2, dtype=torch.float32),
    "sums so far": lambda x: x.cumsum(-1),
    "comparisons": lambda x, w: sum(a.float() for a in (x > 0, x >= w, x < 1, x <= w, x.round() == 0, x.ceil() != 1)),
    "comparisons of several types": lambda x: (x.round().to(torch.int32) > 0.5).float() * (x.round().int() < x).float(),
    "comparisons of truth values": lambda x: x * ((x > 0) == (x < 1)) + ((x > 0) != 2) + ((x > 0) >= 1),
    "truth values and fractions": lambda x: x * ((x > 0) > 0.5),
    "comparisons in place": lambda x: x * x.clone().gt_(0.1) + x.clone().eq_(x.round()),
    "a stack of several types": lambda x: torch.stack([x, (x * 4).int()], 1).sum(1),
    "comparisons of maps": lambda x, w: sum(a.float() for a in (x == x.round(), x != w, x >= 0, x <= 1)),
    "a choice": lambda x, w: torch.where(x > w, x, 2 * w) + x.masked_fill(x < 0, 0.5) + x.masked_fill(x < 1, w.sum()),
    "at least": lambda x: F.normalize(x, dim=1) + F.normalize(x, dim=-1) * x.clamp_min(0.2),
    "bits": lambda x: (~x.round().to(torch.int32)).float(),
    "unchanged": lambda x: torch.ops.aten.alias(x.clone().detach()) + (x * 1).copy_(x),
    "the input itself": nn.Identity(),
    "another type": lambda x: x.double().mul(2).float(),
}  # fmt: skip


def made(case):
    return norms_set(case if isinstance(case, nn.Module) else Does(case))


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_each_operator_says_in_onnx_what_it_does_in_torch(case):
    module, x = made(case), images()
    model = quick(module, x, {})
    onnx.checker.check_model(onnx.load_model_from_string(model), full_check=True)
    run = deploy.onnx.load(model, threads=1)
    assert Reference(eager_run(module), x, (1, 3, 5)).difference(run) <= 5e-6


def test_every_form_is_compared_with_torch():
    used = set()
    for case in CASES.values():
        used |= {f"{call.name}.{call.overload}" for call in record(made(case), images()).calls}
    # What torch makes of norms and of attention in other versions and on other processors.
    spare = {"_native_batch_norm_legit_no_training.default", "mul.Scalar", "_safe_softmax.default"}
    assert set(FORMS) - used - spare == set()


LARGER = [pytest.param(name, marks=pytest.mark.slow) for name in ("googlenet", "densenet121", "darts_v2_cifar")]


@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_v2_x1_0", "shiftnet_c", *LARGER])
def test_our_networks_go_the_quick_way(name):
    architecture = cs.zoo.for_small_inputs(cs.zoo.get(name, num_classes=10), 32)
    network, x = norms_set(cs.create_model(architecture)), torch.randn(2, 3, 32, 32)
    run = deploy.onnx.load(quick(network, x, {}), threads=1)
    assert Reference(eager_run(network), x).difference(run) <= 1e-5


def kinds(model):
    return {node.op_type for node in onnx.load_model_from_string(model).graph.node}


def test_a_mean_over_positions_is_a_global_pooling_and_no_pooling_rounds_up():
    assert kinds(quick(made(lambda x: x.mean((2, 3))), images(), {})) == {"GlobalAveragePool", "Flatten"}
    for case in CASES.values():
        nodes = onnx.load_model_from_string(quick(made(case), images(), {})).graph.node
        assert not any(attribute.name == "ceil_mode" for node in nodes for attribute in node.attribute)


def test_weights_keep_their_names_and_what_no_output_needs_is_left_out():
    def forward(x, w):
        x.exp()
        return x * w

    graph = onnx.load_model_from_string(quick(made(forward), images(), {})).graph
    assert [weight.name for weight in graph.initializer] == ["weight"]
    assert [node.op_type for node in graph.node] == ["Mul"]
    assert [size.dim_param or size.dim_value for size in graph.output[0].type.tensor_type.shape.dim] == [
        "batch",
        8,
        9,
        7,
    ]


class Inner(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.branch = Does(function)

    def forward(self, x):
        return self.branch(x.relu())


def by_loop(x):
    for value in x.mean((1, 2, 3)).tolist():
        x = x * value
    return x


BRANCHES = {
    "if": lambda x: 2 * x if x.mean() > 0 else x,
    "loop": by_loop,
    "item": lambda x: x * x.mean().item(),
    "while": lambda x: x if bool((x > 3).any()) else -x,
    "selection": lambda x: x[x > 0].sum() * x,
    "batch": lambda x: 2 * x if x.shape[0] > 3 else x,
    "one image": lambda x: x.squeeze(0).unsqueeze(0) if x.size(0) == 1 else 2 * x,
    "length": lambda x: x.view(len(x), -1),
    "of a repeated weight": lambda x: x if (torch.ones(8, 1, 1).expand(x.shape[0], 8, 9, 7) * x).sum() > 0 else -x,
    "loop over places": lambda x: torch.stack([x[i].relu() for i in range(x.shape[0])]),
    "loop over images": lambda x: torch.stack([image.relu() for image in x]),
    "loop over pieces": lambda x: torch.cat([piece.relu() for piece in x.split(1)]),
    "loop over parts": lambda x: torch.cat([x[i : i + 1].relu() for i in range(x.shape[0])]),
    "the second image": lambda x: x + x[1],
    "count of values": lambda x: 2 * x if x.numel() > 5000 else x,
}


@pytest.mark.parametrize("branch", BRANCHES.values(), ids=list(BRANCHES))
def test_branches_are_refused_and_the_module_named(branch):
    module = Inner(branch).eval()
    with pytest.raises(BranchError, match=r"in module 'branch' \(Does\)"):
        record(module, images())
    for example in (images(), images()[:1]):
        with pytest.raises(
            ValueError, match=r"forward must not branch on values or on the batch size.*module 'branch'"
        ):
            deploy.onnx.convert(module, example, {})
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize("branch", BRANCHES.values(), ids=list(BRANCHES))
def test_branches_are_refused_where_forward_catches_the_error(branch):
    def caught(x):
        with contextlib.suppress(Exception):
            return branch(x)
        return x

    with pytest.raises(BranchError, match=r"in module 'branch' \(Does\)"):
        record(Inner(caught).eval(), images())


def into_a_view(x):
    y = x * 1
    y[:, 1:3] = 0.5
    y.view(y.shape[0], -1)[:, :3].mul_(3)
    return y


def changed_later(x):
    w = x.new_zeros(8, 1, 1)
    y = x + w
    w[1:] = 3
    return y * w


def changed_per_image(x):
    y = torch.zeros(x.shape[0], 2, 9, 7)
    y[:, 1] = 3
    return torch.cat((x, y), 1)


ELSEWHERE = {
    "changed by way of a view": into_a_view,
    "arithmetic on the batch": lambda x: x * (x.shape[0] + 1),
    "the batch as a factor": lambda x: x * x.shape[0],
    "the number of all values": lambda x: x / x.numel(),
    "products of truth values": lambda x: ((x > 0) * (x < 1)).float() + torch.maximum(x > 0, x < 1),
    "the largest truth value": lambda x: (x > 0).amax(1).float(),
    "an order of truth values": lambda x: ((x > 0) >= (x > 0.1)).float(),
    "bounds beside integers": lambda x: (x * 4).long().clamp_min(0.5).float(),
    "a function of integers": lambda x: (x > 0).cumsum(1).sin(),
    "the batch size as a value": lambda x: x * torch.tensor(x.shape[0]),
    "an operator without a form": lambda x: x.logcumsumexp(1).float(),
    "a constant that is changed once it was read": changed_later,
    "the batch once for each image": lambda x: x.repeat(x.shape[0], 1, 1, 1).mean(0, keepdim=True) + x,
    "zeros for each image, some of them changed": changed_per_image,
}


@pytest.mark.parametrize("function", ELSEWHERE.values(), ids=list(ELSEWHERE))
def test_what_is_not_followed_is_left_to_torch_and_right(function):
    module, x = made(function), images()
    with pytest.raises(NotQuickError):
        quick(module, x, {})
    run = deploy.onnx.load(deploy.onnx.convert(module, x, {}), threads=1)
    assert Reference(eager_run(module), x, (1, 3)).difference(run) <= 1e-6


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (aten.convolution.default, (torch.randn(6, 4, 3, 5), torch.randn(6), [2, 1], [1, 2], [1, 2], False, [0, 0], 2)),
        (aten.convolution.default, (torch.randn(8, 3, 3, 3), None, [2, 2], [1, 1], [1, 1], True, [1, 0], 2)),
        (aten.native_batch_norm.default, (*torch.rand(4, 8), False, 0.1, 1e-5)),
        (aten.native_batch_norm.default, (None, None, *torch.rand(2, 8), False, 0.1, 1e-5)),
    ],
)
def test_shapes_that_are_told_at_once_are_those_of_fake_tensors(operator, arguments):
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(7, 8, 10, 9)
    tensors = [x, *(part for part in arguments if isinstance(part, torch.Tensor))]
    told, theirs = shaped(operator, (x, *arguments), {}, tensors), operator(x, *arguments)
    several = isinstance(theirs, tuple)
    for ours, other in zip(told if several else [told], theirs if several else [theirs], strict=True):
        facts = [(t.shape, t.stride(), t.dtype, t.device, t.fake_mode) for t in (ours, other)]
        assert facts[0] == facts[1]


def test_shapes_are_not_told_at_once_of_what_is_laid_out_otherwise():
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(2, 8, 5, 5).to(memory_format=torch.channels_last)
    statistics = torch.rand(2, 8)
    assert shaped(aten.native_batch_norm.default, (x, None, None, *statistics, False, 0.1, 1e-5), {}, [x]) is None
    x = x.contiguous()
    assert shaped(aten.native_batch_norm.default, (x, None, None, *statistics, True, 0.1, 1e-5), {}, [x]) is None
    assert shaped(aten.relu.default, (x,), {}, [x]) is None


def test_a_model_without_its_weights_is_the_same_once_it_has_them():
    module, x = nn.Sequential(nn.Conv2d(8, 64, 3), nn.ReLU(), nn.Conv2d(64, 4, 1)).eval(), images()
    weights = Apart(GIVEN)
    model = convert(module, x, {}, weights=weights)
    assert list(weights) == ["0.weight", "2.weight"]
    assert len(model) < 3000
    whole = onnx.load_model_from_string(held(model, weights))
    assert whole == onnx.load_model_from_string(convert(module, x, {}))
    expected = eager_run(module)(x)
    torch.testing.assert_close(load(model, 1, weights)(x), expected, rtol=1e-4, atol=1e-5)


def test_random_numbers_are_not_frozen():
    with pytest.raises(NotQuickError, match="random numbers"):
        quick(made(lambda x: x + torch.rand(1)), images(), {})


def test_parameters_are_not_changed_by_recording():
    def forward(x, w):
        with torch.no_grad():
            w.add_(1)
        return x * w

    module = made(forward)
    before = module.weight.clone()
    with pytest.raises(NotQuickError, match="a parameter or buffer that forward changes"):
        quick(module, images(), {})
    assert torch.equal(module.weight, before)


def test_a_batch_size_answers_only_what_holds_for_every_batch():
    refusals = Refusals([""])
    batch = Batch(1, 1009, refusals)
    assert isinstance(batch, int)
    assert (batch * 6).multiple == (6 * batch).multiple == 6
    assert (batch * 6 // 3).multiple == 2
    assert (batch * 6) // (batch * 3) == 2
    assert (batch * 6 % 3, batch * 0) == (0, 0)
    assert batch == Batch(1, 1009, refusals)
    assert batch != 0
    assert batch != -1
    assert batch > 0
    assert batch >= 1
    assert not batch < 1
    assert batch * 2 > batch
    assert batch
    assert refusals.first is None
    for question in (
        lambda: batch == 1,
        lambda: batch != 7,
        lambda: batch > 3,
        lambda: batch <= 1,
        lambda: batch % 2,
        lambda: batch < 5,
    ):
        with pytest.raises(BatchBranchError, match="forward evaluates batch"):
            question()
    for arithmetic in (
        lambda: batch + 1,
        lambda: 1 - batch,
        lambda: batch / 2,
        lambda: batch // 2,
        lambda: -batch,
        lambda: float(batch),
        lambda: math.sqrt(batch),
    ):
        with pytest.raises(NotQuickError):
            arithmetic()
    assert isinstance(refusals.first[0], BatchBranchError)


def test_a_torch_without_what_recording_rests_on_has_the_other_way(monkeypatch):
    monkeypatch.setitem(sys.modules, "convsmith.deploy.onnx.quick", None)
    module, x = nn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU()).eval(), images()
    run = deploy.onnx.load(deploy.onnx.convert(module, x, {}), threads=1)
    assert Reference(eager_run(module), x).difference(run) <= 1e-6


def test_what_onnx_runtime_fails_at_is_told_and_not_printed(capfd):
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Gather", ["input", "place"], ["output"], axis=0)],
        "the third image",
        [helper.make_tensor_value_info("input", kind, ["batch", 5])],
        [helper.make_tensor_value_info("output", kind, [1, 5])],
        [helper.make_tensor("place", onnx.TensorProto.INT64, [1], [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    run = load(model.SerializeToString(), 1)
    assert run(torch.ones(3, 5)).shape == (1, 5)
    with pytest.raises(ValueError, match=r"must run the model on any batch, and fails on \(2, 5\) \(.*out of"):
        run(torch.ones(2, 5))
    assert capfd.readouterr() == ("", "")
