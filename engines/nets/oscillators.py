"""Vocoder of the embedded bundle: log-mel to waveform by a bank of oscillators.

A convolutional vocoder such as HiFi-GAN answers a steady input with a wave that repeats every frame: all its
tones lie on multiples of 100 Hz, and at a small size it turns the partials of a struck body into noise. Here
tone and noise are given, and a small network only says how loud each is, 400 times a second:

    wave(n) = Re sum_j ramp(n - 40 j) sum_k (a_jk + b_jk r_jk) exp(2 pi i f_k n / 16000)

with amplitudes a of tones and b of noise, r a fixed complex noise as wide as its band, and `ramp` a triangle
that interpolates between grains. The inner sum and the ramp are one transposed convolution. Carriers and
noise repeat every two seconds, where windows may start: neighbouring windows agree in phase.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.config import OscillatorConfig

RATE_HZ, HOP = 16_000, 160
PERIOD_S = 2
GRAIN = 40
"""Samples between amplitudes: 2.5 ms, short enough for a click."""
A_FRAME = HOP // GRAIN
N_GRAINS = PERIOD_S * RATE_HZ // GRAIN
LOUDEST = 3.0
"""Bound of a log amplitude: a single oscillator never overflows."""


class Residual(nn.Module):
    """Two convolutions over time, plus their input."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class OscillatorVocoder(nn.Module):
    """Log-mel [b, m, bins] to wave [b, 160 m], at 16 kHz; what is louder than 1 is not clipped."""

    def __init__(self, config: OscillatorConfig) -> None:
        """`phasors` are exp(2 pi i f_k t) at the middle of every grain of a period, real and imaginary
        [2, grains, carriers]; `noise` is the same, each times its own complex noise of unit power; `grains`
        are the waves of a grain, real parts above negated imaginary ones [2 * carriers, 1, 2 * GRAIN]."""
        super().__init__()
        width, narrow = config.width, config.width // 2
        self.per_bin = config.per_bin
        carriers = config.mel_bins * config.per_bin
        self.conv_pre = nn.Conv1d(config.mel_bins, width, 7, padding=3)
        self.frames = nn.Sequential(*(Residual(width, d) for d in config.dilations))
        self.upsample = nn.ConvTranspose1d(width, narrow, 2 * A_FRAME, A_FRAME, padding=A_FRAME // 2)
        self.fine = nn.Sequential(*(Residual(narrow, d) for d in (1, 2)))
        self.levels = nn.Conv1d(narrow, 2 * carriers, 1)
        frequencies = carrier_frequencies(config.mel_bins, config.per_bin)
        turns = frequencies * np.arange(N_GRAINS)[:, None] * GRAIN / RATE_HZ  # [grains, carriers]
        phasors = np.exp(2j * np.pi * (turns % 1.0))
        noise = phasors * band_noise(frequencies)
        within = np.arange(-GRAIN, GRAIN) / RATE_HZ
        waves = np.exp(2j * np.pi * frequencies[:, None] * within) * (1 - np.abs(within) * RATE_HZ / GRAIN)
        # parameters, though never trained: half storage is theirs
        self.phasors = nn.Parameter(_two(phasors), requires_grad=False)
        self.noise = nn.Parameter(_two(noise), requires_grad=False)
        self.grains = nn.Parameter(_two(waves.conj()).flatten(0, 1)[:, None], requires_grad=False)

    def forward(self, mel: Tensor, first_grain: int = 0) -> Tensor:
        """`first_grain` turns the carriers to where in their period the sound begins."""
        tone, hiss = self.amplitudes(mel)  # [b, grains, carriers] each
        n = tone.shape[1]
        phasors, noise = (laid_out(table, first_grain, n) for table in (self.phasors, self.noise))
        turning = (tone.unsqueeze(1) * phasors + hiss.unsqueeze(1) * noise).transpose(2, 3).flatten(1, 2)
        return F.conv_transpose1d(turning, self.grains, stride=GRAIN, padding=GRAIN // 2).squeeze(1)

    def amplitudes(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """How loud tones and noise are [b, 4 m, carriers]: the mel itself, corrected by the network."""
        bins = mel.transpose(1, 2)  # [b, bins, m]
        x = self.frames(self.conv_pre((bins + 5.0) / 3.0))
        levels = self.levels(F.silu(self.fine(self.upsample(x))))
        level = F.interpolate(bins, scale_factor=float(A_FRAME), mode="linear")
        level = level.repeat_interleave(self.per_bin, 1).repeat(1, 2, 1)
        tone, hiss = torch.exp(torch.clamp(levels + level, max=LOUDEST)).transpose(1, 2).chunk(2, dim=2)
        return tone, hiss


def carrier_frequencies(mel_bins: int, per_bin: int) -> np.ndarray:
    """Frequencies [bins * per_bin] evenly spread on the mel scale, whole in a period: multiples of 0.5 Hz."""
    mel_top = 15 + 27 * np.log(8.0) / np.log(6.4)  # 8 kHz on the Slaney scale
    width = mel_top / (mel_bins + 1)
    mel = width * (0.5 + (np.arange(mel_bins * per_bin) + 0.5) / per_bin)
    hz = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
    return np.round(hz * PERIOD_S) / PERIOD_S


def band_noise(frequencies: np.ndarray) -> np.ndarray:
    """Complex noise [grains, carriers] of unit power, as wide as the carriers are apart."""
    rng = np.random.default_rng(20260101)
    white = rng.standard_normal((N_GRAINS, len(frequencies), 2)) @ np.array([1, 1j])
    spectrum = np.fft.fft(white, axis=0)
    hz = np.abs(np.fft.fftfreq(N_GRAINS, GRAIN / RATE_HZ))[:, None]
    apart = np.gradient(frequencies)
    shaped = np.fft.ifft(spectrum * np.exp(-0.5 * (hz / (0.6 * apart)) ** 2), axis=0)
    return shaped / np.sqrt((np.abs(shaped) ** 2).mean(0))


def laid_out(table: Tensor, first: int, n: int) -> Tensor:
    """A periodic table [2, period, k] from `first` on, over and over, for `n` grains [2, n, k]."""
    period = table.shape[1]
    times = -(-(first + n) // period)
    return table.repeat(1, times, 1)[:, first : first + n]


def _two(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack([values.real, values.imag]).astype(np.float32))
