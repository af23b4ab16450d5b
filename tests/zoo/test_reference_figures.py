import pytest

import convsmith as cs

VARIANTS = cs.zoo.variants()


@pytest.mark.parametrize("name", VARIANTS)
def test_params_and_macs_are_recounted_exactly(name):
    variant = VARIANTS[name]
    cost = cs.measure.cost(cs.zoo.get(name), (1, 3, variant.input_size, variant.input_size))
    assert (cost.params, cost.macs) == (variant.params, variant.macs)
    assert not cost.uncounted


@pytest.mark.parametrize("name", VARIANTS)
def test_the_file_of_an_architecture_gives_it_back(name):
    architecture = cs.zoo.get(name)
    again = cs.Architecture.from_json(architecture.to_json())
    assert again == architecture
    assert again.reference == architecture.reference is not None


def test_names_take_a_glob():
    assert cs.zoo.names("resnet1*_v1") == ["resnet101_v1", "resnet152_v1"]
    assert cs.zoo.names("resnet1[58]*") == ["resnet18", "resnet152", "resnet152_v1"]


def test_an_unknown_name_is_told_the_close_ones():
    with pytest.raises(ValueError, match=r"unknown architecture 'resnet5'; did you mean .*'resnet50'"):
        cs.zoo.get("resnet5")


def test_other_classes_and_channels_drop_the_reference():
    architecture = cs.zoo.get("resnet18", num_classes=10, in_channels=1)
    assert architecture.reference is None
    assert (architecture.head.get("num_classes"), architecture.in_channels) == (10, 1)


def test_no_channels_are_not_three():
    with pytest.raises(ValueError, match="in_channels must be a positive int, got 0"):
        cs.create_model("resnet18", in_channels=0)
