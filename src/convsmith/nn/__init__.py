"""Operators and blocks: plain torch modules, one family per file, registered under permanent names."""

from convsmith.nn.act import ELU, HardSwish, Identity, ReLU, ReLU6, Sigmoid, Swish, Tanh
from convsmith.nn.attention import SqueezeExcite
from convsmith.nn.cell import NasCell
from convsmith.nn.cell_operation import ActConvNorm, FactorizedReduction, StackedSeparable
from convsmith.nn.channels import round_channels
from convsmith.nn.classifier import Classifier
from convsmith.nn.conv import ConvNormAct, DepthwiseSeparable
from convsmith.nn.dense import DenseBlock, NormActConv, Transition
from convsmith.nn.drop_path import DropPath
from convsmith.nn.inception import AuxClassifier, Inception, LocalResponseNorm
from convsmith.nn.inverted_residual import InvertedResidual
from convsmith.nn.norm import BATCH_NORM, BatchNorm, GroupNorm
from convsmith.nn.pool import AvgPool, MaxPool
from convsmith.nn.residual import BasicBlock, Bottleneck
from convsmith.nn.sequence import Mixed, Sequence
from convsmith.nn.shuffle import ChannelShuffle, ShuffleUnitV1, ShuffleUnitV2

__all__ = [
    "BATCH_NORM",
    "ELU",
    "ActConvNorm",
    "AuxClassifier",
    "AvgPool",
    "BasicBlock",
    "BatchNorm",
    "Bottleneck",
    "ChannelShuffle",
    "Classifier",
    "ConvNormAct",
    "DenseBlock",
    "DepthwiseSeparable",
    "DropPath",
    "FactorizedReduction",
    "GroupNorm",
    "HardSwish",
    "Identity",
    "Inception",
    "InvertedResidual",
    "LocalResponseNorm",
    "MaxPool",
    "Mixed",
    "NasCell",
    "NormActConv",
    "ReLU",
    "ReLU6",
    "Sequence",
    "ShuffleUnitV1",
    "ShuffleUnitV2",
    "Sigmoid",
    "SqueezeExcite",
    "StackedSeparable",
    "Swish",
    "Tanh",
    "Transition",
    "round_channels",
]
