"""Operators and blocks: plain torch modules, one family per file, registered under permanent names."""

from convsmith.nn.act import ELU, HardSwish, Identity, ReLU, ReLU6, Sigmoid, Swish, Tanh
from convsmith.nn.attention import SqueezeExcite
from convsmith.nn.channels import round_channels
from convsmith.nn.classifier import Classifier
from convsmith.nn.conv import ConvNormAct, DepthwiseSeparable
from convsmith.nn.inverted_residual import InvertedResidual
from convsmith.nn.norm import BATCH_NORM, BatchNorm, GroupNorm
from convsmith.nn.pool import AvgPool, MaxPool
from convsmith.nn.residual import BasicBlock, Bottleneck
from convsmith.nn.sequence import Mixed, Sequence

__all__ = [
    "BATCH_NORM",
    "ELU",
    "AvgPool",
    "BasicBlock",
    "BatchNorm",
    "Bottleneck",
    "Classifier",
    "ConvNormAct",
    "DepthwiseSeparable",
    "GroupNorm",
    "HardSwish",
    "Identity",
    "InvertedResidual",
    "MaxPool",
    "Mixed",
    "ReLU",
    "ReLU6",
    "Sequence",
    "Sigmoid",
    "SqueezeExcite",
    "Swish",
    "Tanh",
    "round_channels",
]
