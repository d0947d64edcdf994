"""Trains the two sound networks: the VAE (log-mel to latents and back), the vocoder (log-mel to wave)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from taro_rt.engines.nets.config import NetworkConfig, OscillatorConfig
from taro_rt.engines.nets.oscillators import A_FRAME, N_GRAINS, OscillatorVocoder
from taro_rt.engines.nets.vae import Vae
from taro_rt.training.data import Sounds, draw_sounds
from taro_rt.training.fit import Recipe, fit
from taro_rt.training.mel import HOP, N_FFT, LogMel, filters

SCALES = {128: 8, 256: 16, 512: 40, 1024: 64, 2048: 128}
"""Samples of a window, and mel bands: what a click, and what a partial is made of."""
LEVELS = (-2.0, 3.0)
"""Powers of two that sounds are scaled by for the vocoder."""
BLUR = 0.1
"""Added to the spread of its latents, whose own deviation is about 1.3."""
FAINT = 1e-4
"""Added to the loudness of a band of 1024 samples: 80 dB below a loud tone, about the floor of a room."""


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


def train_vocoder(config: NetworkConfig, vae: Vae, sounds: Sounds, recipe: Recipe, folder: Path) -> None:
    """Vocoder by the loudness of bands, in long windows and in short ones (no adversary).

    Half of its log-mels come out of `vae`, of latents as uncertain as generated ones, and levels go beyond
    those of clips: guidance makes some sounds that loud.
    """
    assert isinstance(config.vocoder, OscillatorConfig)
    net, log_mel = OscillatorVocoder(config.vocoder), LogMel().to(recipe.device)
    vae = vae.to(recipe.device)
    nn.init.zeros_(net.levels.weight)
    nn.init.constant_(_bias(net.levels), -3.0)  # about what a bin's own loudness asks of its oscillators
    bands = Bands().to(recipe.device)

    def loss(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        level = torch.from_numpy(2.0 ** rng.uniform(*LEVELS, (8, 1)).astype(np.float32))
        sound = (level * draw_sounds(sounds, rng, 8, 64 * HOP - 1)).to(recipe.device)
        mel = log_mel(sound)  # [b, 64, 64]
        with torch.no_grad():
            mean, log_variance = vae.moments(mel[:4])
            spread = torch.exp(0.5 * log_variance) + BLUR
            mel[:4] = vae(mean + spread * torch.randn_like(mean))
        first = A_FRAME * int(rng.integers(0, N_GRAINS // A_FRAME))
        wave = net(mel, first)[:, : sound.shape[1]].float()
        errors = bands(wave, sound)
        return errors.mean(), {f"{size}": e.item() for size, e in zip(SCALES, errors, strict=True)}

    fit(net, loss, recipe, folder)


class Bands(nn.Module):
    """Mean differences [scales] of the log loudness of mel bands, between two sounds [b, n]."""

    def __init__(self) -> None:
        super().__init__()
        for size, bins in SCALES.items():
            self.register_buffer(f"filters{size}", torch.from_numpy(filters(size, bins)))
            self.register_buffer(f"window{size}", torch.hann_window(size))

    def forward(self, got: Tensor, want: Tensor) -> Tensor:
        both = torch.cat([got, want])
        errors = []
        with torch.autocast(both.device.type, enabled=False):
            for size in SCALES:
                window, bands = getattr(self, f"window{size}"), getattr(self, f"filters{size}")
                spectrum = torch.stft(both, size, size // 4, window=window, return_complex=True)
                # never quite zero, so that it has a slope
                magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-10)
                loudness = torch.log(bands @ magnitude + FAINT * size / N_FFT)
                a, b = loudness.chunk(2)
                errors.append((a - b).abs().mean())
        return torch.stack(errors)


def _bias(layer: nn.Conv1d | nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise ValueError("expected a convolution with a bias")
    return layer.bias
