"""HiFi-GAN from one kernel (spec B7): a convolution with the LeakyReLU before it and the sum after it.

Time by channels throughout: nothing is transposed, upsampling is a convolution by phases (spec D9).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taro_rt.engines.nets.hifigan import HifiGan, ResidualStack
from taro_rt.kernels.conv import leaky_conv, phases, taps


@dataclass(frozen=True)
class Conv:
    """A convolution as the kernel reads it."""

    weight: Tensor
    """[k, o, c]"""
    bias: Tensor
    dilation: int = 1

    @staticmethod
    def of(layer: nn.Conv1d) -> Conv:
        """The weights of `layer`, rearranged."""
        assert layer.bias is not None
        return Conv(taps(layer.weight.detach()), layer.bias.detach(), layer.dilation[0])

    def __call__(self, x: Tensor, residual: Tensor | None = None, slope: float = 0.1) -> Tensor:
        """bias + conv(LeakyReLU(x)) + residual, as long as `x` [b, t, c]."""
        first = -(len(self.weight) // 2) * self.dilation
        return leaky_conv(x, self.weight, self.bias, first, self.dilation, residual, slope=slope)


@dataclass(frozen=True)
class Upsampler:
    """A transposed convolution by phases."""

    weight: Tensor
    """[ceil(k / s), s o, c]"""
    bias: Tensor
    """[s o]"""
    size: int
    stride: int
    padding: int

    @staticmethod
    def of(layer: nn.ConvTranspose1d) -> Upsampler:
        """The weights of `layer`, rearranged."""
        assert layer.bias is not None
        size, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
        weight, bias = phases(layer.weight.detach(), stride), layer.bias.detach().repeat(stride)
        return Upsampler(weight, bias, size, stride, padding)

    def __call__(self, x: Tensor) -> Tensor:
        """conv(LeakyReLU(x)) of `x` [b, t, c]: [b, (t - 1) s + k - 2 p, o]."""
        length = (x.shape[1] - 1) * self.stride + self.size - 2 * self.padding
        moments = -(-(length + self.padding) // self.stride)
        made = leaky_conv(x, self.weight, self.bias, 1 - len(self.weight), length=moments)
        flat = made.reshape(len(x), moments * self.stride, -1)
        return flat[:, self.padding : self.padding + length]


class FusedVocoder:
    """`HifiGan` with the weights of `net`, in its type and on its device at construction."""

    def __init__(self, net: HifiGan) -> None:
        self._first, self._last = Conv.of(net.conv_pre), Conv.of(net.conv_post)
        self._upsamplers = [Upsampler.of(u) for u in net.upsampler if isinstance(u, nn.ConvTranspose1d)]
        stacks = [self._pairs(stack) for stack in net.resblocks if isinstance(stack, ResidualStack)]
        self._stages = [stacks[i : i + net.n_stacks] for i in range(0, len(stacks), net.n_stacks)]

    def __call__(self, mel: Tensor) -> Tensor:
        """The wave [b, m * hop + tail] of a log-mel [b, m, bins], in the weights' type."""
        x = self._first(mel, slope=1.0)  # [b, m, c]
        for upsample, stacks in zip(self._upsamplers, self._stages, strict=True):
            x = upsample(x)
            total = self._stack(stacks[0], x)
            for stack in stacks[1:]:
                total = total + self._stack(stack, x)
            x = total / len(stacks)
        return torch.tanh(self._last(x, slope=0.01)).squeeze(2)

    @staticmethod
    def _pairs(stack: ResidualStack) -> list[tuple[Conv, Conv]]:
        both = zip(stack.convs1, stack.convs2, strict=True)
        return [
            (Conv.of(dilated), Conv.of(plain))
            for dilated, plain in both
            if isinstance(dilated, nn.Conv1d) and isinstance(plain, nn.Conv1d)
        ]

    @staticmethod
    def _stack(pairs: list[tuple[Conv, Conv]], x: Tensor) -> Tensor:
        for dilated, plain in pairs:
            x = plain(dilated(x), residual=x)
        return x
