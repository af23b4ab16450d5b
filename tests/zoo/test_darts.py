import pytest
import torch

import convsmith as cs
from convsmith.nn import DropPath, FactorizedReduction, NasCell
from convsmith.zoo.cells import cifar_network, imagenet_network
from convsmith.zoo.darts import V1, V2, V2_NORMAL, combinations, darts, darts_cifar


def params(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "without", "with_aux"),
    [("darts_v2", 4_718_752, 5_979_528), ("darts_v2_cifar", 3_349_342, 3_825_768)],
)
def test_the_auxiliary_classifier_has_the_parameters_of_the_released_network(name, without, with_aux):
    with torch.device("meta"):
        network = cs.create_model(name, aux_heads=True)
    assert params(network) == with_aux
    assert params(network) - params(network.aux) == without


@pytest.mark.parametrize(("name", "side"), [("darts_v2", 224), ("darts_v1_cifar", 32)])
def test_the_auxiliary_classifier_reads_the_second_reduction_in_two_by_two_windows(name, side):
    architecture = cs.zoo.get(name, aux_heads=True)
    ((stage, index, head),) = architecture.aux
    cells = [cell for blocks in architecture.stages for cell in blocks if cell.block == "nas_cell"]
    assert architecture.stages[stage][index] is cells[2 * len(cells) // 3]
    assert architecture.stages[stage][index].get("stride") == 2
    with torch.device("meta"):
        network = cs.create_model(architecture)
        read = network.features(torch.empty(1, 3, side, side))[stage].shape[-1]
        _, (aux,) = network.forward_aux(torch.empty(2, 3, side, side))
    assert (read - 5) // head.get("pool_stride") + 1 == head.get("grid") == 2
    assert aux.shape == (2, head.get("num_classes"))


def test_a_published_genotype_becomes_a_cell_with_its_two_inputs_swapped():
    assert combinations(V2_NORMAL) == (
        ("sep_3x3", 1, "sep_3x3", 0),
        ("sep_3x3", 1, "sep_3x3", 0),
        ("sep_3x3", 0, "skip", 1),
        ("skip", 1, "dil_3x3", 2),
    )
    with pytest.raises(ValueError, match=r"must be of none, skip_connect, .*, got conv_9x9"):
        combinations(((("conv_9x9", 0), ("none", 1)),))


def test_reductions_stand_at_one_and_two_thirds_of_the_cells():
    for name, counts in (("darts_v1", [1, 5, 5, 5]), ("darts_v1_cifar", [6, 7, 7])):
        assert [len(stage) for stage in cs.zoo.get(name).stages] == counts
    search = darts_cifar(**V2, filters=16, num_cells=8)
    strides = [cell.get("stride") for stage in search.stages for cell in stage]
    assert strides == [1, 1, 2, 1, 1, 2, 1, 1]
    with torch.device("meta"):
        assert cs.create_model("darts_v2").feature_strides == [4, 8, 16, 32]
        assert cs.create_model("darts_v2").feature_channels == [48, 192, 384, 768]


def test_every_input_of_a_cell_is_projected_once():
    """By the cell itself, or where it comes from a larger map by a reduction, in the stem or the cell before."""
    with torch.device("meta"):
        for name in ("darts_v2", "darts_v2_cifar"):
            network = cs.create_model(name)
            blocks = [block for stage in network.stages for block in stage]
            for before, cell in zip([None, *blocks], blocks, strict=False):
                if isinstance(cell, NasCell):
                    reduced = isinstance(getattr(before, "reduce", None), FactorizedReduction)
                    assert isinstance(cell.previous, torch.nn.Identity) == reduced


def test_paths_are_dropped_on_cifar_alike_in_all_cells_but_not_where_a_skip_changes_nothing():
    with torch.device("meta"):
        cifar, imagenet = (cs.create_model(name) for name in ("darts_v2_cifar", "darts_v2"))
    drops = {name: m for name, m in cifar.named_modules() if isinstance(m, DropPath)}
    assert {(m.rate, m.scheduled) for m in drops.values()} == {(0.2, True)}
    # The normal cell has six operations beside two skips; the reduction has eight, whose skips read its own states.
    assert len(drops) == 18 * 6 + 2 * 5
    assert not [m for m in imagenet.modules() if isinstance(m, DropPath)]


def test_small_images_are_taken_with_the_same_parameters_all_of_them_trained():
    imagenet = darts(**V1, filters=8, num_cells=6, num_classes=10, aux_heads=True)
    network, large = cs.create_model(cs.zoo.for_small_inputs(imagenet, 32)), cs.create_model(imagenet)
    logits, (aux,) = network.forward_aux(torch.randn(2, 3, 32, 32))
    (logits.square().sum() + aux.square().sum()).backward()
    # The last cell hands its input on to nobody; all that is built is used.
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in large.state_dict().items()}


def test_the_network_takes_every_size():
    with torch.device("meta"):
        network = cs.create_model(darts(**V2, filters=8, num_cells=6, num_classes=10))
        for side in (64, 65, 66, 75):
            assert network(torch.empty(2, 3, side, side + 10)).shape == (2, 10)


@pytest.mark.parametrize("operation", ["sep_dil_3x3", "conv_dil_3x3", "max_7x7", "avg_2x2", "conv_1x3_3x1", "dil_5x5"])
def test_a_cell_found_small_is_used_large_by_one_call(operation):
    space = cs.spec(
        NasCell,
        filters=8,
        operations=((cs.choice(operation, "none"), 0, "skip", cs.choice(0, 1)), ("sep_3x3", 2, "identity", 1)),
    )
    small = cs.Architecture(stages=[[space] * 2], name="cells")
    decisions = {f"stages.0.{i}.operations.0.{j}": j // 3 for i in range(2) for j in (0, 3)}
    found = small.resolve(decisions).stages[0][0]
    cifar = cifar_network(found, found, filters=8, repeats=(2, 1, 1), aux_grid=4)
    imagenet = imagenet_network(found, found, filters=12, repeats=(1, 1, 1), stem_channels=8, num_classes=7)
    elsewhere = darts(normal=found.get("operations"), reduction=found.get("operations"), filters=8, num_cells=6)
    for architecture, side in ((cifar, 32), (imagenet, 64), (elsewhere, 64)):
        network = cs.create_model(architecture)
        logits, aux = network.forward_aux(torch.randn(2, 3, side, side))
        (logits.square().sum() + sum(a.square().sum() for a in aux)).backward()
        assert not [name for name, p in network.named_parameters() if p.grad is None]
        assert any(cell.get("operations") == found.get("operations") for cell in architecture.stages[-1])


@pytest.mark.slow
def test_a_network_exports():
    network = cs.create_model(darts(**V2, filters=8, num_cells=3, num_classes=10)).eval()
    x = torch.randn(2, 3, 64, 64)
    program = torch.export.export(network, (x,), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x))
