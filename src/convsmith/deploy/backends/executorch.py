"""ExecuTorch: PyTorch's runtime for phones and boards, its convolutions by XNNPACK (Arm and x86).

One program serves all batch sizes up to `MOST`, in pieces above that. What XNNPACK does not take runs in ExecuTorch's
portable kernels, which are plain loops: a network whose convolutions or linear layers are left to them is refused.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.arch import write_whole_bytes
from convsmith.deploy.agreement import Run
from convsmith.deploy.backends.registry import Artefact, Backend, register
from convsmith.deploy.passes.lean import lean
from convsmith.deploy.program import exported, module_of, plain
from convsmith.deploy.silence import reason, silent

FILE = "network.pte"
MOST = 8  # the largest batch of one call: memory for the maps between the delegated parts is laid out for it
HEAVY = ("convolution", "conv1d", "conv2d", "conv3d", "addmm", "linear", "mm", "bmm")
LOADER = '''"""Runs {file} with ExecuTorch; {share:.0%} of its operators are XNNPACK's."""
from pathlib import Path

import numpy
import torch
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Runtime


def load(threads=1):
    portable_lib._unsafe_reset_threadpool(threads)  # what was loaded before must be loaded anew
    method = Runtime.get().load_program(Path(__file__).with_name("{file}")).load_method("forward")
    pieces = lambda x: (torch.from_numpy(x[i : i + {most}].astype("float32")) for i in range(0, len(x), {most}))
    return lambda x: numpy.concatenate([method.execute([y])[0].numpy() for y in pieces(x)]).astype(x.dtype)
'''


@dataclass(frozen=True)
class Product:
    """A convolution or linear layer in a delegate: its module, and shapes without the batch."""

    module: str
    weight: tuple[int, ...]
    read: tuple[int, ...]
    written: tuple[int, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image: each weight is used once for each position of the map."""
        places = self.written[1:] if len(self.weight) > 2 else self.written[:-1]
        return math.prod(self.weight) * math.prod(places)


@dataclass(frozen=True)
class Lowered:
    """A program of ExecuTorch, the share of its operators that XNNPACK computes, and the others with their modules.

    `products` are the convolutions and linear layers, in the order of the program, with None where two maps are
    multiplied, as in attention, and where the batch is not the first dimension alone.
    """

    data: bytes
    most: int
    delegated_share: float
    portable: tuple[str, ...]
    products: tuple[Product | None, ...]


def prepare(network: nn.Module, example: Tensor, threads: int, precision: str) -> Run:
    """The lowered network in a runtime whose thread pool has that many threads.

    The pool is one for the whole process: where programs of several thread counts take turns, each turn makes the pool
    and loads the program anew, which takes milliseconds.
    """
    network, single = network.float(), example.float()
    loaded = Loaded(lower(network, single), single, threads)
    return lambda x: loaded(x.to(single.dtype)).to(x.dtype)


def write(network: nn.Module, example: Tensor, folder: Path, precision: str) -> Artefact:
    """The lowered network as a .pte file, which ExecuTorch's runtimes of every platform read."""
    lowered = lower(network.float(), example.float())
    write_whole_bytes(folder / FILE, lowered.data)
    loader = LOADER.format(file=FILE, share=lowered.delegated_share, most=lowered.most)
    return Artefact((FILE,), loader, ("executorch", "torch", "numpy"))


def lower(network: nn.Module, example: Tensor, *, most: int = MOST) -> Lowered:
    """The network as a program for batches up to `most`, below 16.

    Raises ValueError, naming operators and modules, for operators that ExecuTorch lacks and for convolutions and linear
    layers that XNNPACK does not take.
    """
    with silent(native=True):
        exir = importlib.import_module("executorch.exir")
        shapes = importlib.import_module("executorch.exir.passes.sym_shape_eval_pass")
        xnnpack = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    # From 16 images on, torch's convolutions take another way, which a program cannot have beside the first.
    program = exported(lean(network, example), example[:2].contiguous(), most=most)
    origins = [(_word(node.target), module_of(node)) for node in program.graph.nodes if node.op == "call_function"]
    with silent(native=True), torch.random.fork_rng(devices=[]):  # what it loads at first draws random numbers
        with _blamed(origins):
            edge = exir.to_edge_transform_and_lower(
                program,
                partitioner=[xnnpack.XnnpackPartitioner()],
                # Its check of the graph takes the example's batch size for the only one where maps are split.
                compile_config=exir.EdgeCompileConfig(_check_ir_validity=False),
            )
        share, portable, undelegated = _left_over(edge.exported_program().graph_module)
        products = tuple(_products(edge.exported_program().graph_module))
        with _blamed(origins):
            # The default lays memory out for the example's batch size.
            layout = exir.ExecutorchBackendConfig(sym_shape_eval_pass=shapes.ConstraintBasedSymShapeEvalPass())
            finished = edge.to_executorch(layout)
    if undelegated:
        raise ValueError(
            f"XNNPACK must take every convolution and linear layer, as ExecuTorch's other kernels are ten to a hundred "
            f"times slower, and does not take {', '.join(undelegated)}; replace these, or choose another back end"
        )
    return Lowered(bytes(finished.buffer), most, share, portable, products)


class Loaded:
    """A program in the runtime; it loads itself anew when the process's pool is another one than it was loaded for.

    XNNPACK keeps the pool's address: to run what was loaded before the pool was replaced ends the process.
    """

    pool = 0  # how often the pool was replaced
    lock = Lock()  # one thread at a time may replace the pool, or use it

    def __init__(self, lowered: Lowered, example: Tensor, threads: int):
        self.lowered = lowered
        self.example = example.contiguous()
        self.threads = threads
        self.loaded_for = -1
        self.method: Any = None

    def __call__(self, x: Tensor) -> Tensor:
        """The network's output for a batch of any size."""
        x = plain(x, self.example)
        with Loaded.lock:
            method = self._method()
            outputs = [method.execute([piece])[0] for piece in torch.split(x, self.lowered.most)]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _method(self) -> Any:
        pool = bindings()
        if pool._threadpool_get_thread_count() != self.threads:
            with silent(native=True):
                pool._unsafe_reset_threadpool(self.threads)
            Loaded.pool += 1
        if self.loaded_for != Loaded.pool:
            with silent(native=True):
                runtime = importlib.import_module("executorch.runtime").Runtime.get()
                self.method = runtime.load_program(self.lowered.data).load_method("forward")
            self.loaded_for = Loaded.pool
        return self.method


@cache
def bindings() -> Any:
    """ExecuTorch's functions beside its runtime."""
    with silent(native=True):  # it warns of being experimental, and its pool of processors that are not phones'
        found = importlib.import_module("executorch.extension.pybindings.portable_lib")
        found._threadpool_get_thread_count()
    return found


def _products(graph_module: Any) -> Iterator[Product | None]:
    for node in graph_module.graph.nodes:
        if _word(node.target) != "executorch_call_delegate":
            continue
        for part in getattr(graph_module, node.args[0].target).original_module.graph.nodes:
            if part.op == "call_function" and _word(part.target) in HEAVY:
                shapes = [tuple(own.meta["val"].shape) for own in part.all_input_nodes]
                fixed = [all(type(side) is int for side in shape) for shape in shapes]
                weight = next((shape for shape, own in zip(shapes, fixed, strict=True) if own and len(shape) > 1), None)
                read = next((shape for shape, own in zip(shapes, fixed, strict=True) if not own), None)
                written = tuple(part.meta["val"].shape)
                if weight is None or read is None or not (_is_batch(read) and _is_batch(written)):
                    yield None
                else:
                    yield Product(module_of(part), weight, read[1:], written[1:])


def _is_batch(shape: tuple[Any, ...]) -> bool:
    """Whether the batch size, which is a symbol, comes first and is in no other side."""
    return str(shape[0]).isidentifier() and all(type(side) is int for side in shape[1:])


def _left_over(graph_module: Any) -> tuple[float, tuple[str, ...], tuple[str, ...]]:
    """The share of operators in delegates, the other operators, and those of them that are heavy."""
    delegated, portable, heavy = 0, [], []
    for node in graph_module.graph.nodes:
        word = _word(node.target)
        if word == "executorch_call_delegate":
            inner = getattr(graph_module, node.args[0].target).original_module.graph.nodes
            delegated += sum(part.op == "call_function" and _counts(_word(part.target)) for part in inner)
        elif node.op == "call_function" and _counts(word):
            portable.append(f"{word} {module_of(node)}".strip())
            if word in HEAVY:
                heavy.append(portable[-1])
    return delegated / max(1, delegated + len(portable)), tuple(portable), tuple(heavy)


def _counts(word: str) -> bool:
    """Whether an operator computes: the others hand on results and sizes."""
    return word not in ("getitem", "sym_size", "view", "alloc", "executorch_call_delegate")


def _word(target: Any) -> str:
    """The bare name of an operator: `convolution` of `aten.convolution.default`."""
    name = str(getattr(target, "__name__", target))
    parts = name.removeprefix("aten.").split(".")
    return parts[0] if parts[0] != "default" else str(target)


@contextmanager
def _blamed(origins: list[tuple[str, str]]) -> Iterator[None]:
    """Say of what fails in the block that ExecuTorch lacks an operator; our own mistakes belong outside of it."""
    try:
        yield
    except Exception as error:
        raise ValueError(_lacking(reason(error), origins)) from error


def _lacking(reason: str, origins: list[tuple[str, str]]) -> str:
    """What to say of an operator that ExecuTorch lacks; the reason holds its name, `origins` those of its modules."""
    places = [f"{word} in {module}" for word, module in origins if module and re.search(rf"\b{word}\b", reason)]
    where = f" ({', '.join(places)})" if places else ""
    return (
        f"ExecuTorch must have every operator of the network, and fails{where}: {reason}; replace that operator, or "
        "choose another back end"
    )


EXECUTORCH = register(
    Backend("executorch", prepare, requires=("executorch",), extra="executorch", thorough=True, write=write)
)
