"""A network so small that every command takes it in no time."""

import convsmith as cs
from convsmith.nn import Classifier, ConvNormAct

TINY = cs.Architecture(
    stem=[cs.spec(ConvNormAct, 4)],
    stages=[[cs.spec(ConvNormAct, 8, stride=2)]],
    head=cs.spec(Classifier, 10),
    in_channels=1,
    name="tiny",
)
