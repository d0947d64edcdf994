"""Onset network: R(2+1)D with the temporal axis kept, one logit per frame (spec B3)."""

from __future__ import annotations

from torch import Tensor, nn

from taro_rt.engines.nets.config import OnsetConfig
from taro_rt.engines.nets.frames import SpatialConv, TemporalConv


def factored(a: int, m: int, b: int, stride: int) -> nn.Sequential:
    """(2+1)D convolution a -> m -> b: spatial, norm, ReLU, temporal."""
    return nn.Sequential(SpatialConv(a, m, 3, stride, 1), nn.BatchNorm3d(m), nn.ReLU(), TemporalConv(m, b))


class BasicBlock(nn.Module):
    """Two factored convolutions and a skip; both share the middle width m of the block's a and b."""

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        m = (27 * a * b) // (9 * a + 3 * b)
        self.conv1 = nn.Sequential(factored(a, m, b, stride), nn.BatchNorm3d(b), nn.ReLU())
        self.conv2 = nn.Sequential(factored(b, m, b, 1), nn.BatchNorm3d(b))
        self.relu = nn.ReLU()
        self.downsample = (
            nn.Sequential(SpatialConv(a, b, 1, stride), nn.BatchNorm3d(b)) if stride != 1 or a != b else None
        )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + skip)


class Trunk(nn.Module):
    """Stem and four layers: [b, 3, t, h, w] to [b, c, t, h/16, w/16]."""

    def __init__(self, config: OnsetConfig) -> None:
        super().__init__()
        first = config.widths[0]
        self.stem = nn.Sequential(
            SpatialConv(3, config.stem, 7, 2, 3),
            nn.BatchNorm3d(config.stem),
            nn.ReLU(),
            TemporalConv(config.stem, first),
            nn.BatchNorm3d(first),
            nn.ReLU(),
        )
        self.layer1, self.layer2, self.layer3, self.layer4 = self._layers(config)

    @staticmethod
    def _layers(config: OnsetConfig) -> list[nn.Sequential]:
        layers, before = [], config.widths[0]
        for i, (width, count) in enumerate(zip(config.widths, config.blocks, strict=True)):
            blocks = [BasicBlock(before, width, 1 if i == 0 else 2)]
            blocks += [BasicBlock(width, width, 1) for _ in range(count - 1)]
            layers.append(nn.Sequential(*blocks))
            before = width
        return layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))


class Backbone(nn.Module):
    """Holds the trunk under the released name `net.model`."""

    def __init__(self, config: OnsetConfig) -> None:
        super().__init__()
        self.model = Trunk(config)


class OnsetNet(nn.Module):
    """Normalised frames [b, 3, margin + t + margin, h, w] to logits [b, t]."""

    def __init__(self, config: OnsetConfig) -> None:
        super().__init__()
        self.margin = config.margin
        self.net = Backbone(config)
        self.fc = nn.Sequential(
            nn.Linear(config.widths[-1], config.head), nn.ReLU(), nn.Linear(config.head, 1)
        )

    def forward(self, frames: Tensor) -> Tensor:
        maps = self.net.model(frames).mean(dim=(3, 4))  # [b, c, margin + t + margin]
        if self.margin:
            maps = maps[:, :, self.margin : -self.margin]
        return self.fc(maps.transpose(1, 2)).squeeze(2)
