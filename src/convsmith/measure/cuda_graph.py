"""A forward pass recorded as a CUDA graph, which the device repeats without waiting for Python's launches."""

from __future__ import annotations

from torch import Tensor, cuda

from convsmith.deploy.agreement import Run
from convsmith.deploy.rounds import Call

WARMUP = 3  # lazy set-up and the choice of kernels are not allowed while recording


def captured(run: Run, example: Tensor) -> Call | None:
    """Replays the pass over the example; None where it cannot be recorded (it waits for the device, say)."""
    with cuda.device(example.device):
        aside = cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(cuda.current_stream())
        with cuda.stream(aside):
            for _ in range(WARMUP):
                run(example)
        cuda.current_stream().wait_stream(aside)
        graph = cuda.CUDAGraph()
        try:
            with cuda.graph(graph):
                output = run(example)
        except RuntimeError:
            cuda.synchronize()
            return None

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay
