import logging
import subprocess
import sys

import torch

from convsmith.nn import Shift, build_operators, native
from tests.nn.operators import needs_a_compiler


def test_without_a_compiler_it_is_said(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", str(tmp_path / "no_compiler"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.INFO, logger="convsmith.nn.native"):
        assert native._load.__wrapped__() is False
        assert not caplog.text
        assert native._build.__wrapped__() is False
    assert "others of torch stand for them" in caplog.text


def test_a_library_that_cannot_be_loaded_is_said(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native._library().parent.mkdir()
    native._library().write_text("not a library")
    with caplog.at_level(logging.INFO, logger="convsmith.nn.native"):
        assert native._load.__wrapped__() is False
    assert "others of torch stand for them" in caplog.text


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
    assert torch.equal(Shift(9).double()(x.to(torch.complex128)), x.to(torch.complex128))
