"""Operators and blocks: plain torch modules, one family per file, registered under permanent names."""

from convsmith.nn.act import ELU, HardSwish, Identity, ReLU, ReLU6, Sigmoid, Swish, Tanh
from convsmith.nn.attention import SqueezeExcite
from convsmith.nn.batch_renorm import BatchRenorm
from convsmith.nn.branches import Branches, ScaledResidual
from convsmith.nn.cell import NasCell
from convsmith.nn.cell_ends import CellAuxClassifier, CellStem
from convsmith.nn.cell_parts import ActConvNorm, ActSeparable, FactorizedReduction, StackedSeparable
from convsmith.nn.channel_graph import channel_dependency_graph, has_full_channel_receptive_field
from convsmith.nn.channels import round_channels
from convsmith.nn.classifier import Classifier
from convsmith.nn.condense import CondenseClassifier, CondenseLayer, condense_network
from convsmith.nn.condensed_conv import CondensedConv2d
from convsmith.nn.conv import ConvNormAct, DepthwiseSeparable
from convsmith.nn.conv_classifier import ConvClassifier, Dropout
from convsmith.nn.cross_device_norm import CrossDeviceBatchNorm
from convsmith.nn.decomposed import AsymmetricConv2d, BottleneckConv2d, ReducedConv2d
from convsmith.nn.deformable import DeformableBottleneck, DeformableConv2d
from convsmith.nn.dense import DenseBlock, NormActConv, Transition
from convsmith.nn.drop_path import DropPath
from convsmith.nn.encoding import ContextEncoding, Encoding
from convsmith.nn.expression_act import BINARY, UNARY, ExpressionActivation
from convsmith.nn.fractal import FractalBlock, single_column
from convsmith.nn.ghost_batch_norm import GhostBatchNorm
from convsmith.nn.global_conv import BoundaryRefinement, GlobalConv2d, LargeSeparableConv2d
from convsmith.nn.gradient_norm import GradNorm, gradient_penalty
from convsmith.nn.gradually_updated import GraduallyUpdated
from convsmith.nn.group_norm import GroupNorm, LayerNorm
from convsmith.nn.inception import AuxClassifier, Inception, LocalResponseNorm
from convsmith.nn.inception_heads import ConvAuxClassifier, EmbeddingClassifier
from convsmith.nn.interleaved import InterlacedGroupConv, InterleavedGroupConv
from convsmith.nn.interleaved_residual import InterleavedResidual
from convsmith.nn.inverted_residual import InvertedResidual
from convsmith.nn.irregular import IrregularConv2d
from convsmith.nn.learned_group import LearnedGroupConv2d, group_lasso
from convsmith.nn.moved_bins import deformable_roi_pool
from convsmith.nn.native import build_operators
from convsmith.nn.norm import BATCH_NORM, BatchNorm, MeanOnlyBatchNorm
from convsmith.nn.normalized_gradient import BlockNormalizedGradient
from convsmith.nn.poly_residual import PolyResidual
from convsmith.nn.pool import AvgPool, MaxPool
from convsmith.nn.precise_batch_norm import precise_batch_norm
from convsmith.nn.residual import BasicBlock, Bottleneck
from convsmith.nn.roi import DeformablePSRoIPool, DeformableRoIPool
from convsmith.nn.root import RootModule, group_schedule
from convsmith.nn.se_bottleneck import SENetBottleneck
from convsmith.nn.separable_bottleneck import DepthwiseBottleneck, SeparableBottleneck, WaterfallBlock
from convsmith.nn.sequence import Mixed, Sequence
from convsmith.nn.shift import Shift
from convsmith.nn.shift_units import ShiftResidual, ShiftUnit
from convsmith.nn.shuffle import ChannelShuffle, ShuffleUnitV1, ShuffleUnitV2
from convsmith.nn.shuffle_deep import ShuffleUnitV2Deep, ShuffleUnitV2Star
from convsmith.nn.sub_pixel import SubPixelConv, icnr_, subpixel_to_deconvolution
from convsmith.nn.swap_norm import swap_norm
from convsmith.nn.unpool import Unpool
from convsmith.nn.upsample import Deconvolution, ResizeConv, Upsample
from convsmith.nn.weight_norm import WeightNorm, WeightNormConv2d, initialise_weight_norm
from convsmith.nn.xception import AlignedXceptionBlock, XceptionBlock

__all__ = [
    "BATCH_NORM",
    "BINARY",
    "ELU",
    "UNARY",
    "ActConvNorm",
    "ActSeparable",
    "AlignedXceptionBlock",
    "AsymmetricConv2d",
    "AuxClassifier",
    "AvgPool",
    "BasicBlock",
    "BatchNorm",
    "BatchRenorm",
    "BlockNormalizedGradient",
    "Bottleneck",
    "BottleneckConv2d",
    "BoundaryRefinement",
    "Branches",
    "CellAuxClassifier",
    "CellStem",
    "ChannelShuffle",
    "Classifier",
    "CondenseClassifier",
    "CondenseLayer",
    "CondensedConv2d",
    "ContextEncoding",
    "ConvAuxClassifier",
    "ConvClassifier",
    "ConvNormAct",
    "CrossDeviceBatchNorm",
    "Deconvolution",
    "DeformableBottleneck",
    "DeformableConv2d",
    "DeformablePSRoIPool",
    "DeformableRoIPool",
    "DenseBlock",
    "DepthwiseBottleneck",
    "DepthwiseSeparable",
    "DropPath",
    "Dropout",
    "EmbeddingClassifier",
    "Encoding",
    "ExpressionActivation",
    "FactorizedReduction",
    "FractalBlock",
    "GhostBatchNorm",
    "GlobalConv2d",
    "GradNorm",
    "GraduallyUpdated",
    "GroupNorm",
    "HardSwish",
    "Identity",
    "Inception",
    "InterlacedGroupConv",
    "InterleavedGroupConv",
    "InterleavedResidual",
    "InvertedResidual",
    "IrregularConv2d",
    "LargeSeparableConv2d",
    "LayerNorm",
    "LearnedGroupConv2d",
    "LocalResponseNorm",
    "MaxPool",
    "MeanOnlyBatchNorm",
    "Mixed",
    "NasCell",
    "NormActConv",
    "PolyResidual",
    "ReLU",
    "ReLU6",
    "ReducedConv2d",
    "ResizeConv",
    "RootModule",
    "SENetBottleneck",
    "ScaledResidual",
    "SeparableBottleneck",
    "Sequence",
    "Shift",
    "ShiftResidual",
    "ShiftUnit",
    "ShuffleUnitV1",
    "ShuffleUnitV2",
    "ShuffleUnitV2Deep",
    "ShuffleUnitV2Star",
    "Sigmoid",
    "SqueezeExcite",
    "StackedSeparable",
    "SubPixelConv",
    "Swish",
    "Tanh",
    "Transition",
    "Unpool",
    "Upsample",
    "WaterfallBlock",
    "WeightNorm",
    "WeightNormConv2d",
    "XceptionBlock",
    "build_operators",
    "channel_dependency_graph",
    "condense_network",
    "deformable_roi_pool",
    "gradient_penalty",
    "group_lasso",
    "group_schedule",
    "has_full_channel_receptive_field",
    "icnr_",
    "initialise_weight_norm",
    "precise_batch_norm",
    "round_channels",
    "single_column",
    "subpixel_to_deconvolution",
    "swap_norm",
]
