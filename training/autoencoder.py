"""Trains the two sound networks: the VAE (log-mel to latents and back), the vocoder (log-mel to wave)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.engines.nets.vae import Vae
from taro_rt.engines.nets.vocoder import Vocoder
from taro_rt.training.clips import sound
from taro_rt.training.fit import Recipe, fit
from taro_rt.training.mel import HOP, LogMel
from taro_rt.training.scenes import make_scene

STFT_SIZES = (256, 512, 1024)
AUDIBLE = -6.0


def sound_cache(path: Path, n_clips: int) -> npt.NDArray[np.int16]:
    """Soundtracks of scenes 0..n-1 as int16 [n, samples], made once and memory-mapped from then on."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        clips = []
        for seed in range(n_clips):
            clips.append((sound(make_scene(seed)) * 32767).astype(np.int16))
        np.save(path, np.stack(clips))
    cache: npt.NDArray[np.int16] = np.load(path, mmap_mode="r")
    return cache


class Crops:
    """Random crops of cached soundtracks: [b, n] in [-1, 1], at a random level."""

    def __init__(self, cache: npt.NDArray[np.int16], seed: int) -> None:
        self.cache = cache
        self.rng = np.random.default_rng(seed)

    def draw(self, batch: int, n: int) -> Tensor:
        rows = self.rng.integers(0, len(self.cache), batch)
        starts = self.rng.integers(0, self.cache.shape[1] - n, batch)
        sound = np.stack([self.cache[r, s : s + n] for r, s in zip(rows, starts, strict=True)])
        level = self.rng.uniform(0.5, 1.2, (batch, 1))
        return torch.from_numpy((sound / 32767.0 * level).astype(np.float32))


def train_vae(
    config: NetworkConfig, cache: npt.NDArray[np.int16], recipe: Recipe, folder: Path
) -> dict[str, Tensor]:
    """VAE by L1 on log-mel plus a faint KL term."""
    net, log_mel, crops = Vae(config.vae, 1.0), LogMel(), Crops(cache, 11)
    nn.init.constant_(_bias(net.decoder.conv_out), -9.0)  # the floor of most bins: spares the first minutes

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            mel = log_mel(crops.draw(4, 128 * HOP - 1))  # [b, 128, 64]
        mean, log_variance = net.moments(mel)
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        difference = net(latents) - mel
        error, square = difference.abs().mean(), difference.square().mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        figures = {"l1": error.item(), "kl": divergence.item(), "std": mean.std().item()}
        return error + 0.1 * square + 2e-3 * divergence, figures

    return fit(net, loss, recipe, folder)


def train_vocoder(
    config: NetworkConfig, cache: npt.NDArray[np.int16], recipe: Recipe, folder: Path
) -> dict[str, Tensor]:
    """Vocoder by log-mel L1 and multi-resolution STFT distance (no adversary)."""
    net, log_mel, crops = Vocoder(config.vocoder), LogMel(), Crops(cache, 12)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        sound = crops.draw(8, 64 * HOP - 1)
        with torch.no_grad():
            mel = log_mel(sound)  # [b, 64, 64]
        wave = net(mel)[:, : sound.shape[1]]  # edges included: zero padding is a loud log-mel
        mel_error = (audible(log_mel(wave)) - audible(log_mel(sound))).abs().mean()
        spectral = torch.stack([spectral_distance(wave, sound, size) for size in STFT_SIZES]).mean()
        return mel_error + spectral, {"mel": mel_error.item(), "stft": spectral.item()}

    return fit(net, loss, recipe, folder)


def audible(mel: Tensor) -> Tensor:
    """Log-mel without what lies 60 dB below a loud tone: no effort is spent on room tone."""
    return torch.clamp(mel, min=AUDIBLE)


def spectral_distance(got: Tensor, want: Tensor, size: int) -> Tensor:
    """Spectral convergence plus log-magnitude L1 at one STFT size."""
    window = torch.hann_window(size)

    def magnitude(sound: Tensor) -> Tensor:
        spectrum = torch.stft(sound, size, size // 4, window=window, return_complex=True)
        power: Tensor = spectrum.real**2 + spectrum.imag**2
        return torch.sqrt(power + 1e-8)

    a, b = magnitude(got), magnitude(want)
    convergence = torch.linalg.norm(a - b) / (torch.linalg.norm(b) + 1e-3)
    distance: Tensor = convergence + F.l1_loss(torch.log(a + 3e-3), torch.log(b + 3e-3))
    return distance


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise ValueError("expected a convolution with a bias")
    return layer.bias
