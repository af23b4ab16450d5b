"""The spaces: how large they are, what they contain, and that every sample is a network for its input size."""

import inspect
import math
from random import Random

import pytest
import torch

import convsmith as cs
from convsmith.measure import cost
from convsmith.network import build, output_shapes
from convsmith.search import spaces

SIZES = (4, 8, 12, 16, 28, 32, 64, 96, 224)


def sample(space, seed):
    return space.sample(Random(seed))


@pytest.mark.parametrize("name", spaces.names())
def test_every_sample_builds_and_runs_at_8x8(name):
    space = spaces.get(name, num_classes=10, in_channels=1, input_size=8)
    images = torch.randn(2, 1, 8, 8)
    for seed in range(100):
        with torch.no_grad():
            assert build(sample(space, seed))(images).shape == (2, 10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", spaces.names())
def test_the_last_map_is_at_least_2x2(name, size):
    space = spaces.get(name, num_classes=7, in_channels=3, input_size=size)
    smallest = size
    for seed in range(12):
        shapes = output_shapes(sample(space, seed), (1, 3, size, size))
        assert shapes[-1][2][-1] == (1, 7)
        smallest = min(smallest, *shapes[-2][2][-1][2:])
    assert 2 <= smallest <= 8


@pytest.mark.parametrize("name", spaces.names())
def test_a_space_survives_its_file_and_its_samples_differ(name):
    space = spaces.get(name, num_classes=10, in_channels=3, input_size=32)
    assert cs.Architecture.from_json(space.to_json()) == space
    assert len({sample(space, seed) for seed in range(50)}) == 50


def test_the_sizes_of_stages_are_as_stated():
    kinds = 2 * 3 * 2 + 2 + 2 * 2 + 2 * 2 * 2  # inverted residual, depthwise separable, basic block, bottleneck
    stage = 4 * 3 * kinds
    assert stage == 312
    for size, count in ((4, 1), (8, 2), (16, 3), (32, 4), (224, 4)):
        assert spaces.stages(input_size=size).size() == 4 * 2 * stage**count
    documented = " ".join(inspect.getdoc(spaces.stages).split())
    assert f"8 * 312**stages networks: {8 * 312**2:,} for 8 x 8 inputs, 7.6e10 from 32 x 32 on" in documented
    assert f"{8 * 312**4:.1e}" == "7.6e+10"


def test_the_size_of_mobile_is_as_stated():
    # Width, kernel size, squeeze-and-excitation, then expansion and depth; some widths round to the same.
    stages = [2 * 3 * 2, 2 * 3 * 2 * 2 * 3, *[3 * 3 * 2 * 2 * 3] * 4, 3 * 3 * 2 * 2 * 2]
    assert stages == [12, 72, 108, 108, 108, 108, 72]
    assert spaces.mobile().size() == math.prod(stages)
    assert f"{math.prod(stages):.1e}" == "8.5e+12"
    assert "12, 72, 108, 108, 108, 108 and 72 forms, 8.5e12" in " ".join(inspect.getdoc(spaces.mobile).split())


def test_mobile_contains_mobilenet_v2():
    space = spaces.mobile()
    options = dict(space.choices())
    decisions = {}
    for i, (channels, repeats) in enumerate([(16, 1), (24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1)], start=1):
        wanted = {"width": channels, "kernel_size": 3, "se_ratio": 0.0}
        if i > 1:
            wanted["expansion"] = 6.0
            lengths = [len(option) for option in options[f"stage{i}_depth"]]
            decisions[f"stage{i}_depth"] = lengths.index(repeats - 1)
        decisions |= {f"stage{i}_{what}": options[f"stage{i}_{what}"].index(value) for what, value in wanted.items()}
    found = space.resolve(decisions)
    assert found.replace(name="mobilenet_v2") == cs.zoo.get("mobilenet_v2").replace()


@pytest.mark.parametrize("space", [spaces.stages(), spaces.mobile(input_size=32)])
def test_what_is_decided_is_decided_for_a_whole_stage(space):
    for seed in range(20):
        for stage in sample(space, seed).stages:
            blocks = [block.replace(stride=1) if block.has("stride") else block for block in stage]
            assert len({block for block in blocks if block.block != "max_pool"}) == 1


def test_stages_hold_small_networks_and_large_ones():
    # resnet18 scaled to 8 x 8 has 34 million MACs.
    space = spaces.stages(in_channels=1, input_size=8)
    macs = sorted(cost(sample(space, seed), (1, 1, 8, 8)).macs for seed in range(100))
    reference = cs.zoo.for_small_inputs(cs.zoo.get("resnet18", num_classes=10, in_channels=1), 8)
    resnet18 = cost(reference, (1, 1, 8, 8)).macs
    assert macs[0] < resnet18 / 500
    assert macs[len(macs) // 2] < resnet18 / 20
    assert macs[-1] > 3e6


def test_the_stem_may_halve_the_maps():
    space = spaces.stages(input_size=32)
    sides = set()
    for option in (0, 1):
        architecture = next(
            a for a in (sample(space, s) for s in range(99)) if (a.stem[0].get("stride") == 2) == option
        )
        sides.add((option, output_shapes(architecture, (1, 3, 32, 32))[-2][2][-1][2]))
    assert sides == {(0, 4), (1, 2)}


def test_an_input_below_4x4_is_refused():
    for name in spaces.names():
        with pytest.raises(ValueError, match="input_size must be an integer of at least 4, got 3; enlarge the images"):
            spaces.get(name, num_classes=10, in_channels=1, input_size=3)


def test_names_are_looked_up():
    assert spaces.names() == ["stages", "mobile"]
    with pytest.raises(ValueError, match="unknown space 'stage'; did you mean 'stages'\\? there are stages, mobile"):
        spaces.get("stage", num_classes=10, in_channels=1, input_size=8)
