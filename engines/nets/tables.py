"""Fixed tables of the transformer (spec B4): positions, times, and which onset values each row listens to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from taro_rt.engines.nets.config import NetworkConfig

FREQUENCIES = 256


def timestep_features(times: Tensor) -> Tensor:
    """[cos(t f), sin(t f)] [s, 256] of times [s] in [0, 1], f_i = exp(-ln(10000) i / 128)."""
    half = FREQUENCIES // 2
    f = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=times.device) / half)
    angles = times[:, None] * f
    return torch.cat([torch.cos(angles), torch.sin(angles)], 1)


def sincos(positions: Tensor, width: int) -> Tensor:
    """[sin, cos] table [n, width] of float64 positions [n], omega_i = 10000^(-2 i / width)."""
    omega = 1 / 10000 ** (torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = positions[:, None] * omega
    return torch.cat([torch.sin(angles), torch.cos(angles)], 1).float()


def position_table(width: int, rows: int, columns: int) -> Tensor:
    """pos_embed [rows * columns, width]: the frequency position comes first (spec B4)."""
    h = torch.arange(rows, dtype=torch.float64).repeat_interleave(columns)
    w = torch.arange(columns, dtype=torch.float64).repeat(rows)
    return torch.cat([sincos(w, width // 2), sincos(h, width // 2)], 1)


def onset_windows(config: NetworkConfig) -> Tensor:
    """Interpolation matrix [onset values, n_t * window] of the frame-wise form: row i of the modulation sees
    the onset curve at its own centre and at multiples of `onset_step_s` around it."""
    c, g = config.transformer, config.geometry()
    if c.time_positions == 1:
        return torch.zeros(0)
    centre = (torch.arange(c.time_positions, dtype=torch.float64) + 0.5) * g.window_s / c.time_positions
    offset = (torch.arange(c.onset_window, dtype=torch.float64) - (c.onset_window - 1) / 2) * c.onset_step_s
    at = (centre[:, None] + offset).flatten() * g.onset_fps
    at = at.clamp(0, g.onset_values - 1)
    return torch.clamp(1 - (torch.arange(g.onset_values)[:, None] - at).abs(), min=0).float()
