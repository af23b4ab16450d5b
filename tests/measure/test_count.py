"""Counts of tiny networks, worked out by hand, and of well-known ones, against torch's own counter."""

import gc
import random
import re
import threading
from collections import deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

from convsmith.measure import on_meta
from convsmith.measure.count import ModuleCounts, OperatorCounts, count
from tests.measure.untouched import state


class Call(nn.Module):
    """A module whose forward pass is `function(self, *inputs)`."""

    def __init__(self, function, **members):
        super().__init__()
        self.function = function
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def using(function, *shape):
    """Builds a module with one weight: its forward pass is `function(weight, *inputs)`."""
    return lambda: Call(lambda m, *x: function(m.weight, *x), weight=nn.Parameter(torch.randn(*shape)))


def around(module, function):
    """Builds a module around another: its forward pass is `function(module, *inputs)`."""
    return lambda: Call(lambda m, *x: function(m.inner, *x), inner=module)


def attention(qkv, x):
    query, key, value = qkv(x).chunk(3, dim=-1)
    return (query @ key.transpose(-2, -1)).softmax(-1) @ value


class Deformable(nn.Module):
    def __init__(self):
        super().__init__()
        self.offset = nn.Conv2d(4, 18, 3, padding=1)
        self.conv = torchvision.ops.DeformConv2d(4, 6, 3, padding=1, groups=2)

    def forward(self, x):
        return self.conv(x, self.offset(x))


def old_weight_norm():
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Conv2d(4, 6, 1))


X = (2, 4, 8, 10)  # N, C, H, W: 640 elements, 2 x 80 positions
POINTWISE = 2 * 80 * 4 * 6  # the MACs of a 1x1 convolution of X to six channels
IN_PLACE = [act(inplace=True) for act in (nn.CELU, nn.ELU, nn.Hardsigmoid, nn.Hardswish, nn.Mish, nn.ReLU6, nn.SELU)]
# fmt: off
MACS = {
    "dense":           (lambda: nn.Conv2d(4, 6, 3, padding=1),                   [X],         2 * 80 * 6 * 4 * 9),
    "no bias":         (lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False),       [X],         2 * 80 * 6 * 4 * 9),
    "strided":         (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),         [X],         2 * 20 * 6 * 4 * 9),
    "dilated":         (lambda: nn.Conv2d(4, 6, 3, dilation=2),                  [X],         2 * 24 * 6 * 4 * 9),
    "same":            (lambda: nn.Conv2d(4, 6, 3, padding="same"),              [X],         2 * 80 * 6 * 4 * 9),
    "grouped":         (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),         [X],         2 * 80 * 6 * 2 * 9),
    "depthwise":       (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4),         [X],         2 * 80 * 8 * 9),
    "transposed":      (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), [X],         2 * 80 * 4 * 3 * 9),
    "transposed 1-D":  (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2),           [(2, 4, 9)], 2 * 9 * 4 * 6 * 3),
    "transposed 3-D":  (lambda: nn.ConvTranspose3d(4, 6, 3), [(2, 4, 5, 6, 7)],               2 * 210 * 4 * 6 * 27),
    "1-D":             (lambda: nn.Conv1d(4, 6, 5),                              [(2, 4, 9)], 2 * 5 * 6 * 4 * 5),
    "3-D":             (lambda: nn.Conv3d(4, 6, (1, 3, 3)), [(2, 4, 5, 6, 7)],                2 * 100 * 6 * 4 * 9),
    "unbatched":       (lambda: nn.Conv2d(4, 6, 3, padding=1),                   [X[1:]],     80 * 6 * 4 * 9),
    "deformable":      (Deformable,                               [X],           2 * 80 * (18 * 4 * 9 + 6 * 2 * 9)),
    "linear":          (lambda: nn.Linear(10, 3),                                [X],         2 * 4 * 8 * 10 * 3),
    "linear of rows":  (lambda: nn.Linear(10, 3),                                [(5, 10)],   5 * 10 * 3),
    "F.conv2d":        (using(lambda w, x: F.conv2d(x, w), 6, 4, 1, 1),          [X],         POINTWISE),
    "F.linear":        (using(lambda w, x: F.linear(x, w), 3, 10),               [X],         2 * 4 * 8 * 10 * 3),
    "mm":              (using(lambda w, x: x.mm(w), 10, 3),                      [(5, 10)],   5 * 10 * 3),
    "mv":              (using(lambda w, x: x.mv(w), 10),                         [(5, 10)],   5 * 10),
    "dot":             (using(lambda w, x: x.dot(w), 10),                        [(10,)],     10),
    "matmul":          (using(lambda w, x: x @ w, 10, 3),                        [X],         2 * 4 * 8 * 10 * 3),
    "addmm":           (using(lambda w, x: torch.addmm(w[0], x, w), 10, 3),      [(5, 10)],   5 * 10 * 3),
    "addmv":           (using(lambda w, x: torch.addmv(w[:5], x, w), 10),        [(5, 10)],   5 * 10),
    "bmm":             (using(lambda w, x: x.bmm(w), 2, 4, 5),                   [(2, 3, 4)], 2 * 3 * 4 * 5),
    "baddbmm":         (using(lambda w, x: torch.baddbmm(w[:, :1], x, w), 2, 4, 5), [(2, 3, 4)], 2 * 3 * 4 * 5),
    "addbmm":          (using(lambda w, x: torch.addbmm(w[0, :1], x, w), 2, 4, 5),  [(2, 3, 4)], 2 * 3 * 4 * 5),
    "einsum":          (using(lambda w, x: torch.einsum("nchw,cd->ndhw", x, w), 4, 6), [X],   POINTWISE),
    "attention":       (around(nn.Linear(8, 24), attention), [(2, 5, 8)],        2 * 5 * 8 * 24 + 2 * 2 * 5 * 5 * 8),
    "multi-head":      (around(nn.MultiheadAttention(8, 2, batch_first=True).eval(), lambda m, x: m(x, x, x)),
                        [(2, 5, 8)],                                             2 * 5 * 8 * 32 + 2 * 2 * 5 * 5 * 8),
    "fused attention": (using(lambda w, x: F.scaled_dot_product_attention(x, w, w), 2, 3, 7, 8),
                        [(2, 3, 5, 8)],                                          2 * 2 * 3 * 5 * 7 * 8),
    "lstm":            (lambda: nn.LSTM(8, 3, num_layers=2, bidirectional=True),
                        [(5, 2, 8)],                                             2 * 10 * 12 * ((8 + 3) + (6 + 3))),
    "gru":             (lambda: nn.GRU(8, 3), [(5, 2, 8)],                                    10 * 9 * (8 + 3)),
    "dict output":     (around(nn.Conv2d(4, 6, 1), lambda m, x: {"a": m(x), "b": [m(x)]}), [X], 2 * POINTWISE),
    "three times":     (around(nn.Conv2d(4, 4, 1), lambda m, x: m(m(m(x)))),     [X],         3 * 2 * 80 * 16),
    "loop over sizes": (around(nn.Conv2d(4, 6, 1), lambda m, x: [m(y) for y in x]),  [X],        POINTWISE),
    "two inputs":      (around(nn.Conv2d(4, 6, 1), lambda m, pair: m(pair[0]) + m(pair[1])), [(X, X)], 2 * POINTWISE),
    "weight norm":     (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 1)), [X], POINTWISE),
    "old weight norm": (old_weight_norm,                                         [X],         POINTWISE),
    "pruned":          (lambda: prune.identity(nn.Conv2d(4, 6, 1), "weight"),  [X],        POINTWISE),
    "double":          (lambda: nn.Conv2d(4, 6, 1).double(),                     [X],         POINTWISE),
    "on meta":         (lambda: nn.Conv2d(4, 6, 1, device="meta"),               [X],         POINTWISE),
    "channels last":   (lambda: nn.Conv2d(4, 6, 1).to(memory_format=torch.channels_last),
                        [torch.randn(X).to(memory_format=torch.channels_last)],               POINTWISE),
    "plain tensor":    (lambda: Call(lambda m, x: x.mm(m.w), w=torch.randn(10, 3)), [(5, 10)], 5 * 10 * 3),
    "parts of weights": (using(lambda w, x: F.conv2d(x, w.chunk(2)[1].squeeze(0)), 2, 6, 4, 1, 1), [X], POINTWISE),
    "training":        (lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.Dropout()), [X], POINTWISE),
    "device moves":    (using(lambda w, x: F.conv2d(x.to(w.device), w.to(x)), 6, 4, 1, 1), [X], POINTWISE),
}

NO_MACS = {
    "batch norm":      nn.BatchNorm2d(4),
    "group norm":      nn.GroupNorm(2, 4),
    "layer norm":      nn.LayerNorm(10),
    "instance norm":   nn.InstanceNorm2d(4),
    "local norm":      nn.LocalResponseNorm(2),
    "relu":            nn.ReLU(),
    "relu in place":   around(nn.ReLU(inplace=True), lambda m, x: m(x + 1))(),
    "others in place": around(nn.Sequential(*IN_PLACE), lambda m, x: m(x + 1))(),
    "hardswish":       nn.Hardswish(),
    "prelu":           nn.PReLU(4),
    "glu":             nn.GLU(1),
    "max pool":        nn.MaxPool2d(3, 2),
    "avg pool":        nn.AvgPool2d(3, 2, ceil_mode=True),
    "adaptive pool":   nn.AdaptiveAvgPool2d(3),
    "adaptive max":    nn.AdaptiveMaxPool2d(3),
    "bilinear":        nn.Upsample(scale_factor=2, mode="bilinear"),
    "bicubic":         nn.Upsample(scale_factor=2, mode="bicubic"),
    "nearest":         nn.Upsample(scale_factor=2),
    "grid sample":     Call(lambda m, x: F.grid_sample(x, x[..., :2].transpose(1, 2), align_corners=False)),
    "pad":             nn.ReflectionPad2d(1),
    "channel shuffle": nn.ChannelShuffle(2),
    "pixel shuffle":   nn.PixelShuffle(2),
    "dropout":         nn.Dropout2d(),
    "split and cat":   Call(lambda m, x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    "residual":        Call(lambda m, x: (x + x * 2).clamp(0, 6)),
    "softmax":         nn.Softmax(1),
    "views":           Call(lambda m, x: x.permute(0, 2, 3, 1).unfold(1, 3, 1)[None].flatten(0, 1)),
    "statistics":      Call(lambda m, x: (x - x.mean((2, 3), keepdim=True)) / x.var((2, 3), keepdim=True).sqrt()),
    "noise":           Call(lambda m, x: x + torch.randn_like(x) + torch.zeros(10)),
    "rows of a table": Call(lambda m, x: F.embedding_bag(torch.tensor([[0, 2]]), x.flatten(0, 2), mode="sum")),
    "order":           Call(lambda m, x: x.sort(-1)[0].topk(2)[1]),
    "shift":           Call(lambda m, x: F.pad(torch.roll(x, 1, 3), (1, 0))[..., :-1]),
    "assignment":      Call(lambda m, x: x.clone().index_fill_(1, torch.tensor([0]), 0.0).mul_(2)),
}
# fmt: on


@pytest.mark.parametrize("case", MACS)
def test_macs_by_hand(case):
    build, inputs, macs = MACS[case]
    counts = count(build(), *inputs)
    assert (counts.macs, counts.uncounted, counts.method) == (macs, {}, "meta")


@pytest.mark.parametrize("case", sorted(MACS.keys() - {"on meta"}))
def test_a_real_pass_has_the_same_macs(case):
    build, inputs, macs = MACS[case]
    counts = count(around(build(), lambda m, *x: (m(*x), (torch.zeros(3) + 1).sum().item()))(), *inputs)
    assert (counts.macs, counts.uncounted, counts.method) == (macs, {}, "run")


@pytest.mark.parametrize("case", NO_MACS)
def test_these_are_known_to_have_no_macs(case):
    counts = count(NO_MACS[case], X)
    assert (counts.macs, counts.uncounted, counts.method) == (0, {}, "meta")
    assert count(NO_MACS[case], torch.zeros(X)).output == tuple(NO_MACS[case](torch.zeros(X)).shape)


FLOAT = 4
# fmt: off
MEMORY = {  # elements read and written
    "1x1 convolution (G1)": (lambda: nn.Conv2d(4, 6, 1, bias=False),            80 * (4 + 6) + 4 * 6),
    "with bias":            (lambda: nn.Conv2d(4, 6, 1),                        80 * (4 + 6) + 4 * 6 + 6),
    "depthwise":            (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), 80 * (4 + 4) + 4 * 9),
    "batch norm":           (lambda: nn.BatchNorm2d(4).eval(),                  320 + 320 + 4 * 4),
    "relu":                 (nn.ReLU,                                           320 + 320),
    "relu in place":        (around(nn.ReLU(inplace=True), lambda m, x: m(x)),  320 + 320),
    "add":                  (around(nn.Identity(), lambda m, x: x + x),         320 + 320 + 320),
    "cat":                  (around(nn.Identity(), lambda m, x: torch.cat([x, x, x], 1)), 3 * 320 + 3 * 320),
    "views":                (around(nn.Identity(), lambda m, x: x.flatten(2).transpose(1, 2)[:, :3].chunk(3, 1)), 0),
    "copy of a view":       (around(nn.Identity(), lambda m, x: x.transpose(2, 3).contiguous()), 320 + 320),
    "no copy":              (around(nn.Identity(), lambda m, x: x.contiguous().reshape(-1).to(torch.float32)), 0),
    "repeated by expand":   (around(nn.Identity(), lambda m, x: x[..., :1].expand(1, 4, 8, 10) + x), 32 + 320 + 320),
    "max pool":             (lambda: nn.MaxPool2d(2),                           320 + 80),
    "dropout in eval mode": (lambda: nn.Dropout().eval(),                       0),
    "move to a device":     (using(lambda w, x: x.to(w.device), 1),             0),
    "fill":                 (around(nn.Identity(), lambda m, x: x.zero_()),     320),
    "copied into":          (around(nn.Identity(), lambda m, x: x[:, :2].copy_(x[:, 2:])), 160 + 160),
    "look-up of 3 rows":    (using(lambda w, x: F.embedding(torch.tensor([0, 1, 1]), w), 100, 5), 3 * 2 + 15 + 15),
}
# fmt: on


@pytest.mark.parametrize("case", MEMORY)
def test_memory_traffic_by_hand(case):
    build, elements = MEMORY[case]
    counts = count(build(), (1, 4, 8, 10))
    assert (counts.memory_bytes, counts.method) == (FLOAT * elements, "meta")


@pytest.mark.parametrize("case", MEMORY)
def test_a_real_pass_has_the_same_memory_traffic(case):
    build, elements = MEMORY[case]
    counts = count(around(build(), lambda m, x: (torch.empty(1).tolist(), m(x)))(), (1, 4, 8, 10))
    assert (counts.memory_bytes, counts.method) == (FLOAT * elements, "run")


def test_memory_traffic_follows_the_type():
    assert count(nn.Conv2d(4, 6, 1, bias=False).half(), (1, 4, 8, 10)).memory_bytes == 2 * (80 * (4 + 6) + 4 * 6)


def test_activations_are_the_outputs_of_convolutions():
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 5, 3), nn.Flatten(), nn.Linear(400, 7))
    assert count(network, X).activations == 2 * 6 * 6 * 8 + 2 * 5 * 80
    assert count(Deformable(), X).activations == 2 * 80 * (18 + 6)


def test_by_module_and_by_operator():
    shared = nn.Conv2d(4, 4, 1, bias=False)
    parts = nn.ModuleList([nn.Sequential(shared, nn.ReLU()), nn.Conv2d(4, 2, 1, bias=False), nn.Linear(3, 3)])
    network = Call(lambda m, x: m.parts[1](m.parts[0](m.parts[0](x)) + F.conv2d(x, m.own)), parts=parts, again=shared)
    network.own = nn.Parameter(torch.ones(4, 4, 1, 1))
    counts = count(network, (1, 4, 8, 10))
    conv, relu, head = 80 * 8 + 16, 80 * 8, 80 * 6 + 8
    wide, narrow = (1, 4, 8, 10), (1, 2, 8, 10)
    assert dict(counts.by_module) == {
        "": ModuleCounts(
            *(16 + 16 + 8 + 12, 80 * (3 * 16 + 8), 80 * 14, FLOAT * (3 * conv + 2 * relu + 80 * 12 + head), 1, narrow)
        ),
        "parts": ModuleCounts(
            *(16 + 8 + 12, 80 * (2 * 16 + 8), 80 * 10, FLOAT * (2 * conv + 2 * relu + head), 0, None)
        ),
        "parts.0": ModuleCounts(16, 80 * 2 * 16, 80 * 8, FLOAT * (2 * conv + 2 * relu), 2, wide),
        "parts.0.0": ModuleCounts(16, 80 * 2 * 16, 80 * 8, FLOAT * 2 * conv, 2, wide),
        "parts.0.1": ModuleCounts(0, 0, 0, FLOAT * 2 * relu, 2, wide),
        "parts.1": ModuleCounts(8, 80 * 8, 80 * 2, FLOAT * head, 1, narrow),
        "parts.2": ModuleCounts(12, 0, 0, 0, 0, None),
    }
    assert list(counts.by_module) == [name for name, _ in network.named_modules()]
    assert dict(counts.by_operator) == {
        "convolution": OperatorCounts(4, counts.macs, FLOAT * (3 * conv + head)),
        "relu": OperatorCounts(2, 0, FLOAT * 2 * relu),
        "add": OperatorCounts(1, 0, FLOAT * 80 * 12),
    }
    assert counts.params == sum(parameter.numel() for parameter in network.parameters())
    assert counts.output == (1, 2, 8, 10)
    intensity = 80 * (3 * 16 + 8) / (FLOAT * (3 * conv + head))
    assert counts.by_operator["convolution"].macs_per_byte == pytest.approx(intensity)
    assert counts.by_module["parts.1"].macs_per_byte == pytest.approx(80 * 8 / (FLOAT * head))
    assert counts.by_module["parts.2"].macs_per_byte == 0


def test_a_module_inside_itself_counts_once():
    def recurse(module, x, depth=2):
        return module.conv(module(x, depth - 1) if depth else x)

    counts = count(nn.Sequential(Call(recurse, conv=nn.Conv2d(4, 4, 1))), (1, 4, 8, 10))
    assert {name: module.macs for name, module in counts.by_module.items()} == dict.fromkeys(
        ("", "0", "0.conv"), 3 * 80 * 16
    )


def test_a_call_that_ends_in_a_caught_exception_ends():
    def fail(module, x):
        F.conv2d(module.conv(x), module.conv.weight)
        raise KeyError("for the caller")

    def forward(module, x):
        try:
            return module.failing(x)
        except KeyError:
            return module.head(x)

    failing = Call(fail, conv=nn.Conv2d(4, 4, 1))
    counts = count(Call(forward, failing=failing, head=nn.Conv2d(4, 2, 1)), (1, 4, 8, 10))
    assert {name: module.macs for name, module in counts.by_module.items()} == {
        "": 80 * (2 * 16 + 8),
        "failing": 80 * 2 * 16,
        "failing.conv": 80 * 16,
        "head": 80 * 8,
    }


def test_operators_without_formula_are_reported():
    counts = count(Call(lambda m, x: (torch.fft.rfft2(x), torch.cdist(x[0], x[1]), torch.cdist(x[1], x[0]))), X)
    assert counts.macs == 0
    assert counts.uncounted == {"fft_r2c": 1, "cdist_forward": 2}
    assert counts.by_operator["cdist_forward"].calls == 2


def test_attention_with_a_function_of_scores_is_counted_by_its_parts():
    from torch.nn.attention.flex_attention import flex_attention

    found = count(Call(lambda m, x: flex_attention(x, x, x)), (1, 2, 128, 16))
    assert (found.macs, found.output) == (2 * 128 * 128 * 16 * 2, (1, 2, 128, 16))
    assert not found.uncounted


def test_inputs_and_outputs_keep_their_structure():
    module = Call(lambda m, a, b, c: {"sum": a[0] + a[1], "rest": [b["x"], (c, b["y"], None)]})
    counts = count(module, ((1, 3), (2, 3)), {"x": torch.zeros(4, dtype=torch.int64), "y": (5,)}, "mode")
    assert counts.output == {"sum": (2, 3), "rest": [(4,), ("mode", (5,), None)]}


def test_shapes_take_the_type_of_the_parameters():
    seen = []
    count(Call(lambda m, x: seen.append(x.dtype), inner=nn.Linear(2, 2).double()), (1, 2))
    count(nn.Sequential(Call(lambda m, x: seen.append(x.dtype))), (1, 2))
    assert seen == [torch.float64, torch.float32]


def test_no_memory_is_used():
    """Activations of 2 and weights of 4 terabytes."""
    counts = count(nn.Conv2d(1_000_000, 1_000_000, 1, bias=False, device="meta"), (1, 1_000_000, 500, 1000))
    assert counts.macs == 500_000 * 10**12


# Values that decide


def test_a_branch_on_data_is_run_for_real():
    def forward(module, x):
        return module.conv(x) if x.abs().sum() > 0 else x

    counts = count(Call(forward, conv=nn.Conv2d(4, 6, 1)), X)
    assert (counts.macs, counts.method, counts.output) == (POINTWISE, "run", (2, 6, 8, 10))


def test_a_loop_on_data_follows_the_given_tensor():
    def forward(module, x):
        while x.max() < 8:
            x = module.conv(x) + 1
        return x

    conv = nn.Conv2d(4, 4, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    conv.bias.data += 2
    network = Call(lambda m, x: [x := m.conv(x) for _ in range(int(x[0, 0, 0, 0]))], conv=conv)
    assert count(network, torch.full(X, 3.0)).macs == 3 * 2 * 80 * 16
    assert count(network, torch.full(X, 5.0)).macs == 5 * 2 * 80 * 16


def test_the_number_of_boxes_is_run_for_real():
    boxes = Call(lambda m, x: m.head(x[x.sum(1) > 0]), head=nn.Linear(4, 2))
    x = torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1], [2, 2, 2, 2]])
    assert count(boxes, x).macs == 2 * 4 * 2


def test_values_of_small_buffers_decide_without_a_real_pass():
    def forward(module, x):
        return module.conv(x) if (module.rate > 0.5).any() and module.on.item() else x

    module = Call(forward, conv=nn.Conv2d(4, 6, 1))
    module.register_buffer("rate", torch.tensor([0.2, 0.7]))
    module.register_buffer("on", torch.tensor(True))
    for _ in range(2):
        module.on.fill_(True)
        assert (count(module, X).macs, count(module, X).method) == (POINTWISE, "meta")
        module.on.fill_(False)
        assert (count(module, X).macs, count(module, X).method) == (0, "meta")


def test_a_buffer_changed_in_the_pass_is_not_read_as_it_was():
    def forward(module, x):
        module.step.add_(1)
        return module.conv(x) if module.step.item() == 1 else x

    module = Call(forward, conv=nn.Conv2d(4, 6, 1))
    module.register_buffer("step", torch.tensor(0))
    counts = count(module, X)
    assert (counts.macs, counts.method) == (POINTWISE, "run")
    assert module.step == 0


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_buffer_reshaped_in_the_pass_keeps_its_shape(device):
    module = Call(lambda m, x: m.conv(x) + m.shift.unsqueeze_(0), conv=nn.Conv2d(4, 6, 1))
    module.register_buffer("shift", torch.zeros(6, 1, 1))
    for _ in range(2):
        counts = count(module.to(device), X)
        assert (counts.macs, counts.method, counts.output) == (POINTWISE, "run", (2, 6, 8, 10))
        assert module.shift.shape == (6, 1, 1)


# Well-known networks against torch's own counter


def flops(network, shape):
    """`FlopCounterMode` on the meta device, where it sees attention that on a CPU hides in a fused layer."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to("meta")(torch.empty(shape, device="meta"))
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("name", "size", "training"),
    [
        ("resnet50", 224, False),
        ("mobilenet_v2", 224, True),
        ("densenet121", 224, False),
        ("googlenet", 224, True),
        ("inception_v3", 299, False),
        ("shufflenet_v2_x1_0", 224, False),
        ("efficientnet_b0", 224, False),
        ("convnext_tiny", 224, False),
        ("vit_b_16", 224, False),
        ("swin_t", 224, False),
    ],
)
def test_torchvision_networks(name, size, training):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        network = torchvision.models.get_model(name, **options).train(training)
    counts = count(network, (2, 3, size, size))
    assert 2 * counts.macs == flops(network, (2, 3, size, size))
    assert counts.params == sum(parameter.numel() for parameter in network.parameters())
    assert (counts.uncounted, counts.method) == ({}, "meta")


@pytest.mark.slow
def test_a_network_of_timm():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model("nasnetalarge")
    counts = count(network.eval(), (1, 3, 331, 331))
    assert 2 * counts.macs == flops(network, (1, 3, 331, 331))
    assert (counts.params, counts.uncounted, counts.method) == (88_753_150, {}, "meta")


# Nothing is touched


class Messy(nn.Module):
    """Does in `forward` what a module should not: keeps maps, counts calls, rebinds and overwrites its own tensors."""

    def __init__(self, ending):
        super().__init__()
        self.ending = ending
        self.conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))
        self.norm = nn.BatchNorm2d(4)
        self.hooked = nn.Conv2d(4, 4, 1)
        self.hooked.register_forward_pre_hook(lambda module, inputs: setattr(module, "scaled", module.weight * 2))
        self.hooked.register_forward_hook(lambda module, inputs, output: output + 1)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0
        self.maps = []
        self.latest = deque([1], maxlen=1)
        self.by_name = {"first": 1}
        self.plain = torch.ones(4)

    def forward(self, x):
        self.calls += 1
        x = F.dropout(self.hooked(self.norm(self.conv(x + torch.randn(4, 1, 1)))), 0.5, True)
        self.mean = 0.9 * self.mean + 0.1 * x.mean((0, 2, 3))
        self.seen += 1
        self.plain[:2] = 0
        self.conv.bias.data.mul_(0)
        torch.add(self.plain, 1, out=self.plain)
        self.maps.append(x)
        self.latest.append(x)
        self.by_name["last"] = x
        self.new = x
        random.random()
        np.random.rand()  # noqa: NPY002
        if self.ending == "error":
            raise LookupError("of the user")
        if self.ending == "value":
            return x if x.sum().item() > 1e9 else -x
        return x


@pytest.mark.parametrize("ending", ["value", "error", "plain"])
@pytest.mark.parametrize("training", [True, False])
def test_module_and_torch_are_left_as_they_were(ending, training):
    network = nn.Sequential(nn.Conv2d(4, 4, 1), Messy(ending)).train(training)
    network[0].weight.grad = torch.ones_like(network[0].weight)
    before = state(network)
    assert gc.isenabled()
    if ending == "error":
        with pytest.raises(LookupError, match="of the user") as caught:
            count(network, X)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
    else:
        assert count(network, X).method == {"value": "run", "plain": "meta"}[ending]
    after = state(network)
    for aspect, value in before.items():
        assert after[aspect] == value, aspect
    assert network[1].plain.tolist() == [1, 1, 1, 1]

    # ... and the next model is counted as if nothing had been.
    build, inputs, macs = MACS["dense"]
    assert count(build(), *inputs).macs == macs
    assert not torch.nn.modules.module._global_forward_hooks


def test_an_interrupt_leaves_everything_as_it_was():
    def interrupt(module, x):
        module.norm(x)
        raise KeyboardInterrupt

    network = Call(interrupt, norm=nn.BatchNorm2d(4))
    before = state(network)
    with pytest.raises(KeyboardInterrupt):
        count(network, X)
    assert state(network) == before


def test_hooks_of_the_user_run_and_stay():
    fired = []
    network = nn.Sequential(nn.Conv2d(4, 6, 1))
    network.register_forward_hook(lambda module, inputs, output: fired.append("own"))
    mine = torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, output: fired.append("global"))
    try:
        assert count(network, X).macs == POINTWISE
        assert fired == ["global", "global", "own"]
        assert len(torch.nn.modules.module._global_forward_hooks) == 1
    finally:
        mine.remove()
    assert len(network._forward_hooks) == 1


def test_modules_of_other_threads_are_not_counted():
    elsewhere = nn.Conv2d(4, 4, 3)

    def forward(module, x, in_thread=False):
        if in_thread:
            return elsewhere(x)
        thread = threading.Thread(target=lambda: module(torch.zeros(X), True))
        thread.start()
        thread.join()
        return F.conv2d(module.around(x), module.around[0].weight)

    around = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
    counts = count(nn.Sequential(Call(forward, around=around, other=elsewhere), nn.Conv2d(4, 6, 1)), X)
    assert {name: module.macs for name, module in counts.by_module.items() if module.macs} == {
        "": 2 * 80 * (16 + 16 + 24),
        "0": 2 * 80 * (16 + 16),
        "0.around": 2 * 80 * 16,
        "0.around.0": 2 * 80 * 16,
        "1": POINTWISE,
    }


def test_gradients_can_be_tracked_afterwards():
    network = nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6))
    count(network, X)
    network(torch.randn(X)).sum().backward()
    assert network[0].weight.grad is not None


def test_the_memo_forgets_nothing_that_matters(monkeypatch):
    """The same operator with another number, type, layout or default type is another entry; a full memo starts anew."""
    x = torch.zeros(2, 3, dtype=torch.int64)
    dtypes = []
    for number in (1, 1.0, True):
        count(Call(lambda m, x, number=number: dtypes.append((x * number).dtype)), x)
    count(Call(lambda m, x: dtypes.append((x.float() * 1.0).dtype)), x)
    torch.set_default_dtype(torch.float64)
    try:
        count(Call(lambda m, x: dtypes.append((x * 1.0).dtype)), x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert dtypes == [torch.int64, torch.float32, torch.int64, torch.float32, torch.float64]

    for _ in range(2):
        assert count(Call(lambda m, x: torch.add(x, x, out=torch.empty(0))), X).output == X

    monkeypatch.setattr(on_meta, "MEMO_SIZE", 3)
    for _ in range(2):
        for width in range(1, 6):
            assert count(nn.Sequential(nn.Conv2d(4, width, 1), nn.ReLU()), X).macs == 2 * 80 * 4 * width
    assert len(on_meta._MEMOS[torch.float32]) <= 3


def test_strides_are_those_of_a_real_pass():
    """`view` refuses maps whose memory is in another order, and must do so here."""
    shuffle = Call(lambda m, x: m.conv(x).transpose(1, 2).view(-1), conv=nn.Conv2d(4, 4, 1))
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        count(shuffle, X)
    strides = []
    noting = Call(lambda m, x: strides.append(F.relu(m.conv(x) + 1).stride()), conv=nn.Conv2d(4, 4, 1))
    last = torch.channels_last
    for weight_order in (torch.contiguous_format, last):
        noting.to(memory_format=weight_order)
        for x in (torch.randn(X), torch.randn(X).to(memory_format=last), torch.randn(2, 8, 8, 10)[:, ::2]):
            with torch.no_grad():
                noting(x)
            count(noting, x)
            assert strides[-1] == strides[-2]


def test_wrong_use():
    with pytest.raises(ValueError, match=r"must not be negative, got \(1, -3, 8, 8\)"):
        count(nn.Conv2d(3, 4, 1), (1, -3, 8, 8))
    with pytest.raises(ValueError, match="got a lazy one; call it once on data"):
        count(nn.LazyConv2d(4, 1), X)
    with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels, but got 4 channels instead"):
        count(nn.Conv2d(3, 4, 1), X)
    with pytest.raises(TypeError, match="positional argument"):
        count(nn.Conv2d(4, 4, 1), X, X)


@pytest.mark.parametrize(("given", "example"), [([1, 3, 8, 8], "(1, 3, 8, 8)"), ((), "(1, 3, 224, 224)")])
def test_a_shape_is_a_tuple_of_sizes(given, example):
    with pytest.raises(ValueError, match=f"is a tuple of sizes, got .*such as {re.escape(example)}"):
        count(nn.Conv2d(3, 4, 3), given)
    assert count(Call(lambda m, x, sizes: F.interpolate(x, sizes)), (1, 3, 8, 8), [4, 4]).output == (1, 3, 4, 4)
