"""Trains the two networks that watch: the onset network and the visual encoder."""

from __future__ import annotations

from dataclasses import dataclass
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
from taro_rt.runtime.onsets import Onset, curve, render_logits
from taro_rt.runtime.prepare import IMAGENET_MEAN, IMAGENET_STD
from taro_rt.training.clips import sound, views
from taro_rt.training.fit import Recipe, fit
from taro_rt.training.mel import LogMel
from taro_rt.training.scenes import make_scene
from taro_rt.training.sounds import MATERIALS

MEAN, STD = torch.from_numpy(IMAGENET_MEAN), torch.from_numpy(IMAGENET_STD)
MEL_PER_FEATURE = 25
"""Mel frames (100 per second) behind one visual feature (4 per second)."""


@dataclass(frozen=True)
class ViewCache:
    """Rendered views of scenes first..first+n-1, memory-mapped."""

    onset_frames: npt.NDArray[np.uint8]
    """[n, 120, s, s, 3]"""
    visual_frames: npt.NDArray[np.uint8]
    """[n, 32, v, v, 3]"""
    onset_targets: Array
    """Probability of an onset [n, 120], see `onset_target`."""
    materials: Array
    """1 where a material sounds in the clip [n, 5], then its mean size [n, 5]."""
    mels: Array
    """Log-mel of the soundtrack [n, 816, 64]."""

    @staticmethod
    def open(folder: Path, n_clips: int, config: NetworkConfig) -> ViewCache:
        """Read the cache, rendering it first if it is not there."""
        names = ("onset_frames", "visual_frames", "onset_targets", "materials", "mels")
        if not (folder / "mels.npy").exists():
            folder.mkdir(parents=True, exist_ok=True)
            _render(folder, n_clips, config)
        return ViewCache(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))


def onset_target(times_s: Array, strengths: Array, n: int, fps: int) -> Array:
    """Target probability [n]: a triangle of one frame around each contact, higher for harder ones."""
    onsets = [Onset(float(t), 0.5 + 0.45 * float(s)) for t, s in zip(times_s, strengths, strict=True)]
    return curve(render_logits(onsets, n, fps))


def _render(folder: Path, n_clips: int, config: NetworkConfig) -> None:
    g, log_mel = config.geometry(), LogMel()

    def create(name: str, shape: tuple[int, ...], dtype: type) -> npt.NDArray[np.generic]:
        return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (n_clips, *shape))

    onset_frames = create("onset_frames", (g.onset_values, g.onset_crop, g.onset_crop, 3), np.uint8)
    visual_frames = create("visual_frames", (g.visual_frames, g.visual_size, g.visual_size, 3), np.uint8)
    targets = np.zeros((n_clips, g.onset_values), np.float32)
    materials = np.zeros((n_clips, 2, len(MATERIALS)), np.float32)
    mels = np.zeros((n_clips, g.mel_frames, g.mel_bins), np.float32)
    names = sorted(MATERIALS)
    for seed in range(n_clips):
        scene = make_scene(seed)
        seen = views(scene, config)
        onset_frames[seed], visual_frames[seed] = seen.onset_frames, seen.visual_frames
        targets[seed] = onset_target(seen.event_times_s, seen.event_strengths, g.onset_values, g.onset_fps)
        for i, name in enumerate(names):
            sizes = [e.size for e in scene.events if e.material == name]
            materials[seed, :, i] = (1.0, float(np.mean(sizes))) if sizes else (0.0, 0.5)
        mels[seed] = log_mel(torch.from_numpy(sound(scene))[None])[0, : g.mel_frames].numpy()
    np.save(folder / "onset_targets.npy", targets)
    np.save(folder / "materials.npy", materials)
    np.save(folder / "mels.npy", mels)


def train_onset(config: NetworkConfig, cache: ViewCache, recipe: Recipe, folder: Path) -> dict[str, Tensor]:
    """Onset network by cross entropy with the soft targets, on random two-second segments."""
    net, rng, segment = OnsetNet(config.onset), np.random.default_rng(21), config.onset.segment
    blind_to_stillness(net)
    n_clips, n_values = cache.onset_targets.shape

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rows = rng.integers(0, n_clips, 8)
        starts = rng.integers(0, n_values - segment + 1, 8)
        frames = np.stack([cache.onset_frames[r, s : s + segment] for r, s in zip(rows, starts, strict=True)])
        target = np.stack(
            [cache.onset_targets[r, s : s + segment] for r, s in zip(rows, starts, strict=True)]
        )
        logits = net(onset_input(augment(frames, rng)))
        wanted = torch.from_numpy(target)
        weight = 1 + 4 * wanted  # contacts are rare
        error = F.binary_cross_entropy_with_logits(logits, wanted, weight=weight)
        with torch.no_grad():
            gap = (torch.sigmoid(logits) - wanted).abs()
            figures = {
                "hit": gap[wanted > 0.4].mean().nan_to_num(0.0).item(),
                "rest": gap[wanted < 0.05].mean().item(),
            }
        return error, figures

    return fit(net, loss, recipe, folder)


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
    """Visual encoder with what only training needs: a small audio tower for the contrast and two heads."""

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
        self.heads = nn.Linear(dim, 2 * len(MATERIALS))
        self.scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.net(frames)  # [b, 32, dim]
        heard = self.audio((mel[:, : features.shape[1] * MEL_PER_FEATURE].transpose(1, 2) + 6.0) / 3.0)
        return features, heard.transpose(1, 2), self.heads(features.mean(1) * 10.0)


def train_visual(config: NetworkConfig, cache: ViewCache, recipe: Recipe, folder: Path) -> dict[str, Tensor]:
    """Visual encoder by audio-visual contrast of two-second segments (as CAVP) plus material and size."""
    net, rng, segment = VisualTrainer(config), np.random.default_rng(22), 8

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rows = np.sort(rng.choice(len(cache.mels), 12, replace=False))
        frames = visual_input(augment(cache.visual_frames[rows], rng, colour=False))
        features, heard, heads = net(frames, torch.from_numpy(cache.mels[rows]))
        seen = F.normalize(features.unflatten(1, (-1, segment)).mean(2).flatten(0, 1), dim=1)
        heard = F.normalize(heard.unflatten(1, (-1, segment)).mean(2).flatten(0, 1), dim=1)
        similarity = net.scale.clamp(max=4.0).exp() * seen @ heard.T
        same = torch.arange(len(similarity))
        contrast = 0.5 * (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same))
        materials = torch.from_numpy(cache.materials[rows])
        presence, size = heads.unflatten(1, (2, -1)).unbind(1)
        present = F.binary_cross_entropy_with_logits(presence, materials[:, 0])
        sizes = (materials[:, 0] * (torch.sigmoid(size) - materials[:, 1]).square()).sum() / materials[
            :, 0
        ].sum()
        hits = ((presence > 0) == (materials[:, 0] > 0)).float().mean()
        figures = {"contrast": contrast.item(), "material": hits.item(), "size": sizes.item()}
        return contrast + 2 * present + 4 * sizes, figures

    state = fit(net, loss, recipe, folder)
    return {key.removeprefix("net."): value for key, value in state.items() if key.startswith("net.")}


def augment(
    frames: npt.NDArray[np.uint8], rng: np.random.Generator, colour: bool = True
) -> npt.NDArray[np.uint8]:
    """Mirrored, and re-exposed per clip; with `colour`, channels are also permuted [b, t, h, w, 3]."""
    out = np.empty_like(frames)
    for i, clip in enumerate(frames):
        if rng.random() < 0.5:
            clip = clip[:, :, ::-1]
        if colour:
            clip = clip[..., rng.permutation(3)]
        gain, lift = rng.uniform(0.7, 1.3), rng.uniform(-25, 25)
        curve = np.clip(np.arange(256) * gain + lift, 0, 255).astype(np.uint8)
        out[i] = curve[clip]
    return out


def onset_input(frames: npt.NDArray[np.uint8]) -> Tensor:
    """[b, t, h, w, 3] bytes to the onset network's normalised [b, 3, t, h, w] (spec B2)."""
    x = (torch.from_numpy(frames).float() / 255 - MEAN) / STD
    return x.permute(0, 4, 1, 2, 3)


def visual_input(frames: npt.NDArray[np.uint8]) -> Tensor:
    """[b, t, h, w, 3] bytes to the visual encoder's [b, 3, t, h, w] in [0, 1] (spec B2)."""
    return (torch.from_numpy(frames).float() / 255).permute(0, 4, 1, 2, 3)
