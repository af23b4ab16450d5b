import importlib.util
import shutil

import pytest
import torch
from torch import nn

from convsmith import deploy
from convsmith.deploy.backends import compile as back_end
from convsmith.deploy.program import plain
from tests.deploy.backends.networks import IMAGES, Branching, small_network

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


def test_without_a_compiler_the_error_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler, and there is no no-such-compiler; install g\\+\\+"):
        deploy.prepare(small_network(), IMAGES, backend="compile")


def test_inputs_are_laid_out_as_the_example_is():
    last = IMAGES.to(memory_format=torch.channels_last)
    for example, given in ((IMAGES, last), (last, IMAGES), (last, IMAGES[:1])):
        laid_out = plain(given, example)
        assert laid_out.stride()[1:] == example.stride()[1:]
        assert torch.equal(laid_out, given)


@needs_compiler
def test_a_branch_on_values_is_refused_with_its_module():
    with pytest.raises(ValueError, match=r"must not branch on values .* cannot follow that of _Branch 1\.inner\.1 "):
        deploy.prepare(nn.Sequential(nn.Identity(), Branching()), IMAGES, backend="compile")


class TakingOut(nn.Module):
    def forward(self, x):
        return x * x.mean().item()


@needs_compiler
def test_a_value_taken_out_of_a_tensor_is_refused_with_its_module():
    with pytest.raises(ValueError, match=r"must not branch .* that of 1 \(it takes a value out of a tensor\)"):
        deploy.prepare(nn.Sequential(nn.Identity(), TakingOut()), IMAGES, backend="compile")


@pytest.mark.slow
@needs_compiler
def test_it_agrees_with_eager_at_any_batch_size_and_layout():
    module = small_network()
    run = deploy.prepare(module, IMAGES, backend="compile", threads=1)
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 8, 8)
        for given in (x, x.to(memory_format=torch.channels_last), x.clone().requires_grad_()):
            output = run(given)
            assert not output.requires_grad
            torch.testing.assert_close(output, module(x).detach(), rtol=1e-4, atol=1e-5)
    # Compiled code reads memory without looking.
    with pytest.raises(ValueError, match=r"prepared for torch.float32 of shape \(N, 3, 8, 8\) on cpu, and gets"):
        run(torch.randn(1, 3, 8, 9))
    with pytest.raises(ValueError, match=r"gets torch\.float64"):
        run(torch.randn(1, 3, 8, 8, dtype=torch.float64))


@pytest.mark.slow
@needs_compiler
def test_the_package_it_writes_runs_by_its_loader(tmp_path, capfd):
    artefact = back_end.write(small_network(), IMAGES, tmp_path, "bfloat16")
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == list(artefact.files)
    (tmp_path / "loader.py").write_text(artefact.loader)
    spec = importlib.util.spec_from_file_location("compiled_loader", tmp_path / "loader.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    x = torch.randn(5, 3, 8, 8)
    expected = small_network()(x).detach()
    difference = (torch.from_numpy(loader.load(threads=1)(x.numpy())) - expected).abs().max() / expected.abs().max()
    assert 1e-5 < difference < 3e-2  # it computes in bfloat16, and takes and gives float32
