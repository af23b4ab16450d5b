"""The same network in torchvision, timm or pytorchcv, with weights that make a comparison see."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision import ops

from convsmith import zoo
from convsmith.zoo.variant import PYTORCHCV, TIMM, TORCHVISION, Variant

# Peers that their library does not build by a name alone: variant -> builder.
BUILDERS: dict[str, Callable[[], nn.Module]] = {}


def builder(*names: str) -> Callable[[Callable[[str], nn.Module]], Callable[[str], nn.Module]]:
    """Register how the peer of some variants is built: the function is called with the variant's name."""

    def register(build: Callable[[str], nn.Module]) -> Callable[[str], nn.Module]:
        for name in names:
            BUILDERS[name] = lambda name=name: build(name)
        return build

    return register


@builder("mobilenet_v2_x0_35", "mobilenet_v2_x0_5", "mobilenet_v2_x0_75", "mobilenet_v2_x1_4")
def _mobilenet_v2(name: str) -> nn.Module:
    import torchvision

    return torchvision.models.mobilenet_v2(width_mult=float(name.partition("_x")[2].replace("_", ".")))


SHUFFLENET_V1_WITHOUT_A_NAME = [
    *(f"shufflenet_v1_g{groups}_x{width}" for groups in (1, 3) for width in ("1_5", "2_0")),
    *(f"shufflenet_v1_g{g}_x{width}" for g in (2, 4, 8) for width in ("0_25", "0_5", "0_75", "1_5", "2_0")),
]


@builder(*SHUFFLENET_V1_WITHOUT_A_NAME)
def _shufflenet_v1(name: str) -> nn.Module:
    from pytorchcv.models.shufflenet import ShuffleNet

    architecture = zoo.get(name)
    channels = [[unit.get("out_channels") for unit in stage] for stage in architecture.stages]
    groups = int(name.removeprefix("shufflenet_v1_g")[0])
    return ShuffleNet(channels, init_block_channels=architecture.stem[0].get("out_channels"), groups=groups)


@builder("shufflenet_v2_x1_5_paper", "shufflenet_v2_x2_0_paper")
def _shufflenet_v2(name: str) -> nn.Module:
    # pytorchcv's own networks of these widths have another last convolution.
    from pytorchcv.models.shufflenetv2b import ShuffleNetV2b

    widths, last = {"x1_5": ((176, 352, 704), 1024), "x2_0": ((244, 488, 976), 2048)}[name.split("_", 2)[2][:4]]
    channels = [[width] * repeats for width, repeats in zip(widths, (4, 8, 4), strict=True)]
    return ShuffleNetV2b(channels, init_block_channels=24, final_block_channels=last)


@builder("resnext29_8x64d_cifar")
def _resnext_cifar(name: str) -> nn.Module:
    from pytorchcv.models.resnext_cifar import CIFARResNeXt

    return CIFARResNeXt([[256] * 3, [512] * 3, [1024] * 3], 64, 8, 64)


@builder("densenet264")
def _densenet(name: str) -> nn.Module:
    import torchvision

    return torchvision.models.DenseNet(growth_rate=32, block_config=(6, 12, 64, 48), num_init_features=64)


@builder("googlenet", "inception_v3")
def _inception(name: str) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, aux_logits=False, init_weights=False, transform_input=False)


@builder("darts_v1")
def _darts(name: str) -> nn.Module:
    # The library builds V2 alone, and has no mean among its operations.
    from pytorchcv.models import darts as library

    from convsmith.zoo.darts import V1_NORMAL, V1_REDUCTION

    library.GENOTYPE_OPS["avg_pool_3x3"] = lambda channels, stride: nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    widths = [[192] * 4, [384] * 5, [768] * 5]
    normal, reduction = ([edge for edges in cell for edge in edges] for cell in (V1_NORMAL, V1_REDUCTION))
    return library.DARTS(widths, stem_blocks_channels=48, normal_genotype=normal, reduce_genotype=reduction)


@builder("shufflenet_v2_star_x1_0")
def _shufflenet_v2_star(name: str) -> nn.Module:
    import torchvision

    peer = torchvision.models.get_model(name.replace("star_", ""), weights=None)
    for unit in peer.modules():
        if isinstance(unit, torchvision.models.shufflenetv2.InvertedResidual):
            width = unit.branch2[0].in_channels
            first = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
            unit.branch2 = nn.Sequential(first, nn.BatchNorm2d(width), *unit.branch2)
    return peer


class _Deformed(nn.Module):
    """torchvision's deformable convolution behind a convolution that predicts its offsets."""

    def __init__(self, stride: int):
        super().__init__()
        self.deformable = ops.DeformConv2d(512, 512, 3, stride, padding=1, bias=False)
        self.offset = nn.Conv2d(512, 72, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.deformable(x, self.offset(x))


@builder("resnet50_deformable", "resnet101_deformable")
def _resnet_deformable(name: str) -> nn.Module:
    import torchvision

    peer = torchvision.models.get_model(name.partition("_")[0], weights=None)
    for unit in peer.layer4:
        unit.conv2 = _Deformed(unit.stride)
    return peer


@builder("nin_cifar")
def _nin(name: str) -> nn.Module:
    from pytorchcv.model_provider import get_model

    peer = get_model("nin_cifar10", pretrained=False)
    peer.output.final_pool = nn.AdaptiveAvgPool2d(1)  # the same at its own size; takes others too
    return peer


@builder("fractalnet_cifar")
def _fractalnet(name: str) -> nn.Module:
    from pytorchcv.model_provider import get_model

    peer = get_model("fractalnet_cifar10", pretrained=False)
    last = peer.features.unit5
    last.pool = nn.Sequential(last.pool, nn.AdaptiveAvgPool2d(1))  # the same at its own size; takes others too
    return peer


@builder("condensenet_86_cifar", "condensenet_182_cifar")
def _condensenet(name: str) -> nn.Module:
    # The library's class, whose stem halves the image.
    from pytorchcv.models.condensenet import CondenseNet

    depth, growth_rate = {"condensenet_86_cifar": (14, 8), "condensenet_182_cifar": (30, 12)}[name]
    stem = 2 * growth_rate
    channels, width = [], stem
    for rate in (growth_rate, 2 * growth_rate, 4 * growth_rate):
        channels.append([width + rate * layer for layer in range(1, depth + 1)])
        width = channels[-1][-1]
    peer = CondenseNet(channels, init_block_channels=stem, groups=4, in_size=(32, 32), num_classes=10)
    peer.features.init_block.conv.stride = (1, 1)
    return peer


def has_peer(variant: Variant) -> bool:
    return variant.source in (TORCHVISION, TIMM, PYTORCHCV) or variant.name in BUILDERS


def build_peer(variant: Variant) -> nn.Module:
    """The other library's network, freshly initialised, in eval mode and float64."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if variant.name in BUILDERS:
            peer = BUILDERS[variant.name]()
        elif variant.source == TORCHVISION:
            import torchvision

            peer = torchvision.models.get_model(variant.peer or variant.name, weights=None)
        elif variant.source == TIMM:
            import timm

            peer = timm.create_model(variant.peer or variant.name)
        else:
            from pytorchcv.model_provider import get_model

            peer = get_model(variant.peer or variant.name, pretrained=False)
        if isinstance(getattr(getattr(peer, "features", None), "final_pool", None), nn.AvgPool2d):  # pytorchcv's
            peer.features.final_pool = nn.AdaptiveAvgPool2d(1)  # the same at its own size; takes others too
    return peer.double().eval()


def randomise(network: nn.Module, images: Tensor, seed: int = 0) -> None:
    """He-scaled weights, random indices of channels, and norm statistics taken from these images and jittered.

    With careless random weights the outputs of two different images agree to 1e-7, and a comparison is blind.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.empty_like(like).uniform_(low, high, generator=generator)

    def choose(module: nn.Module, inputs: tuple[Tensor]) -> None:
        module.index.random_(inputs[0].shape[1], generator=generator)

    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    indexed = [m for m in network.modules() if "index" in dict(m.named_buffers(recurse=False))]  # CondenseNet's
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.copy_(uniform(module.bias, -0.2, 0.2))
        for norm in norms:
            norm.weight.copy_(uniform(norm.weight, 0.7, 1.3))
            norm.bias.copy_(uniform(norm.bias, -0.2, 0.2))
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        hooks = [module.register_forward_pre_hook(choose) for module in indexed]
        network(images)
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
            norm.running_mean += uniform(norm.running_mean, -0.2, 0.2) * norm.running_var.sqrt()
            norm.running_var *= uniform(norm.running_var, 0.8, 1.25)


def images(size: int, *, batch: int = 4, channels: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(batch, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_equal_outputs(ours: Tensor, theirs: Tensor, *, tolerance: float = 1e-8) -> None:
    """Equal to `tolerance` of the outputs' scale, on images whose outputs differ clearly from each other."""
    scale = theirs.abs().max()
    assert (theirs[0] - theirs[1]).abs().max() > 1e-2 * scale, (
        "two images give the same output: the comparison is blind"
    )
    assert (ours - theirs).abs().max() <= tolerance * scale
