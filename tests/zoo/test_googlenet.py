import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import convsmith as cs

sys.path.insert(0, str(Path(__file__).parent))
from peers import assert_equal_outputs, images, randomise


@pytest.mark.parametrize(("name", "params"), [("googlenet", 13_004_888), ("googlenet_paper", 13_378_280)])
def test_auxiliary_heads_are_there_when_asked_for(name, params):
    with torch.device("meta"):
        network = cs.create_model(name, aux_heads=True)
        alone = cs.create_model(name)
    assert sum(p.numel() for p in network.parameters()) == params
    assert set(network.state_dict()) - set(alone.state_dict()) == {k for k in network.state_dict() if "aux" in k}
    assert network.architecture.replace(aux=()) == alone.architecture
    x = torch.empty(2, 3, 224, 224, device="meta")
    logits, aux = network.forward_aux(x)
    assert [y.shape for y in (network(x), logits, *aux)] == [(2, 1000)] * 4


@pytest.mark.parametrize("training", [False, True])
def test_the_three_outputs_of_training_equal_torchvisions(training):
    models = pytest.importorskip("torchvision").models
    peer = models.googlenet(aux_logits=True, init_weights=False, transform_input=False, num_classes=20)
    ours = cs.create_model("googlenet", aux_heads=True, num_classes=20)
    x = images(96)
    peer = peer.double().eval()
    randomise(peer, x)
    ours = ours.double().eval()
    cs.transplant(peer.state_dict(), ours)
    for network in (peer, ours):
        network.train(training)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    peer.training = True  # torchvision computes the auxiliary outputs only then
    with torch.no_grad():
        theirs = peer(x)
        logits, (aux1, aux2) = ours.forward_aux(x)
    assert_equal_outputs(logits, theirs.logits)
    assert_equal_outputs(aux1, theirs.aux_logits1)
    assert_equal_outputs(aux2, theirs.aux_logits2)


@pytest.mark.parametrize("name", ["googlenet", "googlenet_paper"])
def test_the_gradient_of_the_auxiliary_losses_reaches_only_what_they_read(name):
    network = cs.create_model(name, aux_heads=True, num_classes=3).double()
    _, aux = network.forward_aux(images(64))
    sum(output.square().sum() for output in aux).backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    behind = ("stages.2.5.", "stages.3.", "head.")  # 4e, 5a, 5b and the main head
    assert without == {name for name, _ in network.named_parameters() if name.startswith(behind)}


@pytest.mark.parametrize("name", ["googlenet", "googlenet_paper"])
@pytest.mark.parametrize(("side", "sides"), [(8, [8, 8, 4, 2]), (32, [16, 8, 4, 2])])
def test_small_images_keep_the_auxiliary_heads_at_their_modules(name, side, sides):
    large = cs.zoo.get(name, num_classes=10, in_channels=1, aux_heads=True)
    small = cs.zoo.for_small_inputs(large, side)
    readers = [(a.stages[i][j], head) for a in (large, small) for i, j, head in a.aux]
    assert readers[:2] == readers[2:]
    network = cs.create_model(small)
    x = torch.randn(2, 1, side, side)
    logits, aux = network.forward_aux(x)
    assert [y.shape for y in (logits, *aux)] == [(2, 10)] * 3
    assert [f.shape[-1] for f in network.features(x)] == sides


def test_the_paper_form_has_the_layers_of_table_1():
    network = cs.create_model("googlenet_paper")
    kinds = [type(m).__name__ for m in network.modules()]
    assert (kinds.count("BatchNorm"), kinds.count("LocalResponseNorm"), kinds.count("MaxPool")) == (0, 2, 4)
    assert all(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d))
    # Output sizes of Table 1, column 2.
    x = torch.empty(1, 3, 224, 224)
    with torch.no_grad():
        assert [f.shape[-1] for f in network.features(x)] == [56, 28, 14, 7]
    assert network.feature_channels == [192, 480, 832, 1024]
    assert network.feature_strides == [4, 8, 16, 32]
