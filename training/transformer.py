"""Trains the transformer on cached latents with the paper's objective."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.engines.nets.onset import OnsetNet
from taro_rt.engines.nets.vae import Vae
from taro_rt.runtime.onsets import FLOOR_LOGIT, Onset, render_logits
from taro_rt.runtime.prepare import with_margins
from taro_rt.training.data import Sounds, Views
from taro_rt.training.fit import STATE, Recipe, averaged, fit
from taro_rt.training.losses import Aligned, Conditions, Tra, objective
from taro_rt.training.mel import LogMel
from taro_rt.training.perception import VisualTrainer, augment, onset_input, visual_input
from taro_rt.training.teacher import GRID, WIDTH, AudioEncoder, read_teacher

Net = TypeVar("Net", bound=nn.Module)

BATCH = 32
SCALE_FILE = "latent_scale"
WATCHED_BY = ("vae", "onset", "visual")
"""The networks that encode examples."""
DROP = 0.1
"""Share of samples whose conditions are dropped (spec A2)."""
LOOKS = 2
"""Augmented views of every clip whose features are kept."""


@dataclass(frozen=True)
class Examples:
    """Everything the transformer is trained on; row r is the same scene throughout."""

    latents: Tensor
    """Unit-scale posterior means [n, c, h, w]."""
    spread: Tensor
    """Posterior standard deviation on the same scale."""
    mels: Tensor
    """Log-mel [n, 816, 64] in half precision: what the teacher hears."""
    features: Tensor
    """Visual features of several augmented views [views, n, 32, dim]."""
    onset_logits: Tensor
    """The onset network's own logits of as many views [views, n, 120]."""
    events: Tensor
    """True contacts of each clip, time and strength [n, most, 2]; NaN where a clip has fewer."""
    kinds: Tensor
    """[n]"""

    def first(self, n: int) -> Examples:
        """The first `n` scenes (views of the same memory)."""
        seen = {"features": self.features[:, :n], "onset_logits": self.onset_logits[:, :n]}
        heard = {f.name: getattr(self, f.name)[:n] for f in fields(self) if f.name not in seen}
        return Examples(**seen, **heard)


@dataclass(frozen=True)
class Objective:
    """What is trained: the whole method, or an ablation of it."""

    tra: Tra | None = field(default_factory=lambda: Tra(block=2, hidden=384))
    onset: bool = True
    """Onset-aware conditioning; without it every onset vector says that nothing happens."""
    near_noise: bool = True
    """Times twice as often near noise, where the conditions decide what will sound; else evenly, as in the
    paper."""


def frozen(folder: Path, net: Net, prefix: str = "") -> Net:
    """`net` with the EMA weights of a training folder, never to be trained again."""
    state = averaged(folder)
    net.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    return net.eval().requires_grad_(False)


def open_examples(config: NetworkConfig, views: Views, sounds: Sounds, runs: Path, name: str) -> Examples:
    """The cached clips as the trained networks see them; encoded once, then read from `runs / name`, and anew
    once one of these networks has other weights or more clips are asked for. Where a network is not there the
    file is taken as it is."""
    path = runs / f"{name}.safetensors"
    seen_by = {part: weights_of(runs / part) for part in WATCHED_BY if (runs / part / STATE).exists()}
    if path.exists() and seen_by.items() <= noted(path).items():
        examples = Examples(**load_file(path))
        if len(examples.kinds) >= len(views.events):
            return examples.first(len(views.events))
    examples = encode(config, views, sounds, runs)
    tensors = {f.name: getattr(examples, f.name).contiguous() for f in fields(Examples)}
    save_file(tensors, path, metadata=seen_by)
    return examples


def weights_of(folder: Path) -> str:
    """Hash of the averaged weights of a training folder."""
    digest = hashlib.sha256()
    for key, value in sorted(averaged(folder).items()):
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def noted(path: Path) -> dict[str, str]:
    """Hashes of the networks that encoded a file of examples."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


@torch.inference_mode()
def encode(config: NetworkConfig, views: Views, sounds: Sounds, runs: Path) -> Examples:
    """Run VAE, onset and visual network over the cached clips. The first call notes the latent scale."""
    vae = frozen(runs / "vae", Vae(config.vae, 1.0))
    onset = frozen(runs / "onset", OnsetNet(config.onset))
    visual = frozen(runs / "visual", VisualTrainer(config)).net
    log_mel, n, rng, g = LogMel(), len(views.events), np.random.default_rng(31), config.geometry()
    means, spreads, mels = [], [], []
    logits: list[list[Tensor]] = [[] for _ in range(LOOKS)]
    features: list[list[Tensor]] = [[] for _ in range(LOOKS)]
    for start in range(0, n, 8):
        rows = slice(start, min(start + 8, n))
        mel = log_mel(torch.from_numpy(sounds.samples[rows] / np.float32(32767)))[:, : config.mel_frames]
        mean, log_variance = vae.moments(mel)
        means.append(mean)
        spreads.append(torch.exp(0.5 * log_variance))
        mels.append(mel.half())
        for k in range(LOOKS):  # the first as it is
            frames, pictures = views.onset_frames[rows], views.visual_frames[rows]
            if k:
                frames, pictures = augment(frames, rng), augment(pictures, rng, colour=False)
            starts = range(0, g.onset_values, g.onset_segment)
            seen = np.stack([with_margins(clip, start, g) for clip in frames for start in starts])
            given = onset_input(np.asarray(seen, np.uint8))
            logits[k].append(onset(given).reshape(len(frames), -1))
            features[k].append(visual(visual_input(np.array(pictures))))
    if not (runs / SCALE_FILE).exists():
        (runs / SCALE_FILE).write_text(repr(1.0 / float(torch.cat(means).std())))
    scale = float((runs / SCALE_FILE).read_text())
    return Examples(
        latents=scale * torch.cat(means),
        spread=scale * torch.cat(spreads),
        mels=torch.cat(mels),
        features=torch.stack([torch.cat(views) for views in features]),
        onset_logits=torch.stack([torch.cat(views) for views in logits]),
        events=torch.from_numpy(np.array(views.events)),
        kinds=torch.from_numpy(np.array(sounds.kinds)),
    )


def train_transformer(
    config: NetworkConfig, examples: Examples, runs: Path, what: Objective, recipe: Recipe, folder: Path
) -> None:
    """L_CFM plus the weighted L_align with 10 % of the conditions dropped, equations (3) to (9)."""
    torch.manual_seed(recipe.seed)  # the transformer's start values come first: the same whatever is trained
    mmdit = MMDiT(config)
    for name, weight in mmdit.y_embedder.named_parameters():
        if name.endswith("weight"):
            nn.init.xavier_uniform_(weight)  # onset logits carry the timing: heard from the first step on
    first = mmdit.y_embedder.mlp[0]
    if config.transformer.time_positions == 1 and isinstance(first, nn.Linear):
        start_from_waves(first)
    net = Aligned(mmdit, what.tra, GRID, WIDTH)
    teacher = read_teacher(runs / "teacher").to(recipe.device) if what.tra else None
    centre = mean_heard(teacher, examples.mels, recipe.device) if what.tra and what.tra.centred else None

    def loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        data, on, mels = batch(config, examples, what, rng)
        data, on, mels = data.to(recipe.device), on.to(recipe.device), mels.to(recipe.device)
        u = rng.random(BATCH).astype(np.float32)
        t = torch.from_numpy(np.sqrt(u) if what.near_noise else u).clamp(1e-3, 1.0)
        keep = torch.from_numpy((rng.random(BATCH) >= DROP).astype(np.float32))
        t, keep = t.to(recipe.device), keep.to(recipe.device)
        features = heard(teacher, mels)
        features = features if centre is None else features - centre
        value, parts = objective(net, data, t, on, keep, features)
        noisy = parts["flow"][t > 0.9].mean().nan_to_num(1.0).item()
        figures = {"flow": parts["flow"].mean().item(), "noisy": noisy, "align": parts["align"].item()}
        return value, figures

    fit(net, loss, recipe, folder)


@torch.no_grad()
def start_from_waves(layer: nn.Linear) -> None:
    """Let a layer that sees the onset values of a whole window begin with its Fourier series: places in time
    are hard to learn from arbitrary sums."""
    n = layer.in_features
    orders = torch.arange(layer.out_features) // 2 % (n // 2) + 1
    phase = 2 * math.pi * orders[:, None] * torch.arange(n) / n
    even = torch.arange(layer.out_features)[:, None] % 2 == 0
    layer.weight.copy_(torch.where(even, torch.cos(phase), torch.sin(phase)) * math.sqrt(2 / n))


@torch.no_grad()
def heard(teacher: AudioEncoder | None, mels: Tensor) -> Tensor:
    """The teacher's features [b, m, e] of log-mels [b, 816, 64]; nothing without a teacher."""
    return mels.new_zeros(0) if teacher is None else teacher(mels).float()


@torch.no_grad()
def mean_heard(teacher: AudioEncoder | None, mels: Tensor, device: str) -> Tensor:
    """Mean over the clips `mels` [n, 816, 64] of the teacher's features at each place [m, e]."""
    chunks = mels.split(BATCH)
    return torch.stack([heard(teacher, x.float().to(device)).sum(0) for x in chunks]).sum(0) / len(mels)


def batch(
    config: NetworkConfig, examples: Examples, what: Objective, rng: np.random.Generator
) -> tuple[Tensor, Conditions, Tensor]:
    """Latents [b, c, h, w], their conditions, and the log-mels [b, 816, 64] behind them: random clips, each
    rotated in time by whole seconds so that anything can happen at any time."""
    g = config.geometry()
    data, onsets, features, mels = [], [], [], []
    n_views, n_clips = examples.onset_logits.shape[:2]
    shared_s = g.onset_values // g.onset_fps  # what all rates share of a window; the rest repeats its start
    for row in rng.integers(0, n_clips, BATCH):
        seconds, view = int(rng.integers(0, shared_s)), int(rng.integers(0, n_views))
        latents = examples.latents[row] + examples.spread[row] * torch.randn_like(examples.spread[row])
        data.append(latents[:, rotation(g.latent_frames, seconds, shared_s, g.latent_fps)])
        mels.append(examples.mels[row][rotation(g.mel_frames, seconds, shared_s, g.rate_hz / g.hop)].float())
        logits = examples.onset_logits[view, row]
        drawn = detector_like(examples.events[row], config, rng)  # also where it is not used: the same draws
        if rng.random() < 0.5:
            logits = drawn
        if not what.onset:
            logits = torch.full_like(logits, FLOOR_LOGIT)
        onsets.append(torch.roll(logits, seconds * g.onset_fps))
        features.append(torch.roll(examples.features[view, row], seconds * g.visual_fps, dims=0))
    on = Conditions(torch.stack(onsets), torch.stack(features))
    return torch.stack(data), on, torch.stack(mels)


def rotation(n: int, seconds: int, period_s: int, rate_hz: float) -> Tensor:
    """Where each of `n` frames comes from when time is rotated by `seconds` within `period_s`."""
    return (torch.arange(n) - round(seconds * rate_hz)) % round(period_s * rate_hz)


def detector_like(events: Tensor, config: NetworkConfig, rng: np.random.Generator) -> Tensor:
    """Logits [120] from true contacts [most, 2] with the faults of a detector: jitter, misses, noise."""
    g = config.geometry()
    onsets = [
        Onset(
            max(0.0, float(t) + 0.015 * rng.standard_normal()),
            float(np.clip(0.5 + 0.45 * s + 0.05 * rng.standard_normal(), 0.05, 0.98)),
        )
        for t, s in events.tolist()
        if not math.isnan(t) and rng.random() > 0.03
    ]
    logits = render_logits(onsets, g.onset_values, g.onset_fps)
    noise = rng.uniform(0.0, 0.8) * rng.standard_normal(g.onset_values)
    return torch.from_numpy((logits + noise).astype(np.float32))
