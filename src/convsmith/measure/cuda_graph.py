"""A forward pass recorded as a CUDA graph, which the device repeats without waiting for Python's launches."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, cuda

from convsmith.deploy.agreement import Run

WARMUP = 3  # lazy set-up and the choice of kernels are not allowed while recording


@dataclass(frozen=True)
class Recording:
    """Replays a pass over the example, whose memory and weights the graph reads: hence it holds them."""

    graph: cuda.CUDAGraph
    run: Run
    example: Tensor
    output: Tensor

    def __call__(self) -> Tensor:
        """The output, which the next replay overwrites."""
        self.graph.replay()
        return self.output


def captured(run: Run, example: Tensor) -> Recording | None:
    """The recorded pass over the example; None where it cannot be recorded (it waits for the device, say)."""
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
            # A recording that fails leaves the device's generator in it, and every random number after that refused.
            generator = cuda.default_generators[cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            return None
    return Recording(graph, run, example, output)
