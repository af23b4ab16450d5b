"""Contract tests for blocks and strategies: subclass one, say what is tested, and pytest runs the contract.

class TestMyBlock(convsmith.testing.BlockContract):
    spec = convsmith.spec(MyBlock, 16, stride=2)
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from convsmith.arch import Architecture, BlockSpec, choice, open_choices, registered, spec
from convsmith.nn import BasicBlock, ConvNormAct, InvertedResidual, Sequence
from convsmith.search import Constraint, History, Report, Strategy, Trial, search
from convsmith.search.strategies import Random as RandomStrategy, StatefulStrategy

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
        outputs = block(inputs)
        # Uneven weights: behind a norm, the plain sum of a map has no gradient.
        torch.autograd.backward(
            [(x * _waves(x)).sum() for x in (outputs if isinstance(outputs, tuple) else (outputs,))]
        )
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


# A table of 16,384 networks; its score is smooth: each choice moves it by the square of its distance from the best one.
TABLE = Architecture(
    name="table",
    stages=[[spec(ConvNormAct, choice(8, 16, 24, 32, name=f"width{i}")) for i in range(7)]],
)
BEST_WIDTHS = (16, 32, 8, 24, 16, 24, 8)
# Choices inside of options: what is open depends on what is decided.
CONDITIONAL = Architecture(
    name="conditional",
    stages=[
        [
            choice(
                spec(BasicBlock, choice(8, 16), se_ratio=choice(0.0, 0.25)),
                spec(InvertedResidual, 16, kernel_size=choice(3, 5, 7), expansion=choice(2.0, 4.0)),
            ),
            choice(spec(ConvNormAct, 8), spec(Sequence, blocks=(spec(ConvNormAct, choice(8, 16)),) * 2)),
        ]
    ],
)


def table_score(architecture: Architecture, *, seed: int, report: Report) -> dict[str, float]:
    """The score of a network of `TABLE`, 0 at best, and the sum of its widths."""
    widths = [cast(int, block.get("out_channels")) for block in architecture.stages[0]]
    distances = [(width - best) / 8 for width, best in zip(widths, BEST_WIDTHS, strict=True)]
    return {"score": -sum(distance**2 for distance in distances), "width": float(sum(widths))}


class StrategyContract:
    """What every strategy keeps; `make()` gives a fresh one, with settings that suit a search of fifty trials."""

    make: Callable[[], Strategy]

    def proposals(self, space: Architecture, seed: int, trials: int) -> list[dict[str, int]]:
        """What the strategy proposes in a row, each proposal evaluated before the next one."""
        strategy, history, proposed = self.make(), History("score"), []
        for number in range(trials):
            decisions = strategy.ask(space, history, Random(f"{seed}:{number}"))
            proposed.append(decisions)
            history.record(_scored(number, decisions))
        return proposed

    def test_a_seed_decides_everything(self) -> None:
        """Same seed, same proposals; another seed, others."""
        first, again, other = (self.proposals(CONDITIONAL, seed, 40) for seed in (0, 0, 1))
        assert first == again
        assert first != other

    def test_it_decides_the_open_choices_and_no_others(self) -> None:
        """Also where what is open depends on other decisions."""
        for decisions in self.proposals(CONDITIONAL, 0, 60):
            assert decisions.keys() == open_choices(CONDITIONAL, decisions).keys()
            CONDITIONAL.resolve(decisions)

    def test_it_leaves_the_history_alone(self) -> None:
        """Earlier proposals stay what they were."""
        strategy, history = self.make(), History("score")
        for number in range(40):
            before = copy.deepcopy(list(history))
            decisions = strategy.ask(TABLE, history, Random(number))
            assert list(history) == before
            history.record(_scored(number, decisions))

    def test_a_fresh_strategy_proposes_the_same_next(self) -> None:
        """All that a strategy knows is the history and its `state_dict`."""
        strategy, history = self.make(), History("score")
        for number in range(40):
            fresh = self.make()
            if isinstance(strategy, StatefulStrategy):
                cast(StatefulStrategy, fresh).load_state_dict(copy.deepcopy(strategy.state_dict()))
            copied = History("score", history)
            proposed = fresh.ask(TABLE, copied, Random(number))
            assert strategy.ask(TABLE, history, Random(number)) == proposed
            history.record(_scored(number, proposed, failed=number % 7 == 3))

    def test_a_resumed_search_ends_as_an_uninterrupted_one(self, tmp_path: Path) -> None:
        """Three starts with a fresh strategy each make the same trials as one."""
        for trials in (7, 20, 40):
            resumed = search(
                TABLE, self.make(), table_score, trials=trials, objective="score", run_dir=tmp_path / "resumed"
            )
        once = search(TABLE, self.make(), table_score, trials=40, objective="score", run_dir=tmp_path / "once")
        assert [(t.number, t.decisions, t.metrics) for t in resumed] == [
            (t.number, t.decisions, t.metrics) for t in once
        ]

    def test_it_respects_constraints(self) -> None:
        """What violates a measured constraint is never evaluated, and what is complete violates none."""

        def width(architecture: Architecture) -> float:
            return table_score(architecture, seed=0, report=lambda step, value: None)["width"]

        def evaluate(architecture: Architecture, *, seed: int, report: Report) -> dict[str, float]:
            assert width(architecture) <= 128
            return table_score(architecture, seed=seed, report=report)

        constraints = [Constraint("width", maximum=128, measure=width)]
        history = search(TABLE, self.make(), evaluate, trials=30, objective="score", constraints=constraints)
        assert len(history.complete) == 30
        assert {trial.state for trial in history} == {"complete", "infeasible"}


class GuidedStrategyContract(StrategyContract):
    """What a strategy keeps that learns from the history."""

    def test_it_beats_random_search(self) -> None:
        """On a smooth table, by far more than chance: twice the standard error of the mean over 20 seeds."""
        margins = torch.tensor(
            [self._best(self.make(), seed) - self._best(RandomStrategy(), seed) for seed in range(20)]
        )
        assert margins.mean() > 2 * margins.std() / len(margins) ** 0.5

    def _best(self, strategy: Strategy, seed: int) -> float:
        history = search(TABLE, strategy, table_score, trials=50, objective="score", seed=seed)
        assert history.best is not None
        return history.score(history.best)


def _scored(number: int, decisions: dict[str, int], failed: bool = False) -> Trial:
    # Some options are better than others, in any space.
    metrics = {} if failed else {"score": -float(sum(decisions.values()))}
    return Trial(number, dict(decisions), "failed" if failed else "complete", metrics)


def _waves(x: Tensor) -> Tensor:
    return torch.linspace(-1, 2, x.numel(), dtype=x.dtype).sin().view_as(x)


def _channels(x: Tensor) -> int:
    return x.shape[1]


def _last(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    return outputs[-1] if isinstance(outputs, tuple) else outputs
