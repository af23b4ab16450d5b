import pytest
import torch

import convsmith as cs
from convsmith.nn import DropPath


@pytest.fixture(scope="module")
def mobile():
    """One normal cell behind each reduction: the wiring of the mobile network, quickly built."""
    architecture = cs.zoo.get("nasnet_a_mobile", num_classes=10)
    return architecture.replace(stages=[stage[:2] for stage in architecture.stages])


def with_reductions(architecture, change):
    """The architecture with the reductions of its last two stages changed."""
    stages = [list(stage) for stage in architecture.stages]
    for stage in stages[2:]:
        stage[0] = change(stage[0])
    return architecture.replace(stages=stages)


@pytest.mark.parametrize(
    "change",
    [
        lambda cell: cell.replace(hand_on=("previous", cell.get("hand_on")[1])),
        lambda cell: cell.replace(padding="same_counted"),
        lambda cell: cell.replace(padding="symmetric"),
    ],
)
def test_what_a_count_of_parameters_cannot_see_changes_the_output(mobile, change):
    deeper = mobile.replace(stages=[[*stage, stage[-1]] if len(stage) > 1 else stage for stage in mobile.stages])
    network, changed = (cs.create_model(a).eval() for a in (deeper, with_reductions(deeper, change)))
    changed.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert (network(x) - changed(x)).abs().max() > 1e-3 * network(x).abs().max()


def test_the_sizes_and_widths_of_the_mobile_network(mobile):
    with torch.device("meta"):
        network = cs.create_model(mobile)
        sizes = [f.shape[-1] for f in network.features(torch.empty(1, 3, 224, 224))]
    assert sizes == [56, 28, 14, 7]
    assert network.feature_strides == [4, 8, 16, 32]
    assert network.feature_channels == [44, 264, 528, 1056]


def test_paths_are_dropped_more_the_deeper_the_cell():
    large = cs.zoo.get("nasnet_a_large")
    rates = [cell.get("drop_path_rate") for stage in large.stages for cell in stage]
    assert rates == pytest.approx([0.3 * i / 22 for i in range(1, 23)])
    with torch.device("meta"):
        cifar = cs.create_model("nasnet_a_cifar")
        mobile = cs.create_model("nasnet_a_mobile")
    assert {m.rate for m in cifar.stages[2][6].modules() if isinstance(m, DropPath)} == {0.4}
    assert not [m for m in mobile.modules() if isinstance(m, DropPath)]


@pytest.mark.parametrize("side", [8, 32])
def test_small_images_are_taken_with_the_same_parameters_all_of_them_trained(side):
    mobile = cs.zoo.get("nasnet_a_mobile", num_classes=10, in_channels=1)
    network, large = cs.create_model(cs.zoo.for_small_inputs(mobile, side)), cs.create_model(mobile)
    network(torch.randn(2, 1, side, side)).square().sum().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in large.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "channels", "place", "windows"),
    [("nasnet_a_mobile", 528, (2, 4), 4), ("nasnet_a_large", 2016, (2, 6), 6), ("nasnet_a_cifar", 384, (1, 6), 4)],
)
def test_the_auxiliary_classifier_reads_windows_of_five_in_front_of_the_last_reduction(name, channels, place, windows):
    architecture = cs.zoo.get(name, aux_heads=True)
    ((stage, index, head),) = architecture.aux
    assert ((stage, index), head.get("grid")) == (place, windows)
    assert place[1] == len(architecture.stages[place[0]]) - 1
    side, classes = cs.zoo.variants()[name].input_size, head.get("num_classes")
    with torch.device("meta"):
        network = cs.create_model(architecture)
        read = network.features(torch.empty(1, 3, side, side))[stage]
    assert (read.shape[1], (read.shape[-1] - 5) // 3 + 1) == (channels, windows)
    count = sum(p.numel() for p in network.aux.parameters())
    assert count == channels * 128 + 2 * 128 + 128 * 768 * windows**2 + 2 * 768 + 769 * classes


def test_the_network_takes_every_size(mobile):
    with torch.device("meta"):
        network = cs.create_model(mobile)
        for side in (64, 65, 66, 75):
            assert network(torch.empty(2, 3, side, side + 10)).shape == (2, 10)


def test_torch_fx_follows_a_network_of_cells(mobile):
    network = cs.create_model(mobile).eval()
    traced = torch.fx.symbolic_trace(network)
    for side in (64, 75):
        x = torch.randn(1, 3, side, side)
        with torch.no_grad():
            torch.testing.assert_close(traced(x), network(x))


@pytest.mark.slow
def test_a_network_of_cells_exports(mobile):
    network = cs.create_model(mobile.replace(stages=mobile.stages[:2])).eval()
    x = torch.randn(2, 3, 32, 32)
    program = torch.export.export(network, (x,), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x))
