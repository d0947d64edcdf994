"""The networks as a GPU likes them, in place: the same functions from the same weights, rounding aside.

Channels lie side by side in memory (NHWC): tensor cores read them so. A (3, 1, 1) convolution is a two-
dimensional one of 3 x 1 over time and places, without copying the neighbours; one over samples is of 1 x k.
Widths between two convolutions are filled up with zeros to multiples of 8 (exact: norms are folded, and
ReLU(0) = 0). In half precision bias, skip and ReLU are the end of a convolution's own kernel: on their own
they took as long as the convolutions (docs/gpu.md).
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.frames import SpatialConv, TemporalConv, VideoConv
from taro_rt.engines.nets.hifigan import HifiGan
from taro_rt.engines.nets.onset import BasicBlock
from taro_rt.engines.nets.vae import VaeDecoder
from taro_rt.engines.nets.visual import Bottleneck, ConvNorm

MULTIPLE = 8
"""Channels that a tensor core reads at once, in 16 bits."""
RELU = "followed_by_relu"
"""Attribute of a convolution that takes the ReLU after it over."""
Pair = tuple[int, int]


def rewrite(net: nn.Module, dtype: torch.dtype, fused: bool | None = None) -> nn.Module:
    """`net`, its norms folded, with every convolution rewritten and all weights of type `dtype`: what is
    returned, `net` is used up. `fused` takes our kernels for what stands between them; None, where Triton is
    installed."""
    is_fused = find_spec("triton") is not None if fused is None else fused
    for module in net.modules():
        if isinstance(module, nn.Sequential):
            _fill_up(module)
    for parent in list(net.modules()):
        _take_relus(parent)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if (made := _rewritten(child)) is not None:
                setattr(parent, name, made)
    if is_fused:
        net = fuse(net)
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


class PictureConv(nn.Module):
    """A convolution of videos as one of pictures, with what follows: a skip, a ReLU, or neither."""

    def __init__(self, conv: VideoConv, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = conv.bias
        self.relu = bool(getattr(conv, RELU, False))

    def convolved(self, pictures: Tensor, skip: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        """[n, c, h, w] to [n, o, h', w']; `skip` is shaped like that, and goes with a ReLU."""
        weight, bias = self.weight, self.bias
        if pictures.is_cuda and pictures.dtype != torch.float32 and bias is not None:
            if skip is not None:
                return torch.cudnn_convolution_add_relu(
                    pictures, weight, skip, 1.0, bias, stride, padding, (1, 1), 1
                )
            if self.relu:
                return torch.cudnn_convolution_relu(pictures, weight, bias, stride, padding, (1, 1), 1)
        made = F.conv2d(pictures, weight, bias, stride, padding)
        made = made if skip is None else made + skip
        return F.relu(made) if self.relu else made


class FrameConv(PictureConv):
    """`SpatialConv` with a weight [o, i, k, k]."""

    def __init__(self, conv: SpatialConv) -> None:
        super().__init__(conv, conv.weight.detach().squeeze(2))
        self.stride = (conv.stride[1], conv.stride[2])
        self.padding = (int(conv.padding[1]), int(conv.padding[2]))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        beside = None if skip is None else _frames(skip)
        made = self.convolved(_frames(x), beside, self.stride, self.padding)
        return made.unflatten(0, (-1, x.shape[2])).transpose(1, 2)


class TimeConv(PictureConv):
    """`TemporalConv` as a convolution over [time, places]; nothing is copied where channels lie last."""

    def __init__(self, conv: TemporalConv) -> None:
        super().__init__(conv, conv.weight.detach().squeeze(4))  # [o, i, 3, 1]

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        beside = None if skip is None else skip.flatten(3)
        made = self.convolved(x.flatten(3), beside, (1, 1), (1, 0))  # [b, o, t, h*w]
        return made.unflatten(3, x.shape[3:])


class Block(nn.Module):
    """A residual block of either network that sees: convolutions, each with its ReLU, the last one after the
    skip."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        beside = [] if block.downsample is None else list(block.downsample.modules())
        self.convs = nn.ModuleList(
            m for m in block.modules() if isinstance(m, VideoConv) and not any(m is b for b in beside)
        )
        for conv in self.convs:
            setattr(conv, RELU, True)
        self.downsample = block.downsample
        last = self.convs[-1]
        for conv in beside:
            if isinstance(conv, VideoConv) and isinstance(last, VideoConv):
                assert conv.bias is not None and last.bias is not None
                # added at the end of the last convolution it costs nothing
                last.bias, conv.bias = nn.Parameter(last.bias + conv.bias, requires_grad=False), None

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        for conv in self.convs[:-1]:
            x = conv(x)
        made: Tensor = self.convs[-1](x, skip)
        return made


class LineConv(nn.Module):
    """`Conv1d` or `ConvTranspose1d` as a two-dimensional one over a single line."""

    def __init__(self, conv: nn.Conv1d | nn.ConvTranspose1d) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().unsqueeze(2), requires_grad=False)
        self.bias, self.stride, self.padding = conv.bias, (1, conv.stride[0]), (0, int(conv.padding[0]))
        self.dilation, self.transposed = (1, conv.dilation[0]), isinstance(conv, nn.ConvTranspose1d)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolved(x.unsqueeze(2), self.bias).squeeze(2)

    def convolved(self, line: Tensor, bias: Tensor | None = None) -> Tensor:
        """[b, c, 1, n] to [b, o, 1, n']."""
        if self.transposed:
            return F.conv_transpose2d(line, self.weight, bias, self.stride, self.padding)
        return F.conv2d(line, self.weight, bias, self.stride, self.padding, self.dilation)


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


def fuse(net: nn.Module) -> nn.Module:
    """Decoder or vocoder, rewritten, with our kernels between the convolutions; another network as it is."""
    from taro_rt.engines.cuda_fused import FusedHifiGan, fused_decoder

    if isinstance(net, HifiGan):
        return FusedHifiGan(net)
    return fused_decoder(net) if isinstance(net, VaeDecoder) else net


def _take_relus(parent: nn.Module) -> None:
    """Let convolutions of `parent` take over the ReLU that follows them, and make its blocks `Block`s."""
    for name, child in list(parent.named_children()):
        if isinstance(child, BasicBlock | Bottleneck):
            setattr(parent, name, Block(child))
    if isinstance(parent, ConvNorm) and parent.relu:
        parent.relu = False
        setattr(parent.conv, RELU, True)
    if isinstance(parent, nn.Sequential):
        last: nn.Module | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU) and isinstance(last, VideoConv):
                setattr(last, RELU, True)
                setattr(parent, name, nn.Identity())
            last = last if isinstance(child, nn.Identity) else child


def _frames(x: Tensor) -> Tensor:
    """[b, c, t, h, w] as pictures [b*t, c, h, w], a view where channels lie last."""
    return x.transpose(1, 2).flatten(0, 1)


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
