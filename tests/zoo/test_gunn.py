import pytest
import torch

import convsmith as cs
from tests.zoo.peers import images

GUNN15 = ((240, 20), (300, 25), (360, 30))
GUNN18 = ((400, 10), (800, 20), (1600, 40), (2000, 50))


def layer_by_hand(channels, segments, *, shortcut):
    """Weights of the convolutions, and channels of the norms, of one gradually updated layer."""
    width = channels // segments
    hidden = 2 * width
    weights = channels * hidden + 9 * hidden**2 + hidden * width + shortcut * channels * width
    return segments * weights, segments * (2 * hidden + width + shortcut * width)


def by_hand(stages, *, stem, pools_behind, size, last, classes):
    """Parameters and multiply-accumulates behind the stem, whose own are given."""
    params, macs = stem
    width = 64
    for i, (channels, segments) in enumerate(stages):
        before, size = size, size // 2 if i else size
        weights, norms = layer_by_hand(channels, segments, shortcut=pools_behind)
        params += width * channels + 2 * channels + weights + 2 * norms
        macs += width * channels * (before if pools_behind else size) ** 2 + weights * size**2
        width = channels
    if last:
        params += width * last + 2 * last
        macs += width * last * size**2
    return params + width * classes + classes, macs + width * classes


def test_figures_are_counted_by_hand_and_the_papers():
    small, large = (cs.zoo.variants()[name] for name in ("gunn15_cifar", "gunn18"))
    stem = 27 * 64
    assert (small.params, small.macs) == by_hand(
        GUNN15, stem=(stem + 128, stem * 32**2), pools_behind=True, size=32, last=360, classes=10
    )
    stem = 147 * 64
    assert (large.params, large.macs) == by_hand(
        GUNN18, stem=(stem + 128, stem * 112**2), pools_behind=False, size=56, last=0, classes=1000
    )
    assert (round(small.params, -5), round(large.params, -5)) == (1.6e6, 28.9e6)
    hundred = cs.measure.cost(cs.zoo.get("gunn15_cifar", num_classes=100), (1, 3, 32, 32))
    assert hundred.params == 1_618_236


@pytest.mark.parametrize(
    ("name", "strides", "widths"),
    [("gunn15_cifar", [1, 2, 4], [240, 300, 360]), ("gunn18", [4, 8, 16, 32], [400, 800, 1600, 2000])],
)
def test_stages_end_with_the_updated_maps(name, strides, widths):
    with torch.device("meta"):
        network = cs.create_model(name)
    assert (network.feature_strides, network.feature_channels) == (strides, widths)
    assert all(stage[-1].block == "gradually_updated" for stage in cs.zoo.get(name).stages)


def test_shortcuts_are_for_cifar_alone():
    shortcuts = [
        {stage[-1].get("shortcut") for stage in cs.zoo.get(name).stages} for name in ("gunn15_cifar", "gunn18")
    ]
    assert shortcuts == [{True}, {False}]


def test_the_first_stage_trains_all_its_parameters():
    architecture = cs.zoo.get("gunn15_cifar", in_channels=1)
    network = cs.create_model(architecture.replace(stages=architecture.stages[:1]))
    network(images(8, batch=2, channels=1).float()).square().sum().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_small_images_are_taken():
    with torch.device("meta"):
        large = cs.create_model(cs.zoo.for_small_inputs(cs.zoo.get("gunn18", num_classes=10), 32))
        assert large(torch.empty(2, 3, 32, 32)).shape == (2, 10)


def test_a_strict_export_gives_the_same_outputs():
    architecture = cs.zoo.get("gunn18")  # its first stage: the exporter takes long for each update
    network = cs.create_model(architecture.replace(stages=architecture.stages[:1])).eval()
    x = images(32, batch=2).float()
    program = torch.export.export(network, (x,), strict=True).module()
    with torch.no_grad():
        torch.testing.assert_close(program(x), network(x))
