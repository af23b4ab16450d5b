"""A network in int8 without training, and what that costs and gains: measured before it is called done."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from convsmith.deploy import clock, onnx
from convsmith.deploy.agreement import (
    TOLERANCES,
    Reference,
    Run,
    another_size,
    check_repeats,
    check_run,
    eager_run,
)
from convsmith.deploy.backends import Artefact
from convsmith.deploy.int8 import RUNTIMES, Int8Model, checked_batches
from convsmith.deploy.int8.folder import write_folder
from convsmith.deploy.passes.lean import lean
from convsmith.deploy.precision import without_autocast
from convsmith.deploy.silence import reason
from convsmith.deploy.snapshot import snapshot

Evaluate = Callable[[Run], float]
MOST_DIFFERENCE = 0.5  # beyond, the outputs have little to do with the network's; zeros alone would be 1
_NO_FIGURES = ("run", "write", "input_shape")


@dataclass(frozen=True)
class Quantized:
    """A network in int8, ready to run, beside the same runtime in float32.

    `float_ms` and `int8_ms` are medians for one input, measured in turns, and `speedup` is the median of the rounds'
    ratios. `largest_difference` and `mean_difference` are shares of float32's largest output, and `agreement` is the
    share of inputs with the same top class (None where the output is not (N, K)), all over the held-out inputs, or over
    the calibration's. `int8_layers` of the `layers` convolutions and matrix products that the runtime executes are in
    int8. `metric_before` and `metric_after` are what `evaluate` gave for float32 and int8.
    """

    run: Run = field(repr=False)
    backend: str
    threads: int
    float_ms: float
    int8_ms: float
    speedup: float
    largest_difference: float
    mean_difference: float
    agreement: float | None
    compared_inputs: int
    calibration_inputs: int
    int8_layers: int
    layers: int
    metric_before: float | None
    metric_after: float | None
    input_shape: tuple[int, ...]
    write: Callable[[Path], Artefact] = field(repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        """The network's output for a batch `x` of any size."""
        return self.run(x)

    @property
    def drop(self) -> float | None:
        """How much the metric fell."""
        if self.metric_before is None or self.metric_after is None:
            return None
        return self.metric_before - self.metric_after

    @property
    def figures(self) -> dict[str, object]:
        """What was measured, by name; what was not is left out."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in _NO_FIGURES}
        return {name: value for name, value in values.items() if value is not None}

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write what is shipped into a new or empty folder: the model, `loader.py`, `README.md`, `int8.json`.

        Raises ValueError when the folder is not empty.
        """
        shape = f"(N, {str(self.input_shape)[1:]}"
        summary = (
            f"For {self.backend}, quantised after training; {self.int8_layers} of its {self.layers} layers in int8."
        )
        return write_folder(Path(folder), self.write, shape, summary, self.figures)


@without_autocast
def quantize(
    module: nn.Module,
    calibration: Iterable[Tensor | Sequence[Tensor]],
    *,
    evaluate: Evaluate | None = None,
    backend: str = "onnxruntime",
    max_drop: float | None = None,
    held_out: Iterable[Tensor | Sequence[Tensor]] | None = None,
    threads: int | None = None,
) -> Quantized:
    """Quantise weights and activations to int8 (static, weights by channel) and compare with float32.

    Before that, float32 is compared with eager. The module is left untouched.

    Args:
        module: A network that takes and returns one tensor.
        calibration: Batches of inputs like the real ones, float32; some hundred inputs in all. Of tuples the first.
        evaluate: From a function that runs the network to a figure of which more is better, such as the accuracy.
        backend: `onnxruntime`, `openvino`, or `auto`: the faster of those installed that keep to `max_drop`.
        max_drop: How much the figure may fall; None leaves that to the reader.
        held_out: Batches on which to compare outputs (default: the calibration's own).
        threads: How many threads compute (default: as many as torch uses now).

    Raises ValueError for inputs that cannot calibrate, for a network that cannot be exported or quantised, and when the
    exported network differs from eager in float32, the figure falls by more than `max_drop` or the outputs no longer
    resemble float32's; ImportError for a runtime that is not installed.
    """
    names = _runtimes(backend)
    clock.check_threads(threads)
    count = torch.get_num_threads() if threads is None else threads
    if max_drop is not None and (evaluate is None or not (math.isfinite(max_drop) and max_drop >= 0)):
        raise ValueError(
            f"max_drop must be 0 or more and needs evaluate, got max_drop={max_drop} and evaluate="
            f"{'None' if evaluate is None else 'a function'}; give evaluate=, which returns the accuracy"
        )
    batches = checked_batches(calibration, "the calibration")
    compared = batches if held_out is None else checked_batches(held_out, "the held-out set")
    network = snapshot(module).cpu()
    eager = eager_run(network)
    output = check_run(eager, batches[0])
    if held_out is not None:
        check_run(eager, compared[0])
    reference = Reference(eager, batches[0], another_size(batches[0]), known=output)
    model = onnx.convert(lean(network, batches[0]), batches[0], {})
    found, refused = [], {}
    for name in names:
        try:
            found.append(_compared(name, model, (network, reference), batches, compared, evaluate, count))
            _check_drop(found[-1], max_drop)
        except ValueError as error:
            refused[name] = error
            if len(names) == 1:
                raise
    kept = [result for result in found if result.backend not in refused]
    if not kept:
        raise ValueError(f"no runtime could quantise the network: {'; '.join(map(str, refused.values()))}")
    return _fastest(kept, batches[0][:1])


def _runtimes(backend: str) -> list[str]:
    if backend != "auto" and backend not in RUNTIMES:
        raise ValueError(f"unknown runtime {backend!r} for int8; there are {', '.join(RUNTIMES)} and auto")
    names = [name for name, runtime in RUNTIMES.items() if runtime.installed and backend in (name, "auto")]
    if not names:
        extra = "onnx" if backend == "auto" else RUNTIMES[backend].extra
        raise ImportError(f"quantising by {backend} needs packages that are missing; pip install 'convsmith[{extra}]'")
    return names


def _compared(
    name: str,
    model: bytes,
    expected: tuple[nn.Module, Reference],
    batches: list[Tensor],
    held_out: list[Tensor],
    evaluate: Evaluate | None,
    threads: int,
) -> Quantized:
    runtime = RUNTIMES[name]
    plain = runtime.load(model, threads)
    _check_float(name, plain, *expected)
    int8 = runtime.quantize(model, batches, threads)
    if not int8.int8_layers:
        raise ValueError(f"{name} found no layer to quantise among {int8.layers}; the network stays in float32")
    largest, mean, agreement = _difference(plain, int8, held_out)
    one = batches[0][:1]
    timings = clock.measure(
        {"float": partial(plain, one), "int8": partial(int8.run, one)}, rounds=15, budget_seconds=5.0
    )
    ratios = zip(timings["float"].samples_ms, timings["int8"].samples_ms, strict=True)
    return Quantized(
        run=int8.run,
        backend=name,
        threads=threads,
        float_ms=timings["float"].median_ms,
        int8_ms=timings["int8"].median_ms,
        speedup=statistics.median(before / after for before, after in ratios),
        largest_difference=largest,
        mean_difference=mean,
        agreement=agreement,
        compared_inputs=sum(map(len, held_out)),
        calibration_inputs=sum(map(len, batches)),
        int8_layers=int8.int8_layers,
        layers=int8.layers,
        metric_before=None if evaluate is None else _metric(evaluate, plain),
        metric_after=None if evaluate is None else _metric(evaluate, int8.run),
        input_shape=tuple(one.shape[1:]),
        write=int8.write,
    )


def _check_float(name: str, plain: Run, network: nn.Module, reference: Reference) -> None:
    """Raise ValueError where a runtime does not compute in float32 what eager does: int8 is compared with that."""
    tolerance = TOLERANCES[torch.float32]
    try:
        difference = reference.difference(plain)
    except RuntimeError as error:
        raise ValueError(
            f"{name} must run the exported network at any batch size, and fails ({reason(error)}); choose another "
            "runtime"
        ) from error
    if not difference <= tolerance:
        check_repeats(network, reference.pairs[0][0], tolerance)
        raise ValueError(
            f"the exported network may differ from eager by {tolerance:g} of the largest output, and differs by "
            f"{difference:.2g} in {name}; nothing was quantised; choose another runtime, or export in float64 to find "
            "the cause"
        )


def _difference(plain: Run, int8: Int8Model, batches: list[Tensor]) -> tuple[float, float, float | None]:
    """The largest and the mean difference as shares of the largest float32 output, and how often the top class agrees.

    Batch by batch, so that the outputs of a large held-out set need no memory.
    """
    scale = largest = total = size = 0.0
    values = same = inputs = 0
    for expected, actual in _outputs(plain, int8, batches):
        difference = (actual - expected).abs()
        scale = max(scale, expected.abs().max().item())
        largest = max(largest, difference.max().item())
        total, values = total + difference.sum().item(), values + difference.numel()
        size += expected.abs().sum().item()
        if expected.dim() == 2:
            same, inputs = same + int((actual.argmax(1) == expected.argmax(1)).sum()), inputs + len(expected)
    if total > MOST_DIFFERENCE * size:
        raise ValueError(
            f"the differences of int8 to float32 may sum to {MOST_DIFFERENCE:g} of the outputs, and sum to "
            f"{total / (size or 1.0):.2g}; calibrate with inputs like the real ones, and check that maps do not vanish"
        )
    scale = scale or 1.0
    return largest / scale, total / values / scale, same / inputs if inputs else None


def _outputs(plain: Run, int8: Int8Model, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in batches:
        expected, actual = plain(batch), int8.run(batch)
        if actual.shape != expected.shape or not (actual.isfinite().all() and expected.isfinite().all()):
            raise ValueError(
                f"outputs in float32 and int8 must be finite and of one shape, got {tuple(expected.shape)} and "
                f"{tuple(actual.shape)}; check the network's weights"
            )
        yield expected.double(), actual.double()


def _metric(evaluate: Evaluate, run: Run) -> float:
    value = float(evaluate(run))
    if not math.isfinite(value):
        raise ValueError(f"evaluate must return a finite number, got {value}")
    return value


def _check_drop(result: Quantized, max_drop: float | None) -> None:
    drop = result.drop
    if max_drop is not None and drop is not None and drop > max_drop:
        raise ValueError(
            f"in int8 the metric may fall by {max_drop:g}, and by {result.backend} it falls by {drop:.4g}, from "
            f"{result.metric_before:.4g} to {result.metric_after:.4g}; calibrate with more inputs, or stay in float32"
        )


def _fastest(results: list[Quantized], one: Tensor) -> Quantized:
    if len(results) == 1:
        return results[0]
    calls = {result.backend: partial(result.run, one) for result in results}
    timings = clock.measure(calls, rounds=15, budget_seconds=5.0)
    return min(results, key=lambda result: timings[result.backend].median_ms)
