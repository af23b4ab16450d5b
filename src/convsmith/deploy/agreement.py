"""Whether what is shipped computes what the network computes: fresh inputs, several batch sizes, one figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from convsmith.deploy.silence import raised_by_torch
from convsmith.deploy.snapshot import required_inputs

Run: TypeAlias = Callable[[Tensor], Tensor]

# The largest difference to eager in the network's own type, as a share of eager's largest output for the input. Of a
# type with a long mantissa, some thousand roundings. bfloat16 rounds each value by up to 2 ** -9 of it: networks of the
# zoo then differ by one or two hundredths; what differs by more has lost more than roundings explain.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
BATCH_SIZES = (1, 3)
# What a forward pass raises of an input that it was not built for.
FAILURES = (RuntimeError, TypeError, ValueError, AssertionError, IndexError)


class OutputsError(ValueError):
    """A forward pass returns something else than one tensor."""

    def __init__(self, module: nn.Module, output: object):
        super().__init__(
            f"a network to deploy must return one tensor, and {type(module).__name__} returns a "
            f"{type(output).__name__}; wrap it in a module that picks one"
        )


def check_example(example: Tensor) -> None:
    """Raise ValueError for an example that cannot stand for the network's inputs."""
    if not isinstance(example, Tensor) or example.dtype not in TOLERANCES or example.dim() < 2 or not example.numel():
        shown = (
            f"{example.dtype} of shape {tuple(example.shape)}"
            if isinstance(example, Tensor)
            else type(example).__name__
        )
        raise ValueError(
            f"the example must be a floating-point tensor with a batch dimension, such as (N, C, H, W), got {shown}"
        )


def eager_run(module: nn.Module, *, any_output: bool = False) -> Run:
    """The module's own forward pass without gradients.

    Raises ValueError for a forward pass of several inputs, and the run OutputsError for an output that is not one
    tensor, unless `any_output` says that nobody reads it.
    """
    needed = required_inputs(module)
    if len(needed) > 1:
        raise ValueError(
            f"a network to deploy must take one tensor, and {type(module).__name__} takes {', '.join(needed)}; wrap it "
            "in a module that makes the others of one"
        )

    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            output = module(x)
        if not (any_output or isinstance(output, Tensor)):
            raise OutputsError(module, output)
        return output  # type: ignore[no-any-return]

    return run


def check_run(run: Run, example: Tensor) -> Tensor:
    """The output for a copy of the example; ValueError when the network does not take it."""
    try:
        return run(example.clone())
    except FAILURES as error:
        if isinstance(error, ValueError) and not raised_by_torch(error):
            raise
        raise ValueError(
            f"the network must take {example.dtype} of shape {tuple(example.shape)}, and fails ({_first_line(error)}); "
            "give an example of the shape and type that it was built for"
        ) from error


def check_repeats(module: nn.Module, example: Tensor, tolerance: float) -> None:
    """Raise ValueError where two passes over the same input differ: nothing can agree with such a network."""
    run, before = eager_run(module), {name: buffer.clone() for name, buffer in module.named_buffers()}
    difference = _difference(run(example.clone()), run(example.clone()))
    if difference <= tolerance:
        return
    changed = [name for name, buffer in module.named_buffers() if not _is_same(buffer, before.get(name))]
    what = (
        f"changes the buffer {changed[0]}" if changed else "draws random numbers or keeps something from call to call"
    )
    raise ValueError(
        "a network that is compared must give the same output for the same input, and two passes of eager differ "
        f"by {difference:.2g} of the largest output; take out what {what} in eval mode"
    )


def _is_same(buffer: Tensor, before: Tensor | None) -> bool:
    if before is None or (buffer.shape, buffer.dtype) != (before.shape, before.dtype):
        return False
    return torch.allclose(buffer, before, rtol=0, atol=0, equal_nan=True)


def noise_like(example: Tensor, batch_size: int) -> Tensor:
    """A batch of normal noise with the mean and the deviation of the example's values."""
    return next(_noise(example, (batch_size,)))


def another_size(example: Tensor) -> tuple[int]:
    """A batch size beside the example's, which tells what is fixed to that one."""
    return (2 if len(example) == 1 else 1,)


class Reference:
    """What a run gives for the example and, for each batch size, for noise of the example's mean and deviation.

    Making it raises ValueError when the run does not take one of the batch sizes, or gives a value that is not finite,
    which nothing can agree with. `known` is what the run gave for the example, where that is known.
    """

    def __init__(
        self, run: Run, example: Tensor, batch_sizes: Sequence[int] = BATCH_SIZES, *, known: Tensor | None = None
    ):
        # Copies, as a network may change its input in place.
        self.pairs = [(example.clone(), run(example.clone()) if known is None else known)]
        self.pairs += [(x, _at_its_size(run, x)) for x in _noise(example, batch_sizes)]
        if not all(y.isfinite().all() for _, y in self.pairs):
            raise ValueError(
                "the network's outputs must be finite to be verified, got NaN or infinity; check its weights"
            )

    def difference(self, candidate: Run) -> float:
        """The largest difference of another run, as a share of the reference's largest output for the same input."""
        return max(_difference(y, candidate(x.clone())) for x, y in self.pairs)

    @property
    def spread(self) -> float:
        """How far outputs differ from image to image at most, as a share of the largest output."""
        if len({y.shape[1:] for _, y in self.pairs}) > 1:
            return 1.0  # by their shapes
        images = torch.cat([y.double() for _, y in self.pairs])
        return (images.amax(0) - images.amin(0)).max().item() / (images.abs().max().item() or 1.0)

    def unseen(self, tolerance: float) -> str:
        """Why agreement within the tolerance shows nothing, if so: the same output for all inputs would agree, too."""
        spread = self.spread
        if spread > 2 * tolerance:  # a constant in the middle is half of it from each
            return ""
        return (
            f"agreement with eager within {tolerance:g} shows nothing where outputs for different inputs differ by "
            f"{spread:.1g} of the largest only, as here and with many untrained networks; load the weights first"
        )


def _at_its_size(run: Run, x: Tensor) -> Tensor:
    try:
        return run(x.clone())
    except FAILURES as error:
        raise ValueError(
            f"the network must take any batch size, and fails at {len(x)} ({_first_line(error)}); give a single image "
            "as (1, C, H, W), and images that belong together a dimension of their own, as in (N, T, C, H, W)"
        ) from error


def _first_line(error: BaseException) -> str:
    """What an error says at first."""
    return str(error).partition("\n")[0] or type(error).__name__


def _noise(example: Tensor, batch_sizes: Sequence[int]) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = example.double()
    mean, deviation = values.mean().item(), values.std(correction=0).item() or 1.0
    for batch_size in batch_sizes:
        noise = torch.randn((batch_size, *example.shape[1:]), generator=generator, dtype=torch.float64)
        yield (noise * deviation + mean).to(example)


def _difference(reference: Tensor, candidate: Tensor) -> float:
    if candidate.shape != reference.shape:
        return float("inf")
    expected = reference.double()
    scale = expected.abs().max().item() or 1.0
    difference = (candidate.to(expected) - expected).abs().max().item() / scale
    return float("inf") if difference != difference else difference  # NaN would pass as the smaller one of max()
