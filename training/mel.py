"""Log-mel spectrogram of 16 kHz sound, as the published VAE and vocoder expect it (spec B8)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from taro_rt.engines.contract import Array
from taro_rt.training.sounds import RATE_HZ, Floats

N_FFT, HOP, BINS = 1024, 160, 64


def filters(n_fft: int = N_FFT, bins: int = BINS, high_hz: float = 8000.0) -> Array:
    """Triangular bands [bins, n_fft / 2 + 1] on the Slaney scale with Slaney area normalisation."""

    def to_mel(hz: Floats) -> Floats:
        linear = hz * 3 / 200
        return np.where(hz < 1000, linear, 15 + 27 * np.log(np.maximum(hz, 1e-9) / 1000) / np.log(6.4))

    def to_hz(mel: Floats) -> Floats:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    edges = to_hz(np.linspace(0.0, float(to_mel(np.array(high_hz))), bins + 2))
    frequency = np.linspace(0, RATE_HZ / 2, n_fft // 2 + 1)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((frequency - left) / (centre - left), (right - frequency) / (right - centre))
    return np.asarray(np.maximum(triangles, 0) * (2 / (right - left)), dtype=np.float32)


class LogMel(torch.nn.Module):
    """Sound [b, n] to log-mel [b, n // 160 + 1, 64]: frame k is centred on sample 160 k."""

    bands: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bands", torch.from_numpy(filters()))
        self.register_buffer("window", torch.hann_window(N_FFT))

    def forward(self, sound: Tensor) -> Tensor:
        with torch.autocast(sound.device.type, enabled=False):  # a logarithm needs all its digits
            padded = F.pad(sound.unsqueeze(1), (N_FFT // 2, N_FFT // 2), mode="reflect").squeeze(1)
            spectrum = torch.stft(padded, N_FFT, HOP, window=self.window, center=False, return_complex=True)
            mel = torch.matmul(self.bands, spectrum.abs())
            return torch.log(torch.clamp(mel, min=1e-5)).transpose(1, 2)
