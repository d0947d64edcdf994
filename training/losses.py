"""The paper's objective: conditional flow matching plus timestep-adaptive representation alignment (TRA).

Equation numbers are those of spec A2. Training heads wrap the network; the exporter never meets them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.mmdit import MMDiT

LAMBDA = 0.5
"""Weight of the alignment, equation (8)."""


@dataclass(frozen=True)
class Conditions:
    """What a batch is conditioned on."""

    onset: Tensor
    """Onset logits [b, 120]."""
    features: Tensor
    """Visual features [b, 32, dim]."""


def interpolant(t: Tensor, path: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha, sigma and their derivatives at t [b], each [b]: equation (1), `linear` or `vp`."""
    if path == "linear":
        return 1 - t, t, -torch.ones_like(t), torch.ones_like(t)
    half = math.pi / 2
    return torch.cos(half * t), torch.sin(half * t), -half * torch.sin(half * t), half * torch.cos(half * t)


class Aligned(nn.Module):
    """A transformer with an alignment head on the x stream after block `block` (counted from 1).

    Head of spec B8: Conv1d over the token axis (equation 9), SiLU, three linears with SiLU between.
    """

    def __init__(self, net: MMDiT, block: int, n_teacher: int, teacher_dim: int, hidden: int) -> None:
        super().__init__()
        self.net = net
        n_tokens = net.grid[0] * net.grid[1]
        width = net.config.width
        self.projectors = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv1d(n_tokens, n_teacher, 1),
                    nn.SiLU(),
                    nn.Linear(width, hidden),
                    nn.SiLU(),
                    nn.Linear(hidden, hidden),
                    nn.SiLU(),
                    nn.Linear(hidden, teacher_dim),
                )
            ]
        )
        self._hidden: Tensor | None = None
        net.joint_blocks[block - 1].register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, outputs: tuple[Tensor, Tensor]) -> None:
        self._hidden = outputs[1]

    def forward(self, latents: Tensor, t: Tensor, on: Conditions, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity, and the projected hidden state [b, n_teacher, teacher_dim]."""
        velocity = self.net(latents, t, on.onset, on.features, keep)
        if self._hidden is None:
            raise RuntimeError("the hook on the aligned block did not run")
        projected = self.projectors[0](self._hidden)
        self._hidden = None
        return velocity, projected


def flow_matching(
    net: Aligned, data: Tensor, t: Tensor, on: Conditions, keep: Tensor, path: str = "linear"
) -> tuple[Tensor, Tensor]:
    """L_CFM per sample [b], equation (3), for latents `data` [b, c, h, w]; and the projected hidden state."""
    noise = torch.randn_like(data)
    alpha, sigma, d_alpha, d_sigma = (x[:, None, None, None] for x in interpolant(t, path))
    velocity, projected = net(alpha * data + sigma * noise, t, on, keep)
    target = d_alpha * data + d_sigma * noise
    return (velocity - target).square().mean(dim=(1, 2, 3)), projected


def alignment(projected: Tensor, teacher: Tensor, t: Tensor, path: str = "linear") -> Tensor:
    """L_align, equation (6): negative cosine similarity per token, weighted by w(t) of equation (7)."""
    alpha, sigma, _, _ = interpolant(t, path)
    weight = alpha / (alpha + sigma + 1e-8)
    similarity = F.cosine_similarity(projected, teacher, dim=2).mean(1)
    return -(weight * similarity).mean()
