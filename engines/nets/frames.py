"""Convolutions over video: tensors are [b, t, c, h, w]; weights keep the released five-dimensional shapes.

A (1, k, k) kernel is a 2-D convolution of every frame. A (k, 1, 1) kernel is a 1x1 convolution of
neighbouring frames stacked along the channels: no transposition, and every backend is fast at 2-D.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpatialConv(nn.Module):
    """Conv3d with kernel (1, k, k), spatial stride and padding; weight [o, i, 1, k, k]."""

    def __init__(self, i: int, o: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(o, i, 1, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.bias: nn.Parameter | None = None
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        frames = x.flatten(0, 1)  # [b*t, c, h, w]
        frames = F.conv2d(frames, self.weight.squeeze(2), self.bias, self.stride, self.padding)
        return frames.unflatten(0, (-1, x.shape[1]))


class TemporalConv(nn.Module):
    """Conv3d with kernel (3, 1, 1), zero padding 1 in time; weight [o, i, 3, 1, 1]."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(o, i, 3, 1, 1))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.bias: nn.Parameter | None = None

    def forward(self, x: Tensor) -> Tensor:
        zero = torch.zeros_like(x[:, :1])
        before, after = torch.cat([zero, x[:, :-1]], 1), torch.cat([x[:, 1:], zero], 1)
        stacked = torch.cat([before, x, after], 2).flatten(0, 1)  # [b*t, 3c, h, w]
        weight = self.weight.flatten(2).transpose(1, 2).flatten(1)[:, :, None, None]  # [o, 3i, 1, 1]
        return F.conv2d(stacked, weight, self.bias).unflatten(0, (-1, x.shape[1]))


class FrameNorm(nn.BatchNorm2d):
    """Batch norm of every frame (statistics over batch, time and space, as BatchNorm3d)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, (-1, x.shape[1]))


Convolution = SpatialConv | TemporalConv


def folded(conv: Convolution, norm: FrameNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of `conv` with the stored statistics of `norm` folded in (spec D7), in float64."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("expected a batch norm with stored statistics")
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weight = conv.weight.double() * scale[:, None, None, None, None]
    bias = norm.bias.double() - norm.running_mean.double() * scale
    return weight.to(conv.weight.dtype), bias.to(conv.weight.dtype)


def fold_norms(net: nn.Module) -> None:
    """Fold every batch norm of `net` into the convolution registered just before it, in place.

    Afterwards each convolution has a bias and each norm is an identity; state-dict keys stay otherwise.
    """
    last: Convolution | None = None
    for name, child in list(net.named_modules()):  # depth first, in the order of registration
        if isinstance(child, SpatialConv | TemporalConv):
            last = child
        elif isinstance(child, FrameNorm):
            if last is None:
                raise ValueError(f"batch norm {name} follows no convolution")
            weight, bias = folded(last, child)
            last.weight, last.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
            parent, _, leaf = name.rpartition(".")
            setattr(net.get_submodule(parent), leaf, nn.Identity())
            last = None
