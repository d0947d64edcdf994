"""Trains the two networks that watch: the onset network and the visual encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.contract import Array
from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.engines.nets.frames import TemporalConv
from taro_rt.engines.nets.onset import OnsetNet
from taro_rt.engines.nets.visual import VisualNet
from taro_rt.engines.stages import IMAGENET_MEAN, IMAGENET_STD
from taro_rt.runtime.onsets import Onset, curve, render_logits
from taro_rt.runtime.prepare import with_margins
from taro_rt.training.data import Pictures, Sounds, Views
from taro_rt.training.fit import Recipe, fit
from taro_rt.training.mel import LogMel
from taro_rt.training.scenes import KINDS
from taro_rt.training.sounds import MATERIALS

MEAN, STD = torch.from_numpy(IMAGENET_MEAN), torch.from_numpy(IMAGENET_STD)
MEL_PER_FEATURE = 25
"""Mel frames (100 per second) behind one visual feature (4 per second)."""
SEGMENT = 8
"""Visual features of the two seconds that are contrasted."""
Bytes = npt.NDArray[np.uint8]


def onset_targets(events: Array, n: int, fps: int) -> Array:
    """Target probability [clips, n] of events [clips, most, 2]: a triangle of one frame around each contact,
    higher for harder ones."""
    rows = []
    for contacts in events:
        known = contacts[~np.isnan(contacts[:, 0])]
        onsets = [Onset(float(t), 0.5 + 0.45 * float(s)) for t, s in known]
        rows.append(curve(render_logits(onsets, n, fps)))
    return np.stack(rows)


def train_onset(config: NetworkConfig, views: Views, recipe: Recipe, folder: Path) -> None:
    """Onset network by cross entropy with the soft targets, on random segments and their margins."""
    net, g = OnsetNet(config.onset), config.geometry()
    segment = g.onset_segment
    blind_to_stillness(net)
    targets = onset_targets(views.events, g.onset_values, g.onset_fps)

    def loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = rng.integers(0, len(targets), 16)
        starts = rng.integers(0, targets.shape[1] - segment + 1, len(rows))
        drawn = list(zip(rows, starts, strict=True))
        seen = [with_margins(views.onset_frames[r], s, g) for r, s in drawn]
        frames = np.asarray(np.stack(seen), np.uint8)
        wanted = torch.from_numpy(np.stack([targets[r, s : s + segment] for r, s in drawn]))
        wanted = wanted.to(recipe.device)
        logits = net(onset_input(augment(frames, rng)).to(recipe.device)).float()
        error = F.binary_cross_entropy_with_logits(logits, wanted, weight=1 + 4 * wanted)  # contacts are rare
        with torch.no_grad():
            gap = (torch.sigmoid(logits) - wanted).abs()
            hit = gap[wanted > 0.4].mean().nan_to_num(0.0).item()
            figures = {"hit": hit, "rest": gap[wanted < 0.05].mean().item()}
        return error, figures

    fit(net, loss, recipe, folder)


@torch.no_grad()
def blind_to_stillness(net: OnsetNet) -> None:
    """Start most channels of the stem without response to a still picture: their temporal taps sum to zero.

    What moves is faint beside what stands still; the norm behind such a channel brings it to full scale.
    (Without this nothing was learned in 250 steps.)
    """
    temporal = next(m for m in net.net.model.stem if isinstance(m, TemporalConv))
    moving = temporal.weight[temporal.weight.shape[0] // 4 :]
    moving -= moving.mean(2, keepdim=True)


class VisualTrainer(nn.Module):
    """Visual encoder with what only training needs: a small audio tower for the contrast, and heads that say
    the kind of every two seconds, and material and size over the clip."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.visual.dim
        self.net = VisualNet(config.visual)
        self.audio = nn.Sequential(
            nn.Conv1d(config.vocoder.mel_bins, 128, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(128, 128, 5, stride=5),
            nn.GELU(),
            nn.Conv1d(128, dim, 5, stride=5),
        )
        self.kind = nn.Linear(dim, len(KINDS))
        self.heads = nn.Linear(dim, 2 * len(MATERIALS))
        self.scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Features [b, 32, dim] and what the tower hears [b, 32, dim]."""
        features = self.net(frames)
        heard = self.audio((mel[:, : features.shape[1] * MEL_PER_FEATURE].transpose(1, 2) + 6.0) / 3.0)
        return features.float(), heard.transpose(1, 2).float()

    def contrast(self, features: Tensor, heard: Tensor) -> Tensor:
        """Cross entropy of finding each two seconds' sound by its picture and the other way (as CAVP)."""
        seen, heard = (F.normalize(segments(x), dim=1) for x in (features, heard))
        similarity = self.scale.clamp(max=4.0).exp() * seen @ heard.T
        same = torch.arange(len(similarity), device=similarity.device)
        return 0.5 * (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same))


def segments(x: Tensor) -> Tensor:
    """Mean of every two seconds, [b, 32, d] to [4 b, d]."""
    return x.unflatten(1, (-1, SEGMENT)).mean(2).flatten(0, 1)


def train_visual(
    config: NetworkConfig, pictures: Pictures, sounds: Sounds, recipe: Recipe, folder: Path
) -> None:
    """Visual encoder by contrast with the sound, plus kind, material and size.

    Features have length 1, so the heads read them times 10.
    """
    net, log_mel = VisualTrainer(config), LogMel().to(recipe.device)

    def loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = np.sort(rng.choice(len(pictures.materials), 24, replace=False))
        frames = visual_input(augment(pictures.visual_frames[rows], rng, colour=rng.random() < 0.5))
        mel = log_mel(torch.from_numpy(sounds.samples[rows] / np.float32(32767)).to(recipe.device))
        features, heard = net(frames.to(recipe.device), mel)
        contrast = net.contrast(features, heard)
        kinds = torch.from_numpy(sounds.kinds[rows]).to(recipe.device)
        said = net.kind(segments(features) * 10.0).float()
        kind = F.cross_entropy(said, kinds.repeat_interleave(len(said) // len(kinds)), label_smoothing=0.05)
        materials = torch.from_numpy(pictures.materials[rows]).to(recipe.device)
        presence, size = net.heads(features.mean(1) * 10.0).float().unflatten(1, (2, -1)).unbind(1)
        present = F.binary_cross_entropy_with_logits(presence, materials[:, 0])
        sizes = materials[:, 0] * (torch.sigmoid(size) - materials[:, 1]).square()
        size_error = sizes.sum() / materials[:, 0].sum().clamp(min=1)
        right = (said.argmax(1).view(len(kinds), -1) == kinds[:, None]).float().mean()
        figures = {"contrast": contrast.item(), "kind": right.item(), "size": size_error.item()}
        return contrast + kind + 2 * present + 4 * size_error, figures

    fit(net, loss, recipe, folder)


def augment(frames: Bytes, rng: np.random.Generator, colour: bool = True) -> Bytes:
    """Mirrored, and re-exposed per clip; with `colour`, channels are also permuted [b, t, h, w, 3]."""
    out = np.empty_like(frames)
    for i, clip in enumerate(frames):
        if rng.random() < 0.5:
            clip = clip[:, :, ::-1]
        if colour:
            clip = clip[..., rng.permutation(3)]
        gain, lift = rng.uniform(0.6, 1.4), rng.uniform(-30, 30)
        curve = np.clip(np.arange(256) * gain + lift, 0, 255).astype(np.uint8)
        out[i] = curve[clip]
    return out


def onset_input(frames: Bytes) -> Tensor:
    """[b, t, h, w, 3] bytes to the onset network's normalised [b, 3, t, h, w] (spec B2)."""
    x = (torch.from_numpy(frames).float() / 255 - MEAN) / STD
    return x.permute(0, 4, 1, 2, 3)


def visual_input(frames: Bytes) -> Tensor:
    """[b, t, h, w, 3] bytes to the visual encoder's [b, 3, t, h, w] in [0, 1] (spec B2)."""
    return (torch.from_numpy(frames).float() / 255).permute(0, 4, 1, 2, 3)
