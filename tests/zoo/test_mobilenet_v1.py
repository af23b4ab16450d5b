import pytest

import convsmith as cs
from convsmith.zoo.mobilenet_v1 import mobilenet_v1


def cost(architecture, size=224):
    return cs.measure.cost(architecture, (1, 3, size, size))


@pytest.mark.parametrize(
    ("name", "millions_of_macs", "millions_of_params"),
    [
        ("mobilenet_v1", 569, 4.2),
        ("mobilenet_v1_x0_75", 325, 2.6),
        ("mobilenet_v1_x0_5", 149, 1.3),
        ("mobilenet_v1_x0_25", 41, 0.5),
    ],
)
def test_the_width_multipliers_of_table_6(name, millions_of_macs, millions_of_params):
    counted = cost(cs.zoo.get(name))
    assert (round(counted.macs / 1e6), round(counted.params / 1e6, 1)) == (millions_of_macs, millions_of_params)


@pytest.mark.parametrize(("size", "millions_of_macs"), [(224, 569), (192, 418), (160, 290), (128, 186)])
def test_the_resolution_multipliers_of_table_7(size, millions_of_macs):
    # To the million, rounded or cut: the paper has 569 for 568.7 and 290 for 290.7.
    assert abs(cost(cs.zoo.get("mobilenet_v1"), size).macs / 1e6 - millions_of_macs) < 1


def test_the_shares_of_table_2():
    network = cs.create_model("mobilenet_v1")
    macs = {name: counts.macs for name, counts in cost(network).by_module.items()}
    units = [f"stages.{i}.{j}" for i, stage in enumerate(network.stages) for j in range(len(stage))]
    pointwise, depthwise = (sum(macs[f"{unit}.{part}"] for unit in units) for part in ("pointwise", "depthwise"))
    assert (round(100 * pointwise / macs[""], 2), round(100 * depthwise / macs[""], 2)) == (94.86, 3.06)
    # The paper's params leave norms and biases out.
    weights = {name: p.numel() for name, p in network.named_parameters() if p.ndim > 1}
    inside = sum(n for name, n in weights.items() if "pointwise" in name)
    assert round(100 * inside / sum(weights.values()), 2) == 74.59


def test_the_strides_and_widths_of_table_1():
    architecture = cs.zoo.get("mobilenet_v1")
    rows = [(unit.get("out_channels"), unit.get("stride")) for stage in architecture.stages for unit in stage]
    assert rows == [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    assert cs.create_model("mobilenet_v1").feature_strides == [2, 4, 8, 16, 32]


def test_narrow_layers_keep_eight_channels():
    assert mobilenet_v1(width_multiplier=0.1).stem[0].get("out_channels") == 8


def test_small_images_lose_strides_and_nothing_else():
    architecture = cs.zoo.get("mobilenet_v1", num_classes=10)
    small = cs.zoo.for_small_inputs(architecture, 32)
    assert small.stages == architecture.stages
    assert [spec.get("stride") for spec in small.stem] == [1]
