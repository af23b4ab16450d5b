"""Who may import whom: the contracts of pyproject.toml, and what they cannot see because it happens at run time."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MODULES_OF_EXTRAS = {
    "photos": ["skimage"],
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
    "openvino": ["openvino", "nncf"],
    "executorch": ["executorch"],
    "tensorrt": ["torch_tensorrt"],
    "report": ["plotly", "jinja2"],
    "tensorboard": ["tensorboard"],
}
PEERS = ["timm", "pytorchcv"]


def run(code: str) -> str:
    """Standard output of the code in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_contracts_are_kept():
    pytest.importorskip("importlinter")
    command = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache', '--no-logo'])"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["convsmith", "convsmith.arch"])
def test_import_takes_the_standard_library_alone(module):
    # Compared with what the interpreter holds at its start: path files of the environment import modules too.
    code = f"import sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    loaded = {name.partition(".")[0] for name in run(code).split()}
    assert "convsmith" in loaded
    assert loaded - {"convsmith"} <= sys.stdlib_module_names


def test_every_module_imports_without_extras_and_peers():
    absent = [module for modules in MODULES_OF_EXTRAS.values() for module in modules] + PEERS
    code = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({absent}))
import convsmith
for module in pkgutil.walk_packages(convsmith.__path__, "convsmith."):
    if module.name != "convsmith.testing":  # imports pytest
        importlib.import_module(module.name)
"""
    run(code)


def test_modules_of_every_extra_are_listed_here():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert MODULES_OF_EXTRAS.keys() == extras.keys() - {"all"}
