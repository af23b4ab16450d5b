"""The block contract over the whole registry: adding a block is being tested."""

import inspect

import pytest

import convsmith as cs
from convsmith.arch import BlockSpec, block_names, registered
from convsmith.nn import ConvNormAct, Identity
from convsmith.testing import BlockContract

# Arguments for blocks whose required ones are more than a width, and further calls worth the contract.
EXAMPLES: dict[str, list[dict]] = {
    "mixed": [{"options": (cs.spec(Identity), cs.spec(ConvNormAct, 16))}],
    "sequence": [{"blocks": (cs.spec(ConvNormAct, 8), cs.spec(ConvNormAct, 24, stride=2))}, {}],
    "conv_norm_act": [
        {"out_channels": 24},
        {"out_channels": 24, "kernel_size": (1, 7), "stride": 2, "groups": 8},
        {"out_channels": 24, "norm": None, "act": "swish", "dilation": 2},
    ],
    "depthwise_separable": [
        {"out_channels": 24, "mid_norm": n, "mid_act": a} for n in (True, False) for a in (True, False)
    ],
    "basic_block": [{"out_channels": 16}, {"out_channels": 24, "stride": 2, "se_ratio": 0.25}],
    "bottleneck": [
        {"out_channels": 16},
        {"out_channels": 32, "stride": 2, "groups": 2, "stride_in": "1x1", "se_ratio": 0.25},
    ],
    "inverted_residual": [
        {"out_channels": 16, "kernel_size": 5},
        {"out_channels": 24, "stride": 2, "expansion": 1.0, "se_ratio": 0.25},
    ],
    "group_norm": [{"groups": 4}],
}
# Blocks that carry several maps: the channels in front of them.
IN_CHANNELS: dict[str, tuple[int, ...]] = {}
WIDTHS = {"out_channels": 24, "num_classes": 10}


def calls() -> list[BlockSpec]:
    found = []
    for name in block_names():
        entry = registered(name)
        if not entry.constructor.__module__.startswith("convsmith."):
            continue  # blocks that other tests register
        required = [p.name for p in entry.signature.parameters.values() if p.default is inspect.Parameter.empty][1:]
        for arguments in EXAMPLES.get(name, [{}]):
            widths = {key: value for key, value in WIDTHS.items() if key in required}
            found.append(cs.spec(entry.constructor, **{**widths, **arguments}))
    return found


@pytest.mark.parametrize("call", calls(), ids=str)
class TestEveryBlock(BlockContract):
    @pytest.fixture(autouse=True)
    def _the_call(self, call):
        self.spec = call
        self.in_channels = IN_CHANNELS.get(call.block, 16)
