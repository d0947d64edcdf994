"""Convolutions over video: tensors are [b, c, t, h, w], weights have the released shapes.

They are 3-D convolutions all the way through. As 2-D convolutions of frames, with neighbours stacked along
the channels, half of the onset network's time and most of the memory went into copies between layouts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VideoConv(nn.Conv3d):
    """A 3-D convolution without bias until a norm is folded into it; starts as He et al. 2015 have it."""

    def reset_parameters(self) -> None:
        """Start values."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")


class SpatialConv(VideoConv):
    """Kernel (1, k, k), spatial stride and padding; weight [o, i, 1, k, k]."""

    def __init__(self, i: int, o: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        strides, paddings = (1, stride, stride), (0, padding, padding)
        super().__init__(i, o, (1, kernel, kernel), strides, paddings, bias=False)


class TemporalConv(VideoConv):
    """Kernel (3, 1, 1), zero padding 1 in time; weight [o, i, 3, 1, 1]."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__(i, o, (3, 1, 1), padding=(1, 0, 0), bias=False)


def folded(conv: VideoConv, norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
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
    last: VideoConv | None = None
    for name, child in list(net.named_modules()):  # depth first, in the order of registration
        if isinstance(child, VideoConv):
            last = child
        elif isinstance(child, nn.BatchNorm3d):
            if last is None:
                raise ValueError(f"batch norm {name} follows no convolution")
            weight, bias = folded(last, child)
            last.weight, last.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
            parent, _, leaf = name.rpartition(".")
            setattr(net.get_submodule(parent), leaf, nn.Identity())
            last = None
