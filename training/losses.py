"""The paper's objective: conditional flow matching plus timestep-adaptive representation alignment (TRA).

Equation numbers are those of spec A2. Training heads wrap the network; the exporter never meets them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.mmdit import MMDiT

E = 1e-8
"""Keeps w(t) finite, equation (7)."""


Grid = tuple[int, int]
"""Places in time and places in frequency."""


@dataclass(frozen=True)
class Conditions:
    """What a batch is conditioned on."""

    onset: Tensor
    """Onset logits [b, 120]."""
    features: Tensor
    """Visual features [b, 32, dim]."""

    def to(self, device: str) -> Conditions:
        return Conditions(self.onset.to(device), self.features.to(device))


@dataclass(frozen=True)
class Tra:
    """How hidden states are aligned to the features of the frozen audio encoder (spec A2, tables 4 and 6)."""

    block: int = 4
    """After this block of the transformer, counted from 1."""
    match: Literal["conv1d", "interpolation", "pooling"] = "conv1d"
    """How the lengths are matched: Conv1d of kernel 1 over the token axis, equation (9); linear interpolation
    of the latent tokens over time and band; or the mean of either side."""
    weighted: bool = True
    """By w(t) of equation (7), else 1 at every time."""
    share: float = 0.5
    """Lambda of equation (8)."""
    hidden: int = 2048
    """Width of the head."""
    centred: bool = False
    """Aligns to the encoder's features less their mean over clips at each place, which says nothing of a clip
    and is most of what a small encoder says. The paper aligns to the features as they are."""


def interpolant(t: Tensor, path: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha, sigma and their derivatives at t [b], each [b]: equation (1), `linear` or `vp`."""
    if path == "linear":
        return 1 - t, t, -torch.ones_like(t), torch.ones_like(t)
    half = math.pi / 2
    return torch.cos(half * t), torch.sin(half * t), -half * torch.sin(half * t), half * torch.cos(half * t)


class Head(nn.Module):
    """Hidden states [b, n, d] to the teacher's space [b, m, e]: h' of equations (6) and (9), spec B8.

    m is the teacher's number of tokens, or 1 where both sides are pooled. The tokens of both sides are the
    places of a grid of times and bands, times first.
    """

    def __init__(self, tra: Tra, grid: Grid, width: int, teacher_grid: Grid, teacher_dim: int) -> None:
        super().__init__()
        self.tra, self.grid, self.teacher_grid = tra, grid, teacher_grid
        self.match = nn.Sequential(nn.Conv1d(math.prod(grid), math.prod(teacher_grid), 1), nn.SiLU())
        if tra.match != "conv1d":
            self.match = nn.Sequential()
        self.mlp = nn.Sequential(
            nn.Linear(width, tra.hidden),
            nn.SiLU(),
            nn.Linear(tra.hidden, tra.hidden),
            nn.SiLU(),
            nn.Linear(tra.hidden, teacher_dim),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        if self.tra.match == "interpolation":
            places = hidden.transpose(1, 2).unflatten(2, self.grid)  # [b, d, times, bands]
            hidden = F.interpolate(places, self.teacher_grid, mode="bilinear").flatten(2).transpose(1, 2)
        elif self.tra.match == "pooling":
            hidden = hidden.mean(1, keepdim=True)
        return self.mlp(self.match(hidden))

    def teacher(self, features: Tensor) -> Tensor:
        """The side that is aligned to: `features` [b, m, e], pooled where the head is."""
        return features.mean(1, keepdim=True) if self.tra.match == "pooling" else features


class Aligned(nn.Module):
    """A transformer with an alignment head on the x stream after one of its blocks; without `tra`, alone."""

    def __init__(self, net: MMDiT, tra: Tra | None, teacher_grid: Grid, teacher_dim: int) -> None:
        super().__init__()
        self.net, self.tra = net, tra
        self._hidden: Tensor | None = None
        if tra is not None:
            self.head = Head(tra, net.grid, net.config.width, teacher_grid, teacher_dim)
            net.joint_blocks[tra.block - 1].register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, outputs: tuple[Tensor, Tensor]) -> None:
        self._hidden = outputs[1]

    def forward(self, latents: Tensor, t: Tensor, on: Conditions, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity, and the projected hidden state [b, m, e] (empty without `tra`)."""
        velocity = self.net(latents, t, on.onset, on.features, keep)
        if self._hidden is None:
            return velocity, velocity.new_zeros(0)
        projected, self._hidden = self.head(self._hidden), None
        return velocity, projected


def flow_matching(
    net: Aligned, data: Tensor, t: Tensor, on: Conditions, keep: Tensor, path: str = "linear"
) -> tuple[Tensor, Tensor]:
    """L_CFM per sample [b], equation (3), for latents `data` [b, c, h, w]; and the projected hidden state."""
    noise = torch.randn_like(data)
    alpha, sigma, d_alpha, d_sigma = (x[:, None, None, None] for x in interpolant(t, path))
    velocity, projected = net(alpha * data + sigma * noise, t, on, keep)
    target = d_alpha * data + d_sigma * noise
    return (velocity.float() - target).square().mean(dim=(1, 2, 3)), projected


def alignment(projected: Tensor, teacher: Tensor, t: Tensor, tra: Tra, path: str = "linear") -> Tensor:
    """L_align, equation (6): mean over samples of w(t) times the mean over tokens of -cos."""
    alpha, sigma, _, _ = interpolant(t, path)
    weight = alpha / (alpha + sigma + E) if tra.weighted else torch.ones_like(t)
    similarity = F.cosine_similarity(projected.float(), teacher, dim=2).mean(1)
    return -(weight * similarity).mean()


def objective(
    net: Aligned, data: Tensor, t: Tensor, on: Conditions, keep: Tensor, teacher: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_total of equation (8), and its parts: "flow" per sample [b], "align"."""
    flow, projected = flow_matching(net, data, t, on, keep)
    if net.tra is None:
        return flow.mean(), {"flow": flow.detach(), "align": torch.zeros(())}
    align = alignment(projected, net.head.teacher(teacher), t, net.tra)
    return flow.mean() + net.tra.share * align, {"flow": flow.detach(), "align": align.detach()}
