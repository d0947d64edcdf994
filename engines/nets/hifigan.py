"""HiFi-GAN vocoder: log-mel to waveform (spec B7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.config import HifiGanConfig


class ResidualStack(nn.Module):
    """Three dilated residual convolutions with one kernel size; keys `convs1.m`, `convs2.m`."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        half = (kernel - 1) // 2
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * half) for d in dilations
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding=half) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, 0.1)), 0.1))
        return x


class HifiGan(nn.Module):
    """Log-mel [b, m, bins] to wave [b, m * hop + tail] in [-1, 1]."""

    def __init__(self, config: HifiGanConfig) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(config.mel_bins, config.channels, 7, padding=3)
        self.upsampler = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        channels = config.channels
        for kernel, stride in zip(config.kernels, config.strides, strict=True):
            self.upsampler.append(
                nn.ConvTranspose1d(channels, channels // 2, kernel, stride, padding=(kernel - stride) // 2)
            )
            channels //= 2
            for size in config.resblock_kernels:
                self.resblocks.append(ResidualStack(channels, size, config.dilations))
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3)
        self.n_stacks = len(config.resblock_kernels)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.conv_pre(mel.transpose(1, 2))  # [b, c, m]
        for i, upsample in enumerate(self.upsampler):
            x = upsample(F.leaky_relu(x, 0.1))
            stacks = self.resblocks[i * self.n_stacks : (i + 1) * self.n_stacks]
            total = stacks[0](x)
            for stack in stacks[1:]:
                total = total + stack(x)
            x = total / self.n_stacks
        x = self.conv_post(F.leaky_relu(x, 0.01))  # the last slope differs from the others (spec B7)
        return torch.tanh(x).squeeze(1)
