"""Decoder and vocoder with our kernels between their convolutions, which stay cuDNN's (spec B7).

cuDNN's convolutions end without bias, as a launch of ours adds that with the skip and what follows: one pass
over memory where there were three.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.cuda_nets import LastGroupNorm, LineConv
from taro_rt.engines.nets.hifigan import HifiGan, ResidualStack
from taro_rt.engines.nets.vae import Attention, ResidualBlock, Upsample, VaeDecoder
from taro_rt.kernels.finish import finish_conv
from taro_rt.kernels.norm import group_norm, takes


class FusedHifiGan(nn.Module):
    """`HifiGan` with its convolutions rewritten."""

    def __init__(self, net: HifiGan) -> None:
        super().__init__()
        self.conv_pre, self.conv_post, self.upsampler = net.conv_pre, net.conv_post, net.upsampler
        self.resblocks, self.n_stacks = net.resblocks, net.n_stacks

    def forward(self, mel: Tensor) -> Tensor:
        """Log-mel [b, m, bins] to wave [b, m * hop + tail]."""
        leaky = _leaky(self.conv_pre, mel.transpose(1, 2).unsqueeze(2))  # [b, c, 1, m]
        for i, upsample in enumerate(self.upsampler):
            is_last = i == len(self.upsampler) - 1
            x, leaky = _finished(upsample, leaky, leaky=True)
            stacks: Any = self.resblocks[i * self.n_stacks : (i + 1) * self.n_stacks]
            total: Tensor | None = None
            for stack in stacks[:-1]:
                (total,) = _stacked(stack, x, leaky, more=total)
            # the last slope differs from the others (spec B7)
            end = {"gain": 1 / self.n_stacks, "slope": 0.01 if is_last else 0.1}
            (leaky,) = _stacked(stacks[-1], x, leaky, more=total, **end, total=False, leaky=True)
        wave: Tensor = torch.tanh(self.conv_post(leaky.squeeze(2))).squeeze(1)
        return wave


def _finished(conv: nn.Module, line: Tensor, skip: Tensor | None = None, **rest: Any) -> tuple[Tensor, ...]:
    """A convolution of [b, c, 1, n] and what follows it, as `finish_conv` has it."""
    assert isinstance(conv, LineConv) and conv.bias is not None
    return finish_conv(conv.convolved(line), conv.bias, skip, **rest)


def _leaky(conv: nn.Module, line: Tensor) -> Tensor:
    return _finished(conv, line, total=False, leaky=True)[0]


def _stacked(stack: ResidualStack, x: Tensor, leaky_x: Tensor, **end: Any) -> tuple[Tensor, ...]:
    """A stack's output for `x` and its LeakyReLU; `end` is as for `finish_conv`."""
    *pairs, (dilated, plain) = zip(stack.convs1, stack.convs2, strict=True)
    for before, after in pairs:
        x, leaky_x = _finished(after, _leaky(before, leaky_x), x, leaky=True)
    return _finished(plain, _leaky(dilated, leaky_x), x, **end)


def fused_decoder(net: VaeDecoder) -> VaeDecoder:
    """`net`, its norms rewritten, with fused residual blocks; as it is where widths are no powers of two."""
    norms = [m for m in net.modules() if isinstance(m, LastGroupNorm)]
    if not all(takes(len(norm.weight), norm.groups) for norm in norms):
        return net
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LastGroupNorm):
                setattr(parent, name, FusedNorm(child))
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ResidualBlock):
                setattr(parent, name, FusedResidual(child))
            elif isinstance(child, Attention):
                setattr(parent, name, PlainAttention(child))
            elif isinstance(child, Upsample):
                setattr(parent, name, FusedUpsample(child))
    return net


class FusedNorm(nn.Module):
    """`LastGroupNorm` of x + bias, through SiLU on demand."""

    def __init__(self, norm: LastGroupNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.groups, self.eps = norm.weight, norm.bias, norm.groups, norm.eps

    def forward(self, x: Tensor, bias: Tensor | None = None, silu: bool = False) -> Tensor:
        return group_norm(x, self.weight, self.bias, self.groups, self.eps, bias, silu)


class FusedResidual(nn.Module):
    """`ResidualBlock`: norm and SiLU are one pass, and so are bias and skip."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.shortcut, bias = block.conv_shortcut, block.conv2.bias
        assert bias is not None
        if self.shortcut is not None and self.shortcut.bias is not None:
            bias = bias + self.shortcut.bias
        self.bias = nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        h = _unbiased(self.conv1, self.norm1(x, silu=True))
        h = _unbiased(self.conv2, self.norm2(h, self.conv1.bias, silu=True))
        return finish_conv(h, self.bias, x if self.shortcut is None else _unbiased(self.shortcut, x))[0]


class FusedUpsample(nn.Module):
    """`Upsample` with its bias."""

    def __init__(self, upsample: Upsample) -> None:
        super().__init__()
        self.conv = upsample.conv

    def forward(self, x: Tensor) -> Tensor:
        larger = F.interpolate(x, scale_factor=2.0, mode="nearest")
        assert self.conv.bias is not None
        return finish_conv(_unbiased(self.conv, larger), self.conv.bias)[0]


class PlainAttention(nn.Module):
    """`Attention` of one wide head as two products and a softmax: fused kernels for such widths are slow.

    It holds the scores of all places, 21 MB for each take at the published size, twice."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.group_norm, self.to_out = attention.group_norm, attention.to_out[0]
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x).flatten(2).transpose(1, 2)  # [b, h*w, c]
        q, k, v = self.to_q(h) * h.shape[2] ** -0.5, self.to_k(h), self.to_v(h)
        seen: Tensor = self.to_out((q @ k.transpose(1, 2)).softmax(-1) @ v)
        return x + seen.transpose(1, 2).reshape(x.shape)


def _unbiased(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding)
