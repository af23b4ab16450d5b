"""Every variant that another library has: equal outputs after transplanting random weights and norm statistics."""

import importlib

import pytest
import torch

import convsmith as cs
from tests.zoo.peers import assert_equal_outputs, build_peer, has_peer, images, randomise

VARIANTS = {name: variant for name, variant in cs.zoo.variants().items() if has_peer(variant)}
FAMILIES = cs.zoo.families()
# The smallest member of each family and source is compared in every run, all others by `make test-peers`.
SMALLEST = {
    min((v for v in VARIANTS.values() if (FAMILIES[v.name], v.source) == group), key=lambda v: v.macs).name
    for group in {(FAMILIES[v.name], v.source) for v in VARIANTS.values()}
}


def order_of(name):
    """The name patterns of the family's file for this source, if its weights are not in our order."""
    module = importlib.import_module(f"convsmith.zoo.{FAMILIES[name]}")
    return getattr(module, "ORDERS", {}).get(VARIANTS[name].source)


def parameters():
    def marks(name):
        if name not in SMALLEST:
            return pytest.mark.peers
        return pytest.mark.slow if VARIANTS[name].macs > 2e9 else ()

    return [pytest.param(name, marks=marks(name)) for name in VARIANTS]


@pytest.mark.parametrize("name", parameters())
def test_the_outputs_equal_those_of_the_peer(name):
    variant = VARIANTS[name]
    size = 64 if variant.input_size == 224 else min(variant.input_size, 96)
    peer = build_peer(variant)
    x = images(size)
    randomise(peer, x)
    ours = cs.create_model(name).double().eval()
    cs.transplant(peer.state_dict(), ours, order=order_of(name))
    with torch.no_grad():
        assert_equal_outputs(ours(x), peer(x))
        wider = images(size + 32, batch=2)
        assert_equal_outputs(ours(wider), peer(wider))
