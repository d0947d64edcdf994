"""Trains the transformer on cached latents with the paper's objective."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.engines.nets.onset import OnsetNet
from taro_rt.engines.nets.vae import Vae
from taro_rt.runtime.onsets import Onset, render_logits
from taro_rt.training.fit import Recipe, fit
from taro_rt.training.losses import LAMBDA, Aligned, Conditions, alignment, flow_matching
from taro_rt.training.perception import ViewCache, VisualTrainer, augment, onset_input, visual_input
from taro_rt.training.scenes import make_scene

Net = TypeVar("Net", bound=nn.Module)

BATCH = 32
SCALE_FILE = "latent_scale"
DROP = 0.1
"""Share of samples whose conditions are dropped (spec A2)."""


@dataclass(frozen=True)
class Examples:
    """Everything the transformer is trained on; row r is scene r."""

    latents: Tensor
    """Unit-scale posterior means [n, c, h, w]."""
    spread: Tensor
    """Posterior standard deviation on the same scale."""
    features: Tensor
    """Visual features of several augmented views [views, n, 32, dim]."""
    onset_logits: Tensor
    """The onset network's own logits [n, 120]."""
    events: Tensor
    """True contacts of each clip, time and strength [n, most, 2]; NaN where a clip has fewer."""
    teacher: Tensor
    """Features of the frozen audio tower [n, 32, dim]."""


def frozen(folder: Path, net: Net, prefix: str = "") -> Net:
    """`net` with the EMA weights of a training folder, never to be trained again."""
    state = load_file(folder / "ema.safetensors")
    net.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    return net.eval().requires_grad_(False)


def open_examples(config: NetworkConfig, cache: ViewCache, runs: Path) -> Examples:
    """The cached clips as the trained networks see them; encoded once, then read from `runs`."""
    path = runs / "examples.safetensors"
    if not path.exists():
        examples = encode(config, cache, runs)
        save_file({f.name: getattr(examples, f.name) for f in fields(Examples)}, path)
    return Examples(**load_file(path))


@torch.inference_mode()
def encode(config: NetworkConfig, cache: ViewCache, runs: Path) -> Examples:
    """Run VAE, onset and visual network over the cached clips; notes the latent scale in `runs`."""
    vae = frozen(runs / "vae", Vae(config.vae, 1.0))
    onset = frozen(runs / "onset", OnsetNet(config.onset))
    visual = frozen(runs / "visual", VisualTrainer(config))
    n, rng = len(cache.mels), np.random.default_rng(31)
    means, spreads, logits, heard = [], [], [], []
    seen: list[list[Tensor]] = [[], [], []]
    for start in range(0, n, 8):
        rows = slice(start, min(start + 8, n))
        mel = torch.from_numpy(np.array(cache.mels[rows]))
        mean, log_variance = vae.moments(mel)
        means.append(mean)
        spreads.append(torch.exp(0.5 * log_variance))
        frames = cache.onset_frames[rows]
        segments = onset_input(np.array(frames).reshape(-1, config.onset.segment, *frames.shape[2:]))
        logits.append(onset(segments).reshape(len(frames), -1))
        for views in seen:
            pixels = augment(cache.visual_frames[rows], rng, colour=False)
            views.append(visual.net(visual_input(pixels)))
        heard.append(visual(visual_input(np.array(cache.visual_frames[rows])), mel)[1])
    scale = 1.0 / float(torch.cat(means).std())
    (runs / SCALE_FILE).write_text(repr(scale))
    contacts = [
        torch.tensor([[e.time_s, e.strength] for e in make_scene(seed).events]).reshape(-1, 2)
        for seed in range(n)
    ]
    return Examples(
        latents=scale * torch.cat(means),
        spread=scale * torch.cat(spreads),
        features=torch.stack([torch.cat(views) for views in seen]),
        onset_logits=torch.cat(logits),
        events=nn.utils.rnn.pad_sequence(contacts, batch_first=True, padding_value=torch.nan),
        teacher=torch.cat(heard).contiguous(),
    )


def train_transformer(
    config: NetworkConfig, examples: Examples, recipe: Recipe, folder: Path
) -> dict[str, Tensor]:
    """L_CFM + 0.5 L_align with 10 % of the conditions dropped; returns the EMA state of the transformer."""
    mmdit = MMDiT(config)
    for name, weight in mmdit.y_embedder.named_parameters():
        if name.endswith("weight"):
            nn.init.xavier_uniform_(weight)  # onset logits carry the timing: heard from the first step on
    _, n_teacher, teacher_dim = examples.teacher.shape
    net = Aligned(mmdit, max(1, config.transformer.depth // 2), n_teacher, teacher_dim, hidden=384)
    rng = np.random.default_rng(41)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        data, on, teacher = batch(config, examples, rng)
        # Twice as often near noise, where the conditions decide what will sound.
        t = torch.from_numpy(np.sqrt(rng.random(BATCH)).astype(np.float32)).clamp(1e-3, 1.0)
        keep = torch.from_numpy((rng.random(BATCH) >= DROP).astype(np.float32))
        error, projected = flow_matching(net, data, t, on, keep)
        aligned = alignment(projected, teacher, t)
        noisy = error[t > 0.9].mean().nan_to_num(1.0).item()
        figures = {"flow": error.mean().item(), "noisy": noisy, "align": aligned.item()}
        return error.mean() + LAMBDA * aligned, figures

    state = fit(net, loss, recipe, folder)
    return {key.removeprefix("net."): value for key, value in state.items() if key.startswith("net.")}


def batch(
    config: NetworkConfig, examples: Examples, rng: np.random.Generator
) -> tuple[Tensor, Conditions, Tensor]:
    """Random clips, each rotated in time by whole seconds so that anything can happen at any time."""
    g = config.geometry()
    rows = rng.integers(0, len(examples.latents), BATCH)
    data, onsets, features, teachers = [], [], [], []
    period = round(g.onset_values / g.onset_fps * g.latent_fps)  # 200 latent frames: the part all rates share
    for r in rows:
        seconds = int(rng.integers(0, g.onset_values // g.onset_fps))
        latents = examples.latents[r] + examples.spread[r] * torch.randn_like(examples.spread[r])
        at = (torch.arange(g.latent_frames) - round(seconds * g.latent_fps)) % period
        data.append(latents[:, at])
        logits = examples.onset_logits[r] if rng.random() < 0.5 else detector_like(examples, r, config, rng)
        onsets.append(torch.roll(logits, seconds * g.onset_fps))
        view = examples.features[rng.integers(0, len(examples.features)), r]
        features.append(torch.roll(view, seconds * g.visual_fps, dims=0))
        teachers.append(torch.roll(examples.teacher[r], seconds * g.visual_fps, dims=0))
    return torch.stack(data), Conditions(torch.stack(onsets), torch.stack(features)), torch.stack(teachers)


def detector_like(examples: Examples, row: int, config: NetworkConfig, rng: np.random.Generator) -> Tensor:
    """Logits [120] from the true contact times with the faults of a detector: jitter, misses, noise."""
    g = config.geometry()
    onsets = [
        Onset(
            max(0.0, float(t) + 0.015 * rng.standard_normal()),
            float(np.clip(0.5 + 0.45 * s + 0.05 * rng.standard_normal(), 0.05, 0.98)),
        )
        for t, s in examples.events[row].tolist()
        if not math.isnan(t) and rng.random() > 0.03
    ]
    logits = render_logits(onsets, g.onset_values, g.onset_fps)
    noise = rng.uniform(0.0, 0.8) * rng.standard_normal(g.onset_values)
    return torch.from_numpy((logits + noise).astype(np.float32))
