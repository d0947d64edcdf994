"""The frozen audio encoder that TRA aligns to: a small masked-spectrogram autoencoder.

Stands in for EAT, whose weights cannot be had here. As there, a log-mel is cut into patches, most of which
are hidden; the encoder sees the rest, and a light decoder, thrown away later, must say what was hidden.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from taro_rt.engines.nets.tables import position_table
from taro_rt.training.data import Sounds, draw_sounds
from taro_rt.training.fit import Recipe, averaged, fit
from taro_rt.training.mel import HOP, LogMel

FRAMES, BINS = 816, 64
PATCH = 16
GRID = (FRAMES // PATCH, BINS // PATCH)
N_TOKENS = GRID[0] * GRID[1]
WIDTH = 128
HIDDEN_SHARE = 0.75
MEAN, SPREAD = -7.0, 3.0
"""Of a typical log-mel."""


def patches(mel: Tensor) -> Tensor:
    """Log-mel [b, 816, 64] as normalised patches [b, 204, 256], time-major."""
    tiles = ((mel - MEAN) / SPREAD).unflatten(2, (GRID[1], PATCH)).unflatten(1, (GRID[0], PATCH))
    return tiles.transpose(2, 3).flatten(3).flatten(1, 2)  # [b, t, 16, f, 16] -> [b, t * f, 256]


def blocks(depth: int, width: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, width // 32, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)


class AudioEncoder(nn.Module):
    """Log-mel [b, 816, 64] to tokens [b, 204, 128]; with `shown` [b, k], only those patches are seen."""

    position: Tensor

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.proj = nn.Linear(PATCH * PATCH, WIDTH)
        self.register_buffer("position", position_table(WIDTH, *GRID), persistent=False)
        self.blocks = blocks(depth, WIDTH)

    def forward(self, mel: Tensor, shown: Tensor | None = None) -> Tensor:
        x = self.proj(patches(mel)) + self.position
        if shown is not None:
            x = x.gather(1, shown[..., None].expand(-1, -1, WIDTH))
        return self.blocks(x)


class Masked(nn.Module):
    """The encoder with what only its training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = AudioEncoder()
        self.nothing = nn.Parameter(torch.zeros(WIDTH))
        self.decoder = blocks(1, WIDTH)
        self.out = nn.Linear(WIDTH, PATCH * PATCH)

    def forward(self, mel: Tensor, order: Tensor) -> Tensor:
        """Mean square error on hidden patches, each brought to unit deviation; `order` [b, 204] is random."""
        n_shown = round((1 - HIDDEN_SHARE) * N_TOKENS)
        shown, hidden = order[:, :n_shown], order[:, n_shown:]
        seen = self.encoder(mel, shown)
        x = self.nothing.to(seen.dtype).expand(len(mel), N_TOKENS, WIDTH)
        x = x.scatter(1, shown[..., None].expand(-1, -1, WIDTH), seen)
        said = self.out(self.decoder(x + self.encoder.position))
        want = patches(mel)
        want = (want - want.mean(2, keepdim=True)) / (want.std(2, keepdim=True) + 0.1)
        error = (said.float() - want).square().mean(2)
        return error.gather(1, hidden).mean()


def train_teacher(sounds: Sounds, recipe: Recipe, folder: Path) -> None:
    """Masked modelling of the training soundtracks."""
    net, log_mel = Masked(), LogMel().to(recipe.device)

    def loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        mel = log_mel(draw_sounds(sounds, rng, 32, FRAMES * HOP).to(recipe.device))[:, :FRAMES]
        order = torch.rand(len(mel), N_TOKENS, device=mel.device).argsort(1)
        return net(mel, order), {}

    fit(net, loss, recipe, folder)


def read_teacher(folder: Path) -> AudioEncoder:
    """The frozen encoder of a training folder."""
    net, prefix = AudioEncoder(), "encoder."
    state = averaged(folder)
    net.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    return net.eval().requires_grad_(False)
