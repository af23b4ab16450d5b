"""The folder of a training run: what it is, what it has reached, and whether a call may go on with it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import convsmith
from convsmith.arch import dump_spec, write_whole
from convsmith.arch.differences import differences, shown
from convsmith.network import load_weights, save_weights
from convsmith.train.checkpoint import load_checkpoint, save_checkpoint

FORMAT = "convsmith/run/1"
METRICS_FORMAT = "convsmith/metrics/1"

Row = dict[str, float]


class RunFolder:
    """`{run.json, checkpoints/, metrics.csv, tensorboard/, weights.safetensors, metrics.json}` of one training.

    The last two appear when the training is finished, which `finished` in run.json then says.
    """

    def __init__(self, path: Path, *, settings: dict[str, Any], seed: int, device: torch.device):
        """Start a run in the folder, or find the one that is there.

        Raises:
            ValueError: when the folder holds another run; the message names the first difference and both values.
        """
        self.path = path
        self._checkpoints = path / "checkpoints"
        self._file = path / "run.json"
        if self._file.exists():
            self._run = _read_json(self._file, FORMAT)
            self._refuse_another(settings)
        else:
            self._run = {
                "format": FORMAT,
                "kind": "train",
                "settings": settings,
                "seed": seed,
                **command(),
                "versions": versions(),
                "device": describe_device(device),
                "started": _now(),
            }
            self._write()

    @property
    def finished(self) -> bool:
        """Whether the training has come to its end."""
        return "finished" in self._run

    def restore(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> list[Row]:
        """Load the newest checkpoint and return the history up to it; a new run gets its checkpoint of epoch 0.

        That one holds the weights a training starts from, so that a run killed in its first epoch goes on from the
        same ones, however the next call made its network.
        """
        state = load_checkpoint(self._checkpoints)
        if state is None:
            self.save_epoch(network, optimizer, [])
            return []
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        history: list[Row] = state["history"]
        return history

    def save_epoch(self, network: nn.Module, optimizer: torch.optim.Optimizer, history: list[Row]) -> None:
        """Write the checkpoint behind the last row of the history, and metrics.csv."""
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
        save_checkpoint(self._checkpoints, len(history), state)
        self._write_table(history)

    def finish(self, network: nn.Module, history: list[Row], metrics: Row) -> None:
        """Write the final weights and metrics, then that the run is finished."""
        self._write_table(history)
        save_weights(network, self.path / "weights.safetensors")
        document = {"format": METRICS_FORMAT, "validation": metrics, "history": history}
        write_whole(self.path / "metrics.json", json.dumps(document, indent=1) + "\n")
        self._run["finished"] = _now()
        self._write()

    def load_result(self, network: nn.Module) -> tuple[list[Row], Row]:
        """Load the final weights into the network; the history and the validation metrics of a finished run."""
        load_weights(network, self.path / "weights.safetensors")
        document = _read_json(self.path / "metrics.json", METRICS_FORMAT)
        return document["history"], document["validation"]

    def _refuse_another(self, settings: dict[str, Any]) -> None:
        if self._run.get("kind") != "train":
            raise ValueError(f"{self.path} holds a run of kind {self._run.get('kind')!r}; give another run_dir")
        difference = next(differences(self._run["settings"], json.loads(json.dumps(settings))), None)
        if difference is not None:
            where, there, here = difference
            reason = " (the learning rate of every step depends on it)" if where == "recipe.epochs" else ""
            raise ValueError(
                f"{self.path} holds a run with {where} = {shown(there)}, and this call has {shown(here)}{reason}; "
                "give another run_dir, or the same settings to resume"
            )

    def _write_table(self, history: list[Row]) -> None:
        # Written anew each time, so that a resumed run has each epoch once.
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(history[0]) if history else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_whole(self.path / "metrics.csv", text.getvalue())

    def _write(self) -> None:
        write_whole(self._file, json.dumps(self._run, indent=1) + "\n")


def describe_network(network: nn.Module) -> dict[str, Any]:
    """The architecture file of a network as plain data; of a module without one, its class and weights' shapes."""
    architecture = getattr(network, "architecture", None)
    if architecture is not None:
        document: dict[str, Any] = json.loads(architecture.to_json())
        return {key: value for key, value in document.items() if key not in ("reference", "found_by")}
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    return {"module": f"{type(network).__module__}.{type(network).__qualname__}", "weights": shapes}


def describe_task(task: Any) -> dict[str, Any]:
    """A task's class and fields as plain data; TypeError unless it is a dataclass."""
    if not dataclasses.is_dataclass(task):
        raise TypeError(
            f"a task must be a dataclass, so that its run can record it, got {type(task).__name__}; "
            "decorate it with @dataclass(frozen=True)"
        )
    fields = {field.name: dump_spec(getattr(task, field.name)) for field in dataclasses.fields(task)}
    return {"task": type(task).__name__, **fields}


def describe_device(device: torch.device) -> dict[str, Any]:
    """Kind, name and number of threads of a device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"type": device.type, "name": name, "threads": torch.get_num_threads()}


def command() -> dict[str, list[str]]:
    """`{"command": [...]}`, how this process was called, where it is the convsmith command; else nothing."""
    program = Path(sys.argv[0])
    ours = program.name == "convsmith" or program.parent.name == "convsmith"  # the script, or `python -m convsmith`
    return {"command": ["convsmith", *sys.argv[1:]]} if ours else {}


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    own = {"convsmith": convsmith.__version__, "python": platform.python_version()}
    return own | {name: version(name) for name in ("torch", "torchvision", "numpy")}


def _read_json(path: Path, expected: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); remove {path.parent} to start anew") from None
    if not isinstance(document, dict) or document.get("format") != expected:
        raise ValueError(f"{path} must have the format {expected!r}; give another run_dir")
    return document


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
