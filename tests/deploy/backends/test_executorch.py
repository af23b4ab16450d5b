import importlib.util
import os
import subprocess
import sys
import warnings

import pytest
import torch
import torchvision
from torch import nn

from convsmith import deploy
from convsmith.deploy.backends import executorch as back_end
from tests.deploy.backends.networks import IMAGES, Branching, small_network

pytest.importorskip("executorch")
pytestmark = pytest.mark.slow  # its compiler alone takes seconds to import


@pytest.fixture(scope="module")
def lowered():
    return back_end.lower(small_network(), IMAGES)


def test_runs_of_several_thread_counts_take_turns(monkeypatch, lowered):
    monkeypatch.setattr(back_end, "lower", lambda network, example: lowered)
    module = small_network()
    runs = [deploy.prepare(module, IMAGES, backend="executorch", threads=threads) for threads in (1, 3)]
    bindings = back_end.bindings()
    tasks = []
    for _ in range(2):
        for run in runs:
            for batch in (1, 2, back_end.MOST, 2 * back_end.MOST + 1):
                x = torch.randn(batch, 3, 8, 8)
                torch.testing.assert_close(run(x), module(x).detach(), rtol=1e-4, atol=1e-5)
            assert bindings._threadpool_get_thread_count() == run.threads
            assert run(x.double()).dtype == torch.float64
            tasks.append(len(os.listdir("/proc/self/task")))
    assert tasks[1] - tasks[0] == tasks[3] - tasks[2] == 2
    strided = torch.randn(3, 3, 8, 8).to(memory_format=torch.channels_last)
    torch.testing.assert_close(run(strided), module(strided).detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"gets torch.float32 of shape \(1, 3, 9, 9\)"):
        run(torch.randn(1, 3, 9, 9))


FIRST_USE = """
import torch
from convsmith import deploy
network, images = torch.nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
before = torch.get_rng_state()
deploy.prepare(network, images, backend="executorch", threads=1)(images)
assert torch.equal(torch.get_rng_state(), before)
"""


def test_its_first_use_in_a_process_says_nothing_and_leaves_the_random_numbers():
    ran = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "cpuinfo" not in ran.stderr


def test_what_xnnpack_computes_is_told(lowered):
    # The convolutions, activations, the pooling and the linear layer; ExecuTorch's own view is left.
    assert 0.75 <= lowered.delegated_share < 1
    assert [word.partition(" ")[0] for word in lowered.portable] == ["view_copy"]
    assert lowered.most == back_end.MOST


class Multiplying(nn.Module):
    """Attention by hand, and by torch's module: products of two maps between layers with weights."""

    def __init__(self, attention):
        super().__init__()
        self.patches, self.attention = nn.Conv2d(3, 8, 2, 2), attention

    def forward(self, x):
        t = self.patches(x).flatten(2).transpose(1, 2)
        return t @ t.transpose(1, 2) if self.attention is None else self.attention(t, t, t)[0]


@pytest.mark.parametrize("attention", [None, nn.MultiheadAttention(8, 2, batch_first=True)])
def test_products_of_two_maps_are_taken(attention):
    module = Multiplying(attention).eval()
    products = back_end.lower(module, IMAGES).products
    assert [product.module for product in products if product is not None][:1] == ["patches"]
    assert None in products
    assert all(type(product.macs) is int for product in products if product is not None)
    run = deploy.prepare(module, IMAGES, backend="executorch", threads=1)
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(run(x), module(x).detach(), rtol=1e-4, atol=1e-5)


def test_our_own_mistakes_are_not_taken_for_executorch_s(monkeypatch):
    def fails(graph_module):
        raise KeyError("ours")

    monkeypatch.setattr(back_end, "_left_over", fails)
    with pytest.raises(KeyError, match="ours"):
        back_end.lower(small_network(), IMAGES)


def test_convolutions_left_to_the_slow_kernels_are_refused():
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU())
    with pytest.raises(
        ValueError, match=r"XNNPACK must take every convolution .* does not take convolution 0; replace"
    ):
        back_end.lower(network, torch.randn(2, 1, 4, 4, 4))


class Splitting(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 4, 3)

    def forward(self, x):
        a, b = x.split([4, 4], 1)
        return self.right(torch.cat([self.left(a), b.relu()], 1))


@pytest.mark.parametrize("images", [1, 16])
def test_maps_that_are_split_keep_the_batch_size_free(images):
    module = Splitting().eval()
    run = deploy.prepare(module, torch.randn(images, 8, 6, 6), backend="executorch", threads=1)
    for batch in (1, 3, 16, 33):
        x = torch.randn(batch, 8, 6, 6)
        torch.testing.assert_close(run(x), module(x).detach(), rtol=1e-4, atol=1e-5)


class Deformable(nn.Module):
    def __init__(self):
        super().__init__()
        self.offset = nn.Conv2d(3, 18, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x):
        return torchvision.ops.deform_conv2d(x, self.offset(x), self.weight, padding=1)


def test_an_operator_that_the_runtime_lacks_is_named_with_its_module():
    with pytest.raises(ValueError, match=r"fails \(deform_conv2d in 1\): Missing out variants: .*deform_conv2d"):
        back_end.lower(nn.Sequential(nn.Identity(), Deformable()), IMAGES)


def test_a_branch_on_values_is_refused_with_its_module():
    with pytest.raises(ValueError, match=r"cannot follow that of _Branch inner\.1 "):
        back_end.lower(Branching(), IMAGES)


def test_the_file_it_writes_runs_by_its_loader(monkeypatch, lowered, tmp_path, capfd):
    monkeypatch.setattr(back_end, "lower", lambda network, example: lowered)
    artefact = back_end.write(small_network(), IMAGES, tmp_path, "float32")
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == list(artefact.files) == ["network.pte"]
    (tmp_path / "loader.py").write_text(artefact.loader)
    spec = importlib.util.spec_from_file_location("pte_loader", tmp_path / "loader.py")
    loader = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the runtime calls itself experimental
        spec.loader.exec_module(loader)
    x = torch.randn(19, 3, 8, 8)
    output = torch.from_numpy(loader.load(threads=1)(x.numpy()))
    torch.testing.assert_close(output, small_network()(x).detach(), rtol=1e-4, atol=1e-5)
