"""Visual encoder: SlowOnly ResNet of CAVP, one L2-normalised feature per frame (spec B6)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.config import VisualConfig
from taro_rt.engines.nets.frames import SpatialConv, TemporalConv


class ConvNorm(nn.Module):
    """Convolution and norm under the released names `conv` and `bn`, then a ReLU unless told otherwise."""

    def __init__(self, conv: SpatialConv | TemporalConv, width: int, relu: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm3d(width)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x) if self.relu else x


class Bottleneck(nn.Module):
    """1x1 (or temporal 3-tap), 3x3 with the stride, 1x1; plus the skip."""

    def __init__(self, i: int, width: int, o: int, stride: int, temporal: bool, first: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(TemporalConv(i, width) if temporal else SpatialConv(i, width, 1), width)
        self.conv2 = ConvNorm(SpatialConv(width, width, 3, stride, 1), width)
        self.conv3 = ConvNorm(SpatialConv(width, o, 1), o, relu=False)
        self.downsample = ConvNorm(SpatialConv(i, o, 1, stride), o, relu=False) if first else None

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(self.conv3(self.conv2(self.conv1(x))) + skip)


class VideoEncoder(nn.Module):
    """[b, 3, t, h, w] to [b, c, t, h/32, w/32]; layers 3 and 4 look one frame to each side per block."""

    def __init__(self, config: VisualConfig) -> None:
        super().__init__()
        self.conv1 = ConvNorm(SpatialConv(3, config.stem, 7, 2, 3), config.stem)
        self.layer1, self.layer2, self.layer3, self.layer4 = self._layers(config)

    @staticmethod
    def _layers(config: VisualConfig) -> list[nn.Sequential]:
        layers, before = [], config.stem
        for i, (width, count) in enumerate(zip(config.widths, config.blocks, strict=True)):
            after = width * config.expansion
            blocks = []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Bottleneck(before, width, after, stride, temporal=i >= 2, first=j == 0))
                before = after
            layers.append(nn.Sequential(*blocks))
        return layers

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class VisualNet(nn.Module):
    """Frames [b, 3, t, h, w] in [0, 1] to features [b, t, dim] of length 1."""

    def __init__(self, config: VisualConfig) -> None:
        super().__init__()
        self.video_encoder = VideoEncoder(config)
        self.video_project_head = nn.Linear(config.widths[-1] * config.expansion, config.dim)

    def forward(self, frames: Tensor) -> Tensor:
        maps = self.video_encoder(frames).mean(dim=(3, 4))  # [b, c, t]
        return F.normalize(self.video_project_head(maps.transpose(1, 2)), dim=2, eps=1e-12)
