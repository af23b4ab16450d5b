"""A space as one network that holds all candidates; each takes its weights from it by path."""

from random import Random

import torch

import convsmith as cs
from convsmith import arch
from convsmith.network import build, inherit, supernet
from convsmith.nn import Classifier, ConvNormAct, Identity, InvertedResidual

space = cs.Architecture(
    stem=[cs.spec(ConvNormAct, 16, stride=2)],
    stages=[
        [
            cs.spec(InvertedResidual, 24, stride=2, kernel_size=cs.choice(3, 5), expansion=cs.choice(2.0, 4.0)),
            cs.choice(cs.spec(InvertedResidual, 24, kernel_size=cs.choice(3, 5)), cs.spec(Identity)),
        ]
    ],
    head=cs.spec(Classifier, 10),
)
whole = build(supernet(space))
decisions = arch.random_decisions(space, Random(1))
candidate = build(space.resolve(decisions))
inherit(candidate, whole, space, decisions)
print(f"{space.size()} candidates in {sum(p.numel() for p in whole.parameters()):,} parameters")
print(decisions, "->", candidate(torch.randn(1, 3, 32, 32)).shape)
