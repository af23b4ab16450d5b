import math
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import Classifier, ConvNormAct, FractalBlock, MaxPool, Sequence, single_column
from tests.zoo.peers import assert_equal_outputs, images, randomise

WIDTHS = (64, 128, 256, 512, 512)


def by_rule(block, x):
    """f_{C+1} = (f_C of f_C) join conv, where a join that ends in another one is one with it: a mean of all columns."""

    def paths(columns, first, z):
        """What comes to the last join of an f_columns that starts in row `first`, on z."""
        half = 2 ** (columns - 1) // 2
        own = block.rows[first + max(2 * half, 1) - 1][str(block.columns + 1 - columns)](z)
        if columns == 1:
            return [own]
        inner = paths(columns - 1, first, z)
        return [own, *paths(columns - 1, first + half, sum(inner) / len(inner))]

    inputs = paths(block.columns, 0, x)
    return sum(inputs) / len(inputs)


def plain(block, column, x):
    """The chain of one column's convolutions, written out for eval mode."""
    for row in block.rows:
        if str(column) in row:
            conv, norm, _ = row[str(column)]
            shape = (1, -1, 1, 1)
            x = F.conv2d(x, conv.weight, padding=1)
            x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
            x = (x * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)
    return x


def voter(columns, **drop):
    """A block of which column c votes 10^c wherever it arrives: the output tells who was alive in the last join."""
    block = FractalBlock(1, 1, columns=columns, norm=None, act="identity", **drop)
    for row in block.rows:
        for column, unit in row.items():
            nn.init.zeros_(unit.conv.weight)
            nn.init.constant_(unit.conv.bias, 10.0 ** int(column))
    return block.train()


def alive(columns, output):
    """Of each image, the set of columns whose votes make this mean."""
    means = {
        sum(10.0**c for c in subset) / n: subset
        for n in range(1, columns + 1)
        for subset in combinations(range(1, columns + 1), n)
    }
    return [means[min(means, key=lambda mean: abs(mean / vote - 1))] for vote in output.flatten().tolist()]


def assert_binomial(count, trials, probability):
    """Within 4.5 standard deviations."""
    assert abs(count - trials * probability) <= 4.5 * math.sqrt(trials * probability * (1 - probability)) + 1e-9


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_the_expansion_rule_and_its_joins(columns):
    block, x = FractalBlock(4, 6, columns=columns).double(), images(8, channels=4)
    randomise(block, x)
    torch.testing.assert_close(block.eval()(x), by_rule(block, x))
    assert torch.equal(torch.fx.symbolic_trace(block)(x), block(x))
    assert sum(len(row) for row in block.rows) == 2**columns - 1


@pytest.mark.parametrize("column", [1, 2, 3])
def test_one_column_alone_is_a_plain_chain(column):
    block, x = FractalBlock(4, 6).double(), images(8, channels=4)
    randomise(block, x)
    alone = FractalBlock(4, 6, only_column=column).double().eval()
    alone.load_state_dict({name: block.state_dict()[name] for name in alone.state_dict()})
    assert sum(isinstance(m, nn.Conv2d) for m in alone.modules()) == 2 ** (column - 1)
    torch.testing.assert_close(alone(x), plain(block, column, x))


def test_drop_path_is_for_training_alone():
    torch.manual_seed(0)
    block = voter(3, local_drop_rate=0.5, global_drop_share=0.5)
    x = torch.zeros(64, 1, 1, 1)
    assert len(set(alone := alive(3, block(x)))) > 4, alone
    assert set(alive(3, block.eval()(x))) == {(1, 2, 3)}


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.9])
def test_a_join_drops_each_input_on_its_own_but_never_all(rate):
    torch.manual_seed(0)
    trials = 20_000
    found = alive(3, voter(3, local_drop_rate=rate)(torch.zeros(trials, 1, 1, 1)))
    for n in (1, 2, 3):
        for subset in combinations((1, 2, 3), n):
            probability = (1 - rate) ** n * rate ** (3 - n) + (rate**3 / 3 if n == 1 else 0)
            assert_binomial(found.count(subset), trials, probability)


def test_joins_and_images_are_drawn_independently():
    """The inner join of f_3 has two inputs; the deepest column hands its outcome on."""
    torch.manual_seed(0)
    trials = 20_000
    block = voter(3, local_drop_rate=0.3)
    nn.init.constant_(block.rows[2]["3"].conv.weight[:, :, 1, 1], 1.0)  # it reads the inner join, and adds nothing
    nn.init.constant_(block.rows[2]["3"].conv.bias, 0.0)
    nn.init.constant_(block.rows[3]["3"].conv.weight[:, :, 1, 1], 1e3)
    nn.init.constant_(block.rows[3]["3"].conv.bias, 0.0)
    outcomes = block(torch.zeros(trials, 1, 1, 1)).double().flatten()
    # Columns 1 and 2 vote 10 and 100, the deepest one 1000 times what the inner join of 100 and 1000 made.
    inner = {100.0: 0.3 * 0.7 + 0.09 / 2, 1000.0: 0.3 * 0.7 + 0.09 / 2, 550.0: 0.49}
    last = {(): (0.7 * 0.3**2 + 0.3**3 / 3, 1), (10.0,): (0.7**2 * 0.3, 2), (10.0, 100.0): (0.7**3, 3)}
    for value, p in inner.items():
        for others, (q, n) in last.items():
            expected = (1e3 * value + sum(others)) / n
            assert_binomial(int((outcomes / expected - 1).abs().lt(1e-5).sum()), trials, p * q)


def test_the_share_of_images_that_keep_one_column():
    """Whatever the turn, the images of a batch are shared out evenly; over the turns, each image is."""
    trials, size = 400, 50
    block = voter(3, global_drop_share=0.5)
    counts = {subset: [0] * size for subset in ((1,), (2,), (3,), (1, 2, 3))}
    for step in range(trials):
        block.on_step(step, trials)
        found = alive(3, block(torch.zeros(size, 1, 1, 1)))
        assert 23 <= found.count((1, 2, 3)) <= 27
        assert all(5 <= found.count((column,)) <= 12 for column in (1, 2, 3))
        for image, subset in enumerate(found):
            counts[subset][image] += 1
    for subset, of_image in counts.items():
        for count in of_image:
            assert_binomial(count, trials, 0.5 if len(subset) == 3 else 1 / 6)


def chain(**drop):
    """Two blocks of independent images: without norms, and with different depths of chain before each."""
    return Sequence(
        2, blocks=(cs.spec(FractalBlock, 3, norm=None, **drop), cs.spec(FractalBlock, 4, norm=None, **drop))
    )


def test_an_image_keeps_the_same_column_in_all_blocks():
    torch.manual_seed(0)
    network, x = chain(global_drop_share=1.0).double().train(), images(6, batch=32, channels=2)
    columns = [chain(only_column=column).double() for column in (1, 2, 3)]
    for column in columns:
        column.load_state_dict({name: network.state_dict()[name] for name in column.state_dict()})
    expected = torch.stack([column(x) for column in columns])
    kept = []
    for step in range(2):
        for block in network.blocks:
            block.on_step(step, 10)
        equal = (network(x) - expected).abs().amax((2, 3, 4)) < 1e-12
        assert (equal.sum(0) == 1).all(), "an image's output is that of exactly one column"
        kept.append(equal.double().argmax(0).tolist())
    assert set(kept[0]) == set(kept[1]) == {0, 1, 2}
    assert kept[0] != kept[1], "each step chooses anew"


def test_the_kept_columns_follow_the_seed_and_the_step():
    def turns(seed):
        torch.manual_seed(seed)
        block = FractalBlock(2, 2)
        return [block.on_step(step, 9) or int(block.turn) for step in range(4)]

    assert turns(1) == turns(1) != turns(2)
    assert len(set(turns(1))) == 4


def test_a_kept_column_alone_gets_the_gradient():
    block = FractalBlock(1, 1, norm=None, global_drop_share=1.0).double().train()
    block(images(6, batch=1, channels=1)).sum().backward()
    trained = {column for row in block.rows for column, unit in row.items() if unit.conv.weight.grad.any()}
    assert len(trained) == 1


def test_dropout_stands_behind_each_convolution():
    torch.manual_seed(0)
    block = FractalBlock(1, 1, columns=2, norm=None, act="identity", drop_rate=0.5).train()
    for row in block.rows:
        for unit in row.values():
            nn.init.zeros_(unit.conv.weight)
            nn.init.ones_(unit.conv.bias)
    values, counts = block(torch.zeros(1, 1, 100, 100)).unique(return_counts=True)
    assert values.tolist() == [0.0, 1.0, 2.0]  # the mean of two values of 0 or 2
    for count, probability in zip(counts.tolist(), (0.25, 0.5, 0.25), strict=True):
        assert_binomial(count, 10_000, probability)


def fractalnet(**arguments):
    widths = WIDTHS[: arguments.pop("blocks", 5)]
    return cs.Architecture(
        name="fractalnet_cifar",
        stages=[
            [cs.spec(FractalBlock, width, **arguments), cs.spec(MaxPool, kernel_size=2, padding=0)] for width in widths
        ],
        head=cs.spec(Classifier, 10),
    )


def test_counts_of_the_released_filters():
    cost = cs.measure.cost(fractalnet(), (1, 3, 32, 32))
    assert (cost.params, cost.macs) == (33_724_618, 845_222_912)


def test_the_weights_of_pytorchcv_give_its_outputs():
    from pytorchcv.models.fractalnet_cifar import CIFARFractalNet

    peer = CIFARFractalNet([64, 128], 3, [0.0, 0.0], 0.15, 0.5).double().eval()
    peer.output = nn.Identity()
    x = images(8)
    randomise(peer, x)
    network = cs.create_model(fractalnet(blocks=2).replace(head=None)).double().eval()
    cs.transplant(peer.state_dict(), network)
    assert_equal_outputs(network(x).flatten(1), peer(x))


def test_a_column_of_a_network_is_a_network():
    architecture = fractalnet(blocks=2, global_drop_share=0.5).replace(
        neck=[cs.spec(Sequence, blocks=(cs.spec(FractalBlock, 8, columns=2),))]
    )
    whole = cs.create_model(architecture).double().eval()
    x = images(16)
    randomise(whole, x)
    column = single_column(architecture, 2)
    network = cs.create_model(column).double().eval()
    network.load_state_dict({name: whole.state_dict()[name] for name in network.state_dict()})
    y = x
    for stage in whole.stages:
        y = F.max_pool2d(plain(stage[0], 2, y), 2)
    y = plain(whole.neck[0].blocks[0], 2, y)
    torch.testing.assert_close(network(x), whole.head(y))
    assert cs.Architecture.from_json(column.to_json()) == column


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FractalBlock(4, 4, kernel_size=2), "kernel_size must be odd here, got kernel_size=2; take 3"),
        (lambda: FractalBlock(4, 4, columns=0), "at least one column, got columns=0"),
        (lambda: FractalBlock(4, 4, only_column=4), r"one of the columns 1 \(the shallowest\) to 3, got 4"),
        (lambda: FractalBlock(4, 4, only_column=0), "to 3, got 0"),
        (lambda: FractalBlock(4, 4, local_drop_rate=1.0), "below 1.*got local_drop_rate=1.0"),
        (lambda: FractalBlock(4, 4, global_drop_share=1.5), "global_drop_share=1.5"),
        (lambda: single_column(cs.Architecture(stages=[[cs.spec(ConvNormAct, 4)]]), 1), "must have a fractal block"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
