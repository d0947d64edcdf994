"""Trains the two sound networks: the VAE (log-mel to latents and back), the vocoder (log-mel to wave)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.engines.nets.vae import Vae
from taro_rt.engines.nets.vocoder import Vocoder
from taro_rt.training.data import Sounds, draw_sounds
from taro_rt.training.fit import Recipe, fit
from taro_rt.training.mel import HOP, LogMel

STFT_SIZES = (128, 256, 512, 1024, 2048)
AUDIBLE = -7.0
"""Log-mel about 65 dB below a loud tone: no effort is spent on what lies below."""


def train_vae(config: NetworkConfig, sounds: Sounds, recipe: Recipe, folder: Path) -> None:
    """VAE by L1 on log-mel plus a faint KL term."""
    net, log_mel = Vae(config.vae, 1.0), LogMel().to(recipe.device)
    nn.init.constant_(_bias(net.decoder.conv_out), -9.0)  # the floor of most bins: spares the first minutes

    def loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        mel = log_mel(draw_sounds(sounds, rng, 4, 128 * HOP - 1).to(recipe.device))  # [b, 128, 64]
        mean, log_variance = (x.float() for x in net.moments(mel))
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        difference = net(latents).float() - mel
        error, square = difference.abs().mean(), difference.square().mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        figures = {"l1": error.item(), "kl": divergence.item(), "std": mean.std().item()}
        return error + 0.1 * square + 2e-3 * divergence, figures

    fit(net, loss, recipe, folder)


def train_vocoder(config: NetworkConfig, sounds: Sounds, recipe: Recipe, folder: Path) -> None:
    """Vocoder by log-mel L1 and multi-resolution STFT distance (no adversary)."""
    net, log_mel = Vocoder(config.vocoder), LogMel().to(recipe.device)

    def loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        sound = draw_sounds(sounds, rng, 8, 64 * HOP - 1).to(recipe.device)
        mel = log_mel(sound)  # [b, 64, 64]
        wave = net(mel)[:, : sound.shape[1]].float()  # edges included: zero padding is a loud log-mel
        mel_error = (audible(log_mel(wave)) - audible(mel)).abs().mean()
        spectral = torch.stack([spectral_distance(wave, sound, size) for size in STFT_SIZES]).mean()
        return mel_error + spectral, {"mel": mel_error.item(), "stft": spectral.item()}

    fit(net, loss, recipe, folder)


def audible(mel: Tensor) -> Tensor:
    """Log-mel without what cannot be heard beside the rest."""
    return torch.clamp(mel, min=AUDIBLE)


def spectral_distance(got: Tensor, want: Tensor, size: int) -> Tensor:
    """Spectral convergence plus log-magnitude L1 at one STFT size."""
    a, b = magnitude(got, size), magnitude(want, size)
    convergence = torch.linalg.norm(a - b) / (torch.linalg.norm(b) + 1e-3)
    distance: Tensor = convergence + F.l1_loss(torch.log(a + 3e-3), torch.log(b + 3e-3))
    return distance


def magnitude(sound: Tensor, size: int) -> Tensor:
    """Magnitudes of a Hann STFT with a hop of a quarter window; never quite zero, so that it has a slope."""
    window = torch.hann_window(size, device=sound.device)
    spectrum = torch.stft(sound, size, size // 4, window=window, return_complex=True)
    power: Tensor = spectrum.real**2 + spectrum.imag**2
    return torch.sqrt(power + 1e-8)


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise ValueError("expected a convolution with a bias")
    return layer.bias
