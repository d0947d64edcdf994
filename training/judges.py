"""Networks that only judge: what kind of thing is heard, and whether sound and picture are in time.

Trained on real procedural soundtracks and never shown a generated one; the judge of kinds hears clips that no
other network is trained on.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.training.data import Sounds, Views
from taro_rt.training.fit import Recipe, fit
from taro_rt.training.mel import LogMel
from taro_rt.training.scenes import KINDS

FRAMES = 816
PARTS = 4
"""Two-second parts of a clip that are embedded one by one."""
EMBEDDING = 64


class KindJudge(nn.Module):
    """Log-mel [b, 816, 64] to embeddings of its parts [b, 4, 64] and logits of its kind [b, kinds]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 48, EMBEDDING)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.GroupNorm(8, o), nn.SiLU())
            for i, o in pairwise(widths)
        )
        self.out = nn.Linear(EMBEDDING, len(KINDS))

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        x = ((mel + 7.0) / 3.0).unsqueeze(1)
        for layer in self.layers:
            x = layer(x)
        columns = x.mean(3)  # [b, 64, 51]
        parts = F.adaptive_avg_pool1d(columns, PARTS).transpose(1, 2)
        return parts, self.out(parts.mean(1))


def train_kind_judge(sounds: Sounds, recipe: Recipe, folder: Path) -> None:
    """Cross entropy on whole soundtracks, with noise and level varied so that neither decides."""
    net, log_mel = KindJudge(), LogMel().to(recipe.device)

    def loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = rng.integers(0, len(sounds.kinds), 32)
        samples = sounds.samples[np.sort(rows)] / np.float32(32767) * rng.uniform(0.3, 1.6, (32, 1))
        mel = log_mel(torch.from_numpy(samples.astype(np.float32)).to(recipe.device))[:, :FRAMES]
        floor = -11.0 + 3.0 * torch.rand(len(mel), 1, 1, device=mel.device)
        _, logits = net(torch.maximum(mel, floor))
        kinds = torch.from_numpy(sounds.kinds[np.sort(rows)]).to(recipe.device)
        right = (logits.argmax(1) == kinds).float().mean().item()
        return F.cross_entropy(logits.float(), kinds, label_smoothing=0.05), {"right": right}

    fit(net, loss, recipe, folder)


class SyncJudge(nn.Module):
    """Does a log-mel [b, 816, 64] belong to these onset frames [b, 120, s, s, 3] (bytes) in time? Logits [b].

    Sees how much changes where from frame to frame, 8 x 8 cells, and hears the log-mel at the same rate.
    """

    CELLS = 8

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Sequential(nn.Conv1d(self.CELLS**2 + 1, 48, 5, padding=2), nn.SiLU())
        self.heard = nn.Sequential(nn.Conv1d(64, 48, 5, padding=2), nn.SiLU())
        self.both = nn.Sequential(
            nn.Conv1d(96, 64, 7, padding=3),
            nn.SiLU(),
            nn.Conv1d(64, 64, 7, 2, 3),
            nn.SiLU(),
            nn.Conv1d(64, 64, 7, 2, 3),
            nn.SiLU(),
        )
        self.out = nn.Linear(64, 1)

    def forward(self, change: Tensor, mel: Tensor) -> Tensor:
        """`change` [b, 65, 120] from `change_of`."""
        n = change.shape[2]
        heard = F.adaptive_avg_pool1d((mel[:, : round(n / 15 * 100)].transpose(1, 2) + 7.0) / 3.0, n)
        both = self.both(torch.cat([self.seen(change), self.heard(heard)], 1))
        return self.out(both.amax(2)).squeeze(1)


def change_of(frames: Tensor) -> Tensor:
    """Mean absolute change of every cell and of all, [b, 65, n], of frames [b, n, s, s, 3] in bytes."""
    grey = frames.float().mean(4) / 255
    change = F.pad((grey[:, 1:] - grey[:, :-1]).abs(), (0, 0, 0, 0, 1, 0))  # [b, n, s, s]
    cells = F.adaptive_avg_pool2d(change, SyncJudge.CELLS).flatten(2)
    every = torch.cat([cells, cells.mean(2, keepdim=True)], 2).transpose(1, 2)
    return torch.log(every + 1e-3) + 4.0


def train_sync_judge(views: Views, sounds: Sounds, recipe: Recipe, folder: Path) -> None:
    """True pairs against the same sound moved in time by 0.4 s or more, and against other clips' sound."""
    net, log_mel = SyncJudge(), LogMel().to(recipe.device)

    def loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = np.sort(rng.choice(len(views.events), 24, replace=False))
        change = change_of(torch.from_numpy(views.onset_frames[rows]).to(recipe.device))
        samples = torch.from_numpy(sounds.samples[rows] / np.float32(32767)).to(recipe.device)
        mel = log_mel(samples)[:, :FRAMES]
        moved = torch.stack([torch.roll(m, int(rng.integers(40, 760)), dims=0) for m in mel])
        other = mel.roll(1, dims=0)
        wrong = torch.where(torch.rand(len(mel), 1, 1, device=mel.device) < 0.7, moved, other)
        logits = net(torch.cat([change, change]), torch.cat([mel, wrong])).float()
        truth = torch.cat([torch.ones(len(mel)), torch.zeros(len(mel))]).to(logits.device)
        right = ((logits > 0) == (truth > 0)).float().mean().item()
        return F.binary_cross_entropy_with_logits(logits, truth), {"right": right}

    fit(net, loss, recipe, folder)
