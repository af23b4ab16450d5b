import subprocess
import sys

import pytest
import torch

from convsmith import deploy
from tests.deploy.backends.networks import IMAGES, small_network


def test_it_is_known_without_being_imported():
    code = """
import sys
from convsmith import deploy
print("tensorrt" in deploy.backends.names(), "torch_tensorrt" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_where_it_is_missing_the_error_names_the_extra():
    if "tensorrt" in deploy.backends.installed():
        pytest.skip("Torch-TensorRT is installed")
    with pytest.raises(ImportError, match=r"pip install 'convsmith\[tensorrt\]'"):
        deploy.prepare(small_network(), IMAGES, backend="tensorrt")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("float16", 2e-2)])
def test_it_agrees_with_eager_at_any_batch_size(precision, tolerance):
    pytest.importorskip("torch_tensorrt")
    module = small_network().cuda()
    run = deploy.prepare(module, IMAGES.cuda(), backend="tensorrt", precision=precision)
    for batch in (1, 5, 70):
        x = torch.randn(batch, 3, 8, 8, device="cuda")
        expected = module(x).detach()
        torch.testing.assert_close(run(x), expected, rtol=0, atol=tolerance * expected.abs().max().item())
