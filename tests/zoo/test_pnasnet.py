import pytest
import torch

import convsmith as cs
from convsmith.nn import DropPath
from convsmith.zoo.pnasnet import LARGE, MOBILE, pnasnet5
from tests.zoo.peers import assert_equal_outputs, images, randomise


def shortened(architecture):
    """Two cells in each stage, the auxiliary classifier behind those of the third one."""
    aux = [(2, 1, head) for _, _, head in architecture.aux]
    return architecture.replace(stages=[stage[:2] for stage in architecture.stages], aux=aux)


def test_parameters_are_those_of_the_paper():
    variants = cs.zoo.variants()
    assert round(variants["pnasnet5_large"].params, -5) == 86.1e6
    assert round(variants["pnasnet5_mobile"].params, -5) == 5.1e6
    # 25.0 B and 588 M in the paper: what is counted beside convolutions is not said there.
    assert variants["pnasnet5_large"].macs == pytest.approx(25.0e9, rel=0.003)
    assert variants["pnasnet5_mobile"].macs == pytest.approx(588e6, rel=0.003)


def test_the_reductions_stand_in_place_of_normal_cells():
    large = cs.zoo.get("pnasnet5_large")
    assert [len(stage) for stage in large.stages] == [1, 5, 4, 4]
    assert [[cell.get("stride") for cell in stage[:2]] for stage in large.stages[1:]] == [[2, 1]] * 3
    assert len({cell.get("operations") for stage in large.stages for cell in stage}) == 1


def test_paths_are_dropped_more_the_deeper_the_cell_in_the_large_network_alone():
    large, mobile = cs.zoo.get("pnasnet5_large"), cs.zoo.get("pnasnet5_mobile")
    rates = [cell.get("drop_path_rate") for stage in large.stages for cell in stage]
    assert rates == pytest.approx([0.4 * i / 14 for i in range(1, 15)])
    with torch.device("meta"):
        assert not [m for m in cs.create_model(mobile).modules() if isinstance(m, DropPath)]


@pytest.mark.parametrize(("settings", "side", "windows"), [(MOBILE, 224, 4), (LARGE, 331, 6)])
def test_the_auxiliary_classifier_reads_windows_of_five_in_front_of_the_last_reduction(settings, side, windows):
    architecture = pnasnet5(**settings, aux_heads=True)
    ((stage, index, head),) = architecture.aux
    assert (stage, index) == (2, len(architecture.stages[2]) - 1)
    assert head.get("grid") == windows
    with torch.device("meta"):
        network = cs.create_model(shortened(architecture))
        assert (network.features(torch.empty(1, 3, side, side))[2].shape[-1] - 5) // 3 + 1 == windows
        logits, (aux,) = network.forward_aux(torch.empty(2, 3, side, side))
    assert logits.shape == aux.shape == (2, 1000)
    assert {name.partition(".")[0] for name in network.state_dict()} == {"stem", "stages", "head", "aux"}


@pytest.mark.peers
@pytest.mark.slow
def test_pytorchcvs_network_is_the_same_at_its_sizes():
    from pytorchcv.model_provider import get_model

    peer = get_model("pnasnet5large").double().eval()
    peer.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    x = images(75, batch=2)
    randomise(peer, x)
    ours = cs.create_model("pnasnet5_large").double().eval()
    cs.transplant(peer.state_dict(), ours)
    with torch.no_grad():
        assert_equal_outputs(ours(x), peer(x))


def test_small_images_are_taken_with_the_same_parameters_all_of_them_trained():
    mobile = shortened(cs.zoo.get("pnasnet5_mobile", num_classes=10, in_channels=1, aux_heads=True))
    network, large = cs.create_model(cs.zoo.for_small_inputs(mobile, 32)), cs.create_model(mobile)
    logits, (aux,) = network.forward_aux(torch.randn(2, 1, 32, 32))
    (logits.square().sum() + aux.square().sum()).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in large.state_dict().items()}
