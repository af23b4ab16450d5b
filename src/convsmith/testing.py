"""Contract tests for blocks and strategies: subclass one, say what is tested, and pytest runs the contract.

class TestMyBlock(convsmith.testing.BlockContract):
    spec = convsmith.spec(MyBlock, 16, stride=2)
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from convsmith.arch import Architecture, BlockSpec, registered

FREE_ARGUMENTS = {"in_channels", "norm", "act", "dilation", "hidden_channels"}


class BlockContract:
    """What every block keeps; `spec` is the recorded call that is tested, behind `in_channels` channels."""

    spec: ClassVar[BlockSpec]
    in_channels: ClassVar[int | tuple[int, ...]] = 16
    input_size: ClassVar[int] = 16

    def build(self, device: str = "cpu", dtype: torch.dtype = torch.float64) -> nn.Module:
        """The block with seeded parameters."""
        torch.manual_seed(0)
        with torch.device(device):
            return cast(nn.Module, self.spec.build(self.in_channels).to(dtype))

    def inputs(self, device: str = "cpu", dtype: torch.dtype = torch.float64) -> Any:
        """A batch of two maps, or of two tuples of maps."""
        generator = None if device == "meta" else torch.Generator(device).manual_seed(1)
        channels = (self.in_channels,) if isinstance(self.in_channels, int) else self.in_channels
        side = self.input_size
        maps = tuple(torch.randn(2, c, side, side, device=device, dtype=dtype, generator=generator) for c in channels)
        return maps[0] if isinstance(self.in_channels, int) else maps

    def test_the_constructor_is_the_schema(self) -> None:
        """Keyword-only arguments behind the width, at most eight beside norm, act, dilation and exact widths."""
        parameters = registered(self.spec.block).signature.parameters
        positional = [p.name for p in parameters.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert positional in (["in_channels"], ["in_channels", "out_channels"], ["in_channels", "num_classes"])
        assert len(set(parameters) - FREE_ARGUMENTS - {"out_channels", "num_classes"}) <= 8

    def test_it_survives_a_file(self) -> None:
        """A file gives the same call back."""
        architecture = Architecture(stages=[[self.spec]])
        assert Architecture.from_json(architecture.to_json()).stages[0][0] == self.spec

    def test_it_builds_on_the_meta_device_and_announces_its_channels(self) -> None:
        """No tensor arithmetic in the constructor; `out_channels` is what comes out."""
        block, inputs = self.build("meta"), self.inputs("meta")
        outputs = block(inputs)
        found = tuple(map(_channels, outputs)) if isinstance(outputs, tuple) else _channels(outputs)
        assert found == block.out_channels

    def test_the_gradient_reaches_every_parameter_and_the_input(self) -> None:
        """Nothing is dead while training."""
        block, inputs = self.build().train(), self.inputs()
        maps = inputs if isinstance(inputs, tuple) else (inputs,)
        for x in maps:
            x.requires_grad_()
        outputs = _last(block(inputs))
        # Uneven weights: behind a norm, the plain sum of a map has no gradient.
        weights = torch.linspace(-1, 2, outputs.numel(), dtype=outputs.dtype).sin().view_as(outputs)
        torch.autograd.backward((outputs * weights).sum())
        leaves = [*block.named_parameters(), *((f"input {i}", x) for i, x in enumerate(maps))]
        assert not [name for name, p in leaves if p.grad is None or not p.grad.abs().max() > 0]

    def test_it_is_deterministic_in_eval_mode_and_takes_single_images(self) -> None:
        """Two passes agree, and an image's output does not depend on its batch."""
        block, inputs = self.build().eval(), self.inputs()
        with torch.no_grad():
            outputs = _last(block(inputs))
            assert torch.equal(outputs, _last(block(inputs)))
            alone = tuple(x[:1] for x in inputs) if isinstance(inputs, tuple) else inputs[:1]
            torch.testing.assert_close(_last(block(alone)), outputs[:1])

    def test_the_forward_pass_leaves_its_input_alone(self) -> None:
        """What works in place works on maps of its own."""
        inputs = self.inputs()
        before = [x.clone() for x in (inputs if isinstance(inputs, tuple) else (inputs,))]
        self.build().eval()(inputs)
        after = inputs if isinstance(inputs, tuple) else (inputs,)
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

    def test_it_exports(self) -> None:
        """A strict `torch.export` equals eager in eval mode."""
        block, inputs = self.build().eval(), self.inputs()
        program = torch.export.export(block, (inputs,), strict=True)
        with torch.no_grad():
            torch.testing.assert_close(_last(program.module()(inputs)), _last(block(inputs)))


def _channels(x: Tensor) -> int:
    return x.shape[1]


def _last(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    return outputs[-1] if isinstance(outputs, tuple) else outputs
