import logging
import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad

from convsmith.nn import ChannelShuffle, Shift, build_operators, native
from convsmith.nn.shuffle import shuffle_channels
from tests.nn.operators import needs_a_compiler


def test_without_a_compiler_it_is_said(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", str(tmp_path / "no_compiler"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.INFO, logger="convsmith.nn.native"):
        assert native._load.__wrapped__() is False
        assert not caplog.text
        assert native._build.__wrapped__() is False
    assert "others of torch stand for them" in caplog.text


def test_a_compiler_that_is_half_quoted_is_said_and_an_empty_one_is_none(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "g++ '-O2")
    with caplog.at_level(logging.INFO, logger="convsmith.nn.native"):
        assert native._build.__wrapped__() is False
    assert "No closing quotation" in caplog.text
    monkeypatch.setenv("CXX", "")
    assert native._compiler() == "g++"


def test_a_library_that_cannot_be_loaded_is_said(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native._library().parent.mkdir()
    native._library().write_text("not a library")
    with caplog.at_level(logging.INFO, logger="convsmith.nn.native"):
        assert native._load.__wrapped__() is False
    assert "others of torch stand for them" in caplog.text


@needs_a_compiler
def test_what_the_compiler_says_is_said(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", "g++ --no-such-option")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.INFO, logger="convsmith.nn.native"):
        assert native._build.__wrapped__() is False
    assert "no-such-option" in caplog.text


def test_another_header_is_another_library(monkeypatch, tmp_path):
    header = tmp_path / "kernel.h"
    header.write_text("// one")
    assert native.HEADERS
    monkeypatch.setattr(native, "HEADERS", (header,))
    first = native._library()
    header.write_text("// two")
    assert native._library() != first


@needs_a_compiler
def test_a_later_process_finds_what_was_built(tmp_path, monkeypatch):
    """In a folder of its own: nothing is there at first, and then eager passes take the operator without a build."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    look = "import torch; from convsmith.nn import native; print(native.serves(torch.zeros(1)))"

    def run(code):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.split()[-1]

    assert run(look) == "False"
    assert run("import convsmith.nn as nn; print(nn.build_operators())") == "True"
    assert run(look) == "True"


@needs_a_compiler
def test_operators_serve_plain_values_on_the_cpu():
    assert build_operators()
    x = torch.zeros(1, 9, 2, 2)
    assert native.serves(x)
    assert native.serves(torch.nn.Parameter(x))
    assert not native.serves(x.to("meta"))
    assert not native.serves(x.to(torch.complex128))
    assert not native.serves(torch._efficientzerotensor(x.shape))
    assert not native.serves(x.to_sparse())
    assert torch.equal(Shift(9).double()(x.to(torch.complex128)), x.to(torch.complex128))


@needs_a_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch itself, where tangents are first used
@pytest.mark.parametrize("block", [Shift(12), ChannelShuffle(12, groups=3)])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_tangents_and_batches_of_gradients_are_kept(block, form):
    assert build_operators()
    x = torch.randn(2, 12, 4, 3).to(memory_format=form)
    for grad in (torch.no_grad(), torch.enable_grad()):
        with grad, forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(block(forward_ad.make_dual(x, 2 * x))).tangent
        assert torch.equal(tangent, 2 * block(x))
    leaf = x.clone().requires_grad_()
    y = block(leaf)
    gradients = torch.stack([torch.randn_like(y) for _ in range(3)])
    (batched,) = torch.autograd.grad(y, leaf, gradients, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(y, leaf, own, retain_graph=True)[0] for own in gradients]
    assert torch.equal(batched, torch.stack(single))


@needs_a_compiler
def test_maps_of_other_channels_are_refused():
    assert build_operators()
    x = torch.randn(1, 14, 4, 4).to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="divisible"):
        shuffle_channels(x, 3)
    with pytest.raises(ValueError, match=r"a shuffle of 12 channels takes \(N, 12, H, W\)"):
        ChannelShuffle(12, groups=3)(x)
    for wrong in (x, x[0], x[None]):
        with pytest.raises(ValueError, match=r"a shift of 12 channels takes \(N, 12, H, W\)"):
            Shift(12)(wrong)
