import pytest
import torch

import convsmith as cs
from convsmith.measure.formulas import MAC_FREE_BY_KIND
from convsmith.measure.profile import categories
from convsmith.measure.profile.categories import CATEGORIES, TABLES, category_of

# All that a network of the zoo does which is neither arithmetic on elements, nor a copy, nor a convolution.
OTHER = {"adaptive_avg_pool2d", "avg_pool2d", "avg_pool3d", "max_pool2d"}


def pointwise(operator):
    """Whether torch tags an ATen operator as one."""
    packet = getattr(torch.ops.aten, operator, None)
    return packet is not None and any(
        torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads()
    )


@pytest.mark.slow
def test_every_operator_of_the_zoo_has_a_category():
    operators = set()
    for name in cs.zoo.names():
        operators |= cs.measure.cost(cs.zoo.get(name)).by_operator.keys()
    found = {name: category_of(name, table="aten") for name in operators}
    assert {name for name, category in found.items() if category is None and not pointwise(name)} == set()
    assert {name for name, category in found.items() if category == "other"} == OTHER
    assert {"convolution", "linear", "batch_norm", "relu", "cat", "channel_shuffle"} < operators


def test_a_name_stands_in_one_category_only():
    for table, between in ((categories._ONNX, None), (categories._OPENVINO, None), (categories._XNNPACK, ",")):
        assert list(table) == [category for category in CATEGORIES if category in table]
        names = [name.strip() for names in table.values() for name in names.split(between)]
        assert len(names) == len(set(names))


def test_every_kind_of_operator_that_is_counted_has_a_category():
    for names in MAC_FREE_BY_KIND.values():
        assert {category_of(name, table="aten") for name in names.split()} <= set(CATEGORIES)
    assert set(TABLES) == {"aten", "onnx", "openvino", "xnnpack"}


@pytest.mark.parametrize(
    ("table", "operator", "category"),
    [
        ("aten", "native_batch_norm", "elementwise"),
        ("aten", "conv2d", "convolution"),
        ("aten", "addmm", "convolution"),
        ("aten", "channel_shuffle", "shuffle"),
        ("aten", "pixel_shuffle", "data"),
        ("aten", "constant_pad_nd", "data"),
        ("aten", "upsample_bilinear2d", "other"),
        ("aten", "no_such_operator", None),
        ("onnx", "FusedConv", "convolution"),
        ("onnx", "ReorderInput", "data"),
        ("onnx", "GlobalAveragePool", "other"),
        ("openvino", "ShuffleChannels", "shuffle"),
        ("openvino", "Reorder", "data"),
        ("xnnpack", "Fully Connected", "convolution"),
        ("xnnpack", "Max Pooling", "other"),
    ],
)
def test_rows(table, operator, category):
    assert category_of(operator, table=table) == category
