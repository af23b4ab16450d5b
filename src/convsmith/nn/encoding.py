"""Encoding layer and context encoding module (EncNet, Zhang H. et al. 2018, arXiv:1803.08904)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM, build_norm


class Encoding(nn.Module):
    """Residuals of a map's features to K learned codewords, softly assigned and summed over the map (Sec. 2, Eq. 1).

    With features x_i, `codewords` c_k and `scale` s_k: e_k = sum_i a_ik (x_i - c_k), where over the codewords
    a_i = softmax(s_k ||x_i - c_k||^2). As in the released code `scale` is the negative of the paper's smoothing factor
    and starts uniform in (-1, 0), the codewords uniform in +-1 / sqrt(K D).

    The residuals (N, K, H W, D) are never formed: ||x - c||^2 = ||x||^2 - 2 x c + ||c||^2 and e = A X - (sum A) c, two
    matrix products of K D H W multiply-accumulates each. Against cancellation, features and codewords are first taken
    relative to the codewords' mean, and ||x||^2 is weighted by s_k - max s; neither changes the result. Half-precision
    maps are encoded in float32, in which squared norms do not overflow, under autocast too; but a program of
    `torch.export` must run outside of it, as its graph does not keep autocast off.
    """

    def __init__(self, in_channels: int, *, num_codewords: int):
        super().__init__()
        if in_channels < 1 or num_codewords < 1:
            raise ValueError(
                f"an encoding needs positive in_channels and num_codewords, got {in_channels=} and {num_codewords=}"
            )
        bound = 1 / math.sqrt(num_codewords * in_channels)
        self.codewords = nn.Parameter(torch.empty(num_codewords, in_channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(num_codewords).uniform_(-1, 0))

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, H, W), or (N, D, H W) -> (N, K, D)."""
        return _encode(x, self.codewords, self.scale)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, own in self.named_parameters():
            given = state_dict.get(prefix + name, own)
            if given.shape != own.shape:
                raise ValueError(
                    f"{prefix}{name} must be {tuple(own.shape)}, got {tuple(given.shape)}; build the encoding with the "
                    "in_channels and num_codewords of these weights"
                )
        super()._load_from_state_dict(state_dict, prefix, *rest)


@block("context_encoding")
class ContextEncoding(nn.Module):
    """Channels weighed by what the whole map holds: act(x + x * gate), gate = sigmoid(W e + b) (Sec. 2).

    The descriptor e (N, C) is what `encode` gives: 1 x 1 convolution, norm and activation, `Encoding`, norm over the
    codewords and activation, mean over the codewords. A head that also predicts which classes an image holds (the
    SE-loss) computes e once: `e = block.encode(x)`, `block.apply_gate(x, e)`, and its own layer on e.

    This is the released code's form. The paper names no convolution in front, sums over the codewords (a factor K that
    W absorbs) and returns x * gate, which `residual=False` gives.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_codewords: int = 32,
        residual: bool = True,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        self.conv = ConvNormAct(in_channels, in_channels, kernel_size=1, norm=norm, act=act)
        self.encoding = Encoding(in_channels, num_codewords=num_codewords)
        self.norm = build_norm(norm, num_codewords)
        self.act = build_act(act, num_codewords)
        self.linear = nn.Linear(in_channels, in_channels)
        self.residual = residual
        self.out_act = build_act(act, in_channels) if residual else nn.Identity()
        self.out_channels = in_channels

    def encode(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C), the descriptor of the whole map."""
        encoded = self.encoding(self.conv(x)).unsqueeze(3)  # (N, K, C, 1): a map of K channels to the norm
        return self.act(self.norm(encoded)).mean((1, 3))

    def apply_gate(self, x: Tensor, descriptor: Tensor) -> Tensor:
        """(N, C, H, W) and (N, C) -> (N, C, H, W)."""
        gated = x * self.linear(descriptor).sigmoid()[:, :, None, None]
        return self.out_act(x + gated) if self.residual else gated

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.apply_gate(x, self.encode(x))


@fx.wrap  # one node of a graph: torch.fx follows no branches
def _encode(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    if has_torch_function_unary(x):  # a subclass of tensors may have a rule for the whole layer
        encoded: Tensor = handle_torch_function(_encode, (x,), x, codewords, scale)
        return encoded
    if x.dim() not in (3, 4) or x.shape[1] != codewords.shape[1]:
        raise ValueError(
            f"an encoding of {codewords.shape[1]} channels needs maps (N, {codewords.shape[1]}, H, W), got "
            f"{tuple(x.shape)}; give it the in_channels of the map"
        )
    if scale.shape != codewords.shape[:1]:
        raise ValueError(
            f"an encoding needs a scale for each codeword, got {len(codewords)} codewords and scale of shape "
            f"{tuple(scale.shape)}; give both the same num_codewords"
        )
    if not torch.amp.is_autocast_available(x.device.type):  # as on the meta device
        return _encode_wide(x, codewords, scale)
    with torch.autocast(x.device.type, enabled=False):  # the squares of half precision overflow
        return _encode_wide(x, codewords, scale)


def _encode_wide(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    codewords, scale = codewords.to(dtype), scale.to(dtype)[:, None]
    center = codewords.detach().mean(0)
    maps, codewords = x.flatten(2).to(dtype) - center[:, None], codewords - center
    squares = (maps * maps).sum(1, keepdim=True)
    offsets = scale * codewords.square().sum(1, keepdim=True) + (scale - scale.detach().max()) * squares
    factors = (-2 * scale * codewords).expand(x.shape[0], -1, -1)  # len(x) would fix it in an exported program
    # Both products are written so that the gradients of the maps come out in the order that the maps have in memory.
    if maps.stride(1) == 1:  # channels last
        assignment = torch.baddbmm(offsets.mT, maps.mT, factors.mT).mT.softmax(1)
        sums = torch.bmm(assignment, maps.mT)
    else:
        assignment = torch.baddbmm(offsets, factors, maps).softmax(1)
        sums = torch.bmm(maps, assignment.mT).mT
    encoded = (sums - assignment.sum(2, keepdim=True) * codewords).to(x.dtype)
    return encoded.contiguous()  # transposed it would get wrong gradients from torch's batch norm on a CPU
