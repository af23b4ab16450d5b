"""The five slices of ShuffleNet v2's Fig. 2 (Ma et al. 2018, arXiv:1807.11164), and what belongs to each.

* `convolution`: what has multiply-accumulates. Convolutions, and also matrix products and fully connected steps, which
  are convolutions of a map of one pixel; with them what a runtime computes in the same kernel (bias, norm, activation).
* `elementwise`: norms, activations, additions, products, biases and conversions in a pass of their own.
* `data`: copies. Concatenation, split, padding, changes of layout, look-ups, new tensors.
* `shuffle`: channel shuffles, whether by our module, torch's or view - transpose - copy - view.
* `other`: pooling, reductions, interpolation, softmax, sorting, random numbers.

Views cost nothing and stand nowhere. The paper does not say what its slices hold beyond their names; pooling being
`other` and fully connected steps `convolution` is our reading.
"""

from __future__ import annotations

from typing import Literal, get_args

from convsmith.measure.formulas import FORMULAS, MAC_FREE_BY_KIND, SHOWN_AS

Category = Literal["convolution", "elementwise", "data", "shuffle", "other"]
CATEGORIES: tuple[Category, ...] = get_args(Category)

# fmt: off
_OF_KIND: dict[str, Category] = {  # the kinds of `formulas.MAC_FREE_BY_KIND`
    "norms": "elementwise",
    "pooling": "other",
    "interpolation": "other",
    "pointwise, without torch's tag": "elementwise",
    "softmax and dropout": "other",
    "reductions": "other",
    "copies": "data",
    "look-ups": "data",
    "order": "other",
    "new tensors": "data",
    "checks and marks": "other",
    "random numbers": "other",
}

_EXCEPTIONS: dict[str, Category] = {
    "channel_shuffle": "shuffle",
    "native_channel_shuffle": "shuffle",
    "convsmith::channel_shuffle": "shuffle",
    "native_dropout": "elementwise",
    "fused_dropout": "elementwise",
    "index_add": "elementwise",
    "transformer_encoder_layer_fwd": "convolution",
    "native_multi_head_attention": "convolution",
}

ATEN: dict[str, Category] = {
    **{name: _OF_KIND[kind] for kind, names in MAC_FREE_BY_KIND.items() for name in names.split()},
    **{shown: "convolution" for _, (shown, _) in FORMULAS.items()},
    **_EXCEPTIONS,
}
"""By the name under which `count` shows an operator; one that torch tags as pointwise needs no row."""

_ONNX: dict[Category, str] = {
    "convolution": """Conv FusedConv NhwcFusedConv ConvTranspose ConvInteger QLinearConv DeformConv Gemm FusedGemm
        QGemm MatMul FusedMatMul MatMulInteger MatMulIntegerToFloat DynamicQuantizeMatMul QLinearMatMul MatMulNBits
        Einsum Attention MultiHeadAttention GroupQueryAttention QAttention LSTM GRU RNN""",
    "elementwise": """Relu Clip LeakyRelu PRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Mish Softplus Softsign Tanh
        Gelu FastGelu BiasGelu QuickGelu Erf Exp Log Sqrt Pow Abs Neg Sign Floor Ceil Round Reciprocal Add Sub Mul Div
        Mod Sum Mean Min Max Where And Or Xor Not Equal Greater GreaterOrEqual Less LessOrEqual IsNaN IsInf Sin Cos
        BatchNormalization InstanceNormalization LayerNormalization SimplifiedLayerNormalization RMSNormalization
        SkipLayerNormalization SkipSimplifiedLayerNormalization GroupNormalization GroupNorm SkipGroupNorm
        LpNormalization MeanVarianceNormalization Dropout Cast QuantizeLinear DequantizeLinear DynamicQuantizeLinear
        QLinearAdd QLinearMul QLinearSigmoid QLinearLeakyRelu ThresholdedRelu BiasAdd BiasDropout Swish""",
    "data": """Concat QLinearConcat Split Slice Pad Transpose Reshape Flatten Squeeze Unsqueeze Expand Tile Gather
        GatherND GatherElements Scatter ScatterND ScatterElements DepthToSpace SpaceToDepth ReorderInput ReorderOutput
        Identity Constant ConstantOfShape Shape Size Range EyeLike OneHot Compress NonZero Trilu Col2Im MemcpyFromHost
        MemcpyToHost ReverseSequence CastLike""",
    "other": """MaxPool AveragePool GlobalAveragePool GlobalMaxPool GlobalLpPool LpPool MaxUnpool QLinearAveragePool
        QLinearGlobalAveragePool MaxRoiPool RoiAlign NhwcMaxPool ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd
        ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare QLinearReduceMean ArgMax ArgMin Softmax
        LogSoftmax Hardmax CumSum TopK Unique NonMaxSuppression Resize Upsample GridSample AffineGrid LRN Bernoulli
        Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike If Loop Scan""",
}

_OPENVINO: dict[Category, str] = {
    "convolution": """Convolution GroupConvolution ConvolutionBackpropData GroupConvolutionBackpropData Deconvolution
        DeformableConvolution BinaryConvolution MatMul FullyConnected Gemm Einsum ScaledDotProductAttention
        ScaledAttn MHA LSTMCell LSTMSequence GRUCell GRUSequence RNNCell RNNSequence RNNSeq AUGRUCell AUGRUSequence""",
    "elementwise": """Eltwise Subgraph Add Subtract Multiply Divide Mod FloorMod Power SquaredDifference Maximum
        Minimum Sqrt Exp Log Erf Abs Negative Sign Floor Ceiling Round Sin Cos Tan Relu ReLU LeakyRelu PRelu Elu Selu
        Sigmoid HSigmoid HardSigmoid HSwish HardSwish Swish Mish Gelu SoftPlus SoftSign Softplus Tanh Clamp Equal
        NotEqual Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalNot LogicalXor Select Convert
        FakeQuantize BatchNormInference BatchNormalization MVN NormalizeL2 GroupNormalization RMS LayerNorm PowerStatic
        MultiplyAdd IsFinite IsInf IsNaN BitwiseAnd BitwiseOr""",
    "data": """Concat Concatenation Split VariadicSplit StridedSlice Slice SliceScatter Pad Transpose Permute Reorder
        Reshape Squeeze Unsqueeze Broadcast Tile Gather GatherND GatherElements GatherTree ScatterUpdate
        ScatterElementsUpdate ScatterNDUpdate DepthToSpace SpaceToDepth BatchToSpace SpaceToBatch ExtractImagePatches
        Parameter Input Result Output Constant Const ShapeOf Range OneHot Eye NonZero Copy MemoryInput MemoryOutput
        ReverseSequence Roll Reverse Col2Im Identity""",
    "shuffle": "ShuffleChannels",
    "other": """Pooling MaxPool AvgPool AdaptiveAvgPool AdaptiveMaxPool AdaptivePooling ReduceMean ReduceSum ReduceMax
        ReduceMin ReduceProd ReduceL1 ReduceL2 Reduce Softmax SoftMax LogSoftmax TopK NonMaxSuppression Interpolate
        GridSample CumSum ROIPooling ROIAlign PSROIPooling DeformablePSROIPooling LRN Bucketize Unique
        RandomUniform Multinomial If Loop TensorIterator DetectionOutput PriorBox Proposal""",
}
_XNNPACK: dict[Category, str] = {  # the names have blanks
    "convolution": "Convolution, Deconvolution, Fully Connected, Dynamic Fully Connected, Batch Matrix Multiply",
    "elementwise": """Add, Subtract, Multiply, Divide, Maximum, Minimum, Squared Difference, Power, Abs, Negate, Square,
        Square Root, Reciprocal Square Root, Exp, Log, Sin, Cosine, Sine, Floor, Ceiling, Round, Bankers Rounding,
        Clamp, ELU, GELU, Approximate GELU, HardSwish, Leaky ReLU, PReLU, Sigmoid, Tanh, TanH, Softplus, Convert""",
    "data": """Copy, Transpose, Concatenate, Split, Static Slice, Slice, Constant Pad, Static Reshape, Reshape,
        Depth To Space, Space To Depth, Unpooling, Broadcast""",
    "other": """Max Pooling, ArgMax Pooling, Average Pooling, Global Average Pooling, Global Sum Pooling, Mean, Sum,
        Reduce, Softmax, Resize Bilinear, ResizeBilinear, Scaled Dot Product Attention, RoPE""",
}
# fmt: on


def _by_name(table: dict[Category, str], *, between: str | None = None) -> dict[str, Category]:
    return {name.strip(): category for category, names in table.items() for name in names.split(between)}


TABLES: dict[str, dict[str, Category]] = {
    "aten": ATEN,
    "onnx": _by_name(_ONNX),
    "openvino": _by_name(_OPENVINO),
    "xnnpack": _by_name(_XNNPACK, between=","),
}


def category_of(operator: str, *, table: str) -> Category | None:
    """The category of an operator as one of `TABLES` names it; None where it has no row."""
    return TABLES[table].get(SHOWN_AS.get(operator, operator) if table == "aten" else operator)
