"""The table of an architecture against the built network."""

import pytest
import torch

import convsmith as cs
from convsmith.report import architecture_rows
from convsmith.report.calls import arguments_text, layer_words
from convsmith.report.section import architecture_section
from tests.train.tiny import tiny_architecture


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2_x0_35"])
def test_rows_are_the_blocks_of_the_network(name):
    architecture = cs.zoo.get(name, num_classes=10)
    rows = architecture_rows(architecture, (3, 64, 64))
    network = cs.network.build(architecture).eval()
    outputs = {}
    for row in rows:
        module = network.get_submodule(row.path)
        module.register_forward_hook(lambda _, __, output, path=row.path: outputs.__setitem__(path, output))
        assert row.params == sum(parameter.numel() for parameter in module.parameters())
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 64))
    assert [row.output for row in rows] == [tuple(outputs[row.path].shape[1:]) for row in rows]
    assert sum(row.params for row in rows) == sum(parameter.numel() for parameter in network.parameters())
    assert sum(row.macs for row in rows) == cs.measure.cost(network, (1, 3, 64, 64)).macs
    first = rows[0]
    assert first.macs == network.get_submodule(first.path)[0].weight.numel() * 32 * 32
    assert first.output_size == f"{first.output[0]} × 32 × 32"


def test_stages_are_counted_from_one():
    rows = architecture_rows(tiny_architecture(), (1, 8, 8))
    assert [(row.path, row.stage) for row in rows] == [
        ("stem.0", "stem"), ("stages.0.0", "stage 1"), ("stages.1.0", "stage 2"), ("head", "head"),
    ]  # fmt: skip
    assert rows[-1].output_size == "4"


def test_arguments_are_those_that_differ_from_the_defaults():
    block = cs.spec(cs.nn.InvertedResidual, 24, stride=2, act="relu")
    assert arguments_text(block) == "24, stride=2, act=relu"
    normed = cs.spec(cs.nn.ConvNormAct, 8, norm=cs.spec(cs.nn.BatchNorm, eps=1e-3))
    assert arguments_text(normed) == "8, norm=batch_norm(eps=0.001)"
    assert arguments_text(cs.spec(cs.nn.ConvNormAct, 8, norm=None)) == "8, norm=None"
    assert arguments_text(cs.spec(cs.nn.Identity)) == ""


def test_the_layers_of_a_module_read_as_in_the_figures_of_the_papers():
    words = {layer_words(spec): spec.block for _, spec in cs.zoo.get("inception_v3").blocks()}
    # Szegedy et al. 2016, Fig. 7, and Fig. 10 with the channels of the released network
    split = "(1×3 384; 3×1 384)"
    assert f"1×1 320; 1×1 384 → {split}; 1×1 448 → 3×3 384 → {split}; avg 3×3 → 1×1 192" in words
    assert "3×3 384 valid; 1×1 64 → 3×3 96 → 3×3 96 valid; max 3×3 valid, stride=2" in words
    # Inception-ResNet v2, Szegedy et al. 2017, Fig. 17, without its 5 x 5 form
    residual = [layer_words(spec) for _, spec in cs.zoo.get("inception_resnet_v2").blocks() if "paths" in str(spec)]
    assert residual[10] == "(1×1 192; 1×1 128 → 1×7 160 → 7×1 192) → 1×1 1088 linear, scale=0.1"
    chain = cs.spec(
        cs.nn.Sequence, blocks=(cs.spec(cs.nn.ConvNormAct, 8, stride=2, groups=4, act="swish"), cs.spec(cs.nn.ReLU))
    )
    assert layer_words(chain) == "3×3 8 /2 groups=4 act=swish → relu"
    assert layer_words(cs.spec(cs.nn.BasicBlock, 24, stride=2)) == "24, stride=2"


def test_an_input_that_does_not_fit_leaves_the_blocks():
    with pytest.raises(ValueError, match="takes 1 channels"):
        architecture_rows(tiny_architecture(), (3, 8, 8))
    section = architecture_section(tiny_architecture, lambda _: (3, 8, 8))
    assert "takes 1 channels" in section["problem"]
    assert [stage for stage, _ in section["stages"]] == ["stem", "stage 1", "stage 2", "head"]
    assert section["stages"][1] == ("stage 1", [("basic_block", "8, stride=2", ())])
    unknown = architecture_section(tiny_architecture, lambda _: None)
    assert "does not record the size" in unknown["problem"]
    assert unknown["columns"] == []
    assert architecture_section(lambda: None, lambda _: None) is None


def test_a_block_that_is_not_registered_here_is_said():
    def load():
        return cs.Architecture.from_json(tiny_architecture().to_json().replace("basic_block", "unknown_one"))

    section = architecture_section(load, lambda _: (1, 8, 8))
    assert "unknown_one" in section["problem"]
    assert section["stages"] == []
