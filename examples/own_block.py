"""A block of your own: one class, and it can stand in architectures, files and search spaces."""

from random import Random

import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.nn import Classifier, ConvNormAct


@cs.block("example_two_kernels")
class TwoKernels(nn.Module):
    """The sum of a 3 x 3 and a k x k depthwise convolution, then a 1 x 1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 5, stride: int = 1):
        super().__init__()

        def depthwise(size: int) -> ConvNormAct:
            return ConvNormAct(in_channels, in_channels, kernel_size=size, stride=stride, groups=in_channels)

        self.small, self.large = depthwise(3), depthwise(kernel_size)
        self.pointwise = ConvNormAct(in_channels, out_channels, kernel_size=1)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        return self.pointwise(self.small(x) + self.large(x))


space = cs.Architecture(
    name="two_kernels",
    stem=[cs.spec(ConvNormAct, 16, stride=2)],
    stages=[[cs.spec(TwoKernels, cs.choice(24, 32), kernel_size=cs.choice(5, 7, 9), stride=2)]],
    head=cs.spec(Classifier, 10),
)
print(space, "holds", space.size(), "networks")
architecture = space.sample(Random(0))
print(cs.create_model(architecture)(torch.randn(2, 3, 32, 32)).shape)
print(architecture.to_json())
