import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import ActConvNorm, DropPath, FactorizedReduction, Identity, StackedSeparable
from convsmith.zoo.amoebanet import OF_A, OF_B, OF_C, OF_D, amoebanet
from tests.zoo.peers import assert_equal_outputs, images, randomise


@pytest.mark.parametrize(
    ("cells", "filters", "repeats", "side", "params", "macs"),
    [
        (OF_A, 190, 6, 331, "86.7", "23.1"),
        (OF_A, 50, 4, 224, "5.1", "0.555"),
        (OF_B, 62, 3, 224, "5.3", "0.555"),
        (OF_B, 196, 6, 331, "84.0", "22.3"),  # the paper says 190 filters
        (OF_C, 228, 6, 331, "155.3", "41.1"),
    ],
)
def test_the_figures_of_the_paper_to_their_rounding(cells, filters, repeats, side, params, macs):
    cost = cs.measure.cost(amoebanet(**cells, filters=filters, repeats=repeats), (1, 3, side, side))
    assert abs(cost.params / 1e6 - float(params)) <= 0.05
    assert abs(cost.macs / 1e9 - float(macs)) <= 0.5 * 10.0 ** -len(macs.partition(".")[2])


def released_pool(kind, x, kernel_size, stride):
    """TensorFlow's "same": a mean over what lies inside."""
    sides = x.shape[-2:]
    total = [max((-(-n // stride) - 1) * stride + kernel_size - n, 0) for n in sides]
    pads = [total[1] // 2, -(-total[1] // 2), total[0] // 2, -(-total[0] // 2)]
    if kind == "max":
        return F.max_pool2d(F.pad(x, pads, value=-torch.inf), kernel_size, stride)
    ones = F.pad(torch.ones_like(x), pads)
    return F.avg_pool2d(F.pad(x, pads), kernel_size, stride) / F.avg_pool2d(ones, kernel_size, stride)


def released_cell(module, row, previous, current, filters, stride, projected):
    """A cell of the released code, whose own part it is to bring the older map down; weights are those of our cell."""
    operations, used = row
    states = [module.current(current), projected(previous)]
    for k, (left, i, right, j) in enumerate(operations):
        made = []
        for side, name, state in (("left", left, i), ("right", right, j)):
            part = getattr(module.combinations[k], side)
            if isinstance(part, torch.nn.Sequential) and isinstance(part[-1], DropPath):
                part = part[0]
            step = stride if state < 2 else 1
            x = states[state]
            if name[:3] in ("max", "avg"):
                y = released_pool(name[:3], x, int(name[-1]), step)
                made.append(part[1](y) if x.shape[1] != filters else y)
            else:
                made.append(part(x))
        states.append(made[0] + made[1])
    kept = [s for s in range(len(states)) if not used[s]]
    joined = [module.joins[n](states[s]) for n, s in enumerate(kept)]
    return torch.cat(joined, 1)


USED = {  # 1: not concatenated, as the released code lists them
    "a": ([1, 0, 1, 0, 0, 1, 0], [1, 1, 0, 0, 0, 0, 0]),
    "b": ([0, 1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 0, 0]),
    "c": ([1, 0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0]),
    "d": ([0, 1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 0, 0, 0]),
}


@pytest.mark.parametrize(("letter", "cells"), [("a", OF_A), ("b", OF_B), ("c", OF_C), ("d", OF_D)])
def test_the_wiring_is_that_of_the_released_code(letter, cells):
    filters, repeats = 16, 2
    network = cs.create_model(amoebanet(**cells, filters=filters, repeats=repeats, num_classes=10)).double().eval()
    x = images(75, batch=2)
    randomise(network, x)
    normal, reduction = zip(*cells["cells"], strict=True)
    rows = ((normal, USED[letter][0]), (reduction, USED[letter][1]))
    modules = [cell for stage in network.stages for cell in stage]
    # (reduces, filters): two cells of the stem, then repeats with a reduction between them.
    plan = [(True, filters // 4), (True, filters // 2)]
    for stack in range(3):
        plan += [(True, filters * 2**stack)] * (stack > 0) + [(False, filters * 2**stack)] * repeats
    with torch.no_grad():
        outputs = [None, network.stem[0](x)]
        for k, ((reduces, width), module) in enumerate(zip(plan, modules, strict=True)):
            previous, current = outputs[-2:]
            if previous is None:
                previous, projected = current, Identity(1)
            elif previous.shape[-1] != current.shape[-1]:
                projected = modules[k - 1].reduce
                assert isinstance(projected, FactorizedReduction)
            else:
                projected = module.previous
                assert isinstance(projected, ActConvNorm) == (previous.shape[1] != width)
            stride = 2 if reduces else 1
            outputs.append(released_cell(module, rows[reduces], previous, current, width, stride, projected))
        logits = network.head(outputs[-1].relu())
        assert_equal_outputs(network(x), logits, tolerance=1e-12)


def test_paths_are_dropped_alike_in_all_cells():
    with torch.device("meta"):
        network = cs.create_model(cs.zoo.get("amoebanet_d"))
    rates = {m.rate for m in network.modules() if isinstance(m, DropPath)}
    assert rates == {0.3}
    assert all(m.scheduled for m in network.modules() if isinstance(m, DropPath))


def test_the_separable_convolution_of_b_is_dilated():
    with torch.device("meta"):
        network = cs.create_model(amoebanet(**OF_B, filters=16, repeats=1))
    (part, *_) = network.stages[0][0].combinations[2].left
    assert isinstance(part, StackedSeparable)
    assert part.first.depthwise.dilation == part.second.depthwise.dilation == (2, 2)


@pytest.mark.parametrize(("name", "windows"), [("amoebanet_a", 6), ("amoebanet_d", 5)])
def test_the_auxiliary_classifier_reads_windows_of_five(name, windows):
    architecture = cs.zoo.get(name, aux_heads=True)
    ((stage, index, head),) = architecture.aux
    assert (stage, index) == (2, 6)
    short = architecture.replace(stages=[stage[:2] for stage in architecture.stages], aux=[(2, 1, head)])
    side = cs.zoo.variants()[name].input_size
    with torch.device("meta"):
        network = cs.create_model(short)
        assert (network.features(torch.empty(1, 3, side, side))[2].shape[-1] - 5) // 3 + 1 == windows
        _, (aux,) = network.forward_aux(torch.empty(2, 3, side, side))
    assert aux.shape == (2, 1000)
    assert head.get("grid") == windows


@pytest.mark.parametrize("cells", [OF_A, OF_B, OF_C, OF_D])
def test_small_images_are_taken_with_the_same_parameters_all_of_them_trained(cells):
    small = amoebanet(**cells, filters=8, repeats=1, num_classes=10)
    network, large = cs.create_model(cs.zoo.for_small_inputs(small, 32)), cs.create_model(small)
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in large.state_dict().items()}


@pytest.mark.slow
def test_a_network_exports():
    network = cs.create_model(amoebanet(**OF_D, filters=8, repeats=1, num_classes=10)).eval()
    x = torch.randn(2, 3, 75, 75)
    program = torch.export.export(network, (x,), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x))
