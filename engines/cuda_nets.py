"""The networks as a GPU likes them, in place: the same functions from the same weights, rounding aside.

Channels lie side by side in memory (NHWC): tensor cores read them so. A (3, 1, 1) convolution is a two-
dimensional one of 3 x 1 over time and places, without copying the neighbours; one over samples is of 1 x k.
Widths between two convolutions are filled up with zeros to multiples of 8 (exact: norms are folded, and
ReLU(0) = 0).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.frames import SpatialConv, TemporalConv

MULTIPLE = 8
"""Channels that a tensor core reads at once, in 16 bits."""


def rewrite(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """`net`, its norms folded, with every convolution rewritten and all weights of type `dtype`, in place."""
    for module in net.modules():
        if isinstance(module, nn.Sequential):
            _fill_up(module)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if (made := _rewritten(child)) is not None:
                setattr(parent, name, made)
    net.to(dtype)
    for module in net.modules():
        for key, value in module.named_parameters(recurse=False):
            if value.ndim == 4:
                laid = value.detach().contiguous(memory_format=torch.channels_last)
                setattr(module, key, nn.Parameter(laid, requires_grad=False))
    return net


def channels_last(frames: Tensor) -> Tensor:
    """[b, 3, t, h, w] of the same values, the channels of a place side by side."""
    return frames.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)


class FrameConv(nn.Module):
    """`SpatialConv` with a weight [o, i, k, k]."""

    def __init__(self, conv: SpatialConv) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().squeeze(2), requires_grad=False)
        self.bias, self.stride, self.padding = conv.bias, conv.stride[1:], conv.padding[1:]

    def forward(self, x: Tensor) -> Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)  # [b*t, c, h, w], a view where channels lie last
        made = F.conv2d(frames, self.weight, self.bias, self.stride, self.padding)
        return made.unflatten(0, (-1, x.shape[2])).transpose(1, 2)


class TimeConv(nn.Module):
    """`TemporalConv` as a convolution over [time, places]; nothing is copied where channels lie last."""

    def __init__(self, conv: TemporalConv) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().squeeze(4), requires_grad=False)  # [o, i, 3, 1]
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        made = F.conv2d(x.flatten(3), self.weight, self.bias, padding=(1, 0))  # [b, o, t, h*w]
        return made.unflatten(3, x.shape[3:])


class LineConv(nn.Module):
    """`Conv1d` or `ConvTranspose1d` as a two-dimensional one over a single line."""

    def __init__(self, conv: nn.Conv1d | nn.ConvTranspose1d) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().unsqueeze(2), requires_grad=False)
        self.bias, self.stride, self.padding = conv.bias, (1, conv.stride[0]), (0, int(conv.padding[0]))
        self.dilation, self.transposed = (1, conv.dilation[0]), isinstance(conv, nn.ConvTranspose1d)

    def forward(self, x: Tensor) -> Tensor:
        line = x.unsqueeze(2)  # [b, c, 1, n]
        if self.transposed:
            made = F.conv_transpose2d(line, self.weight, self.bias, self.stride, self.padding)
        else:
            made = F.conv2d(line, self.weight, self.bias, self.stride, self.padding, self.dilation)
        return made.squeeze(2)


class LastGroupNorm(nn.Module):
    """`GroupNorm` that leaves the channels where they are: PyTorch's own turns them over on a GPU.

    Sums are float32 whatever the type of the values.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.groups, self.eps = norm.weight, norm.bias, norm.num_groups, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.unflatten(1, (self.groups, -1))  # [b, g, c / g, h, w]
        n = grouped[0, 0].numel()
        mean = grouped.mean((2, 3, 4), dtype=torch.float32)
        square = torch.linalg.vector_norm(grouped, 2, (2, 3, 4), dtype=torch.float32).square() / n
        scale = torch.rsqrt((square - mean.square()).clamp(min=0) + self.eps)  # [b, g]
        scale = scale.repeat_interleave(x.shape[1] // self.groups, 1) * self.weight.float()
        mean = mean.repeat_interleave(x.shape[1] // self.groups, 1)
        shift = self.bias.float() - mean * scale
        at = (..., None, None)
        return torch.addcmul(shift[at].to(x.dtype), x, scale[at].to(x.dtype))


def _rewritten(module: nn.Module) -> nn.Module | None:
    if isinstance(module, SpatialConv):
        return FrameConv(module)
    if isinstance(module, TemporalConv):
        return TimeConv(module)
    if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
        return LineConv(module)
    return LastGroupNorm(module) if isinstance(module, nn.GroupNorm) else None


def _fill_up(sequence: nn.Sequential) -> None:
    """Make the width between the spatial and the temporal convolution of a pair a multiple of `MULTIPLE`."""
    before: SpatialConv | None = None
    for module in sequence:
        if isinstance(module, TemporalConv) and before is not None:
            missing = -before.weight.shape[0] % MULTIPLE
            if before.bias is None:
                raise ValueError("expected norms that are folded: a norm would not keep zeros")
            before.weight = _padded(before.weight, (0, 0) * 4 + (0, missing))
            before.bias = _padded(before.bias, (0, missing))
            module.weight = _padded(module.weight, (0, 0) * 3 + (0, missing))
        before = module if isinstance(module, SpatialConv) else before
        if isinstance(module, TemporalConv):
            before = None


def _padded(value: Tensor, padding: tuple[int, ...]) -> nn.Parameter:
    return nn.Parameter(F.pad(value.detach(), padding), requires_grad=False)
