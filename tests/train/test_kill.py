"""`kill -9` at several moments, then the same call in a new process: the weights of the uninterrupted training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import convsmith as cs
from convsmith.train import fit
from tests.train.tiny import RECIPE, TASK, equal, noisy_network, tiny_data, tiny_network, weights

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_killed_training_resumes_exactly(tmp_path):
    command = [sys.executable, "-m", "tests.train.killed", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for make in (tiny_network, noisy_network):
        whole = weights(fit(make(), TASK, tiny_data(), RECIPE).network)
        stored = {path.parent.name: path for path in tmp_path.glob(f"{make.__name__}_*/weights.safetensors")}
        assert len(stored) == 5
        assert list(tmp_path.glob("*/checkpoints/.*")) == []
        assert [name for name, path in stored.items() if not equal(cs.network.read_weights(path), whole)] == []
