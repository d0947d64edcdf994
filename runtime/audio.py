"""A sound in memory, and as a WAV file: the one product that is exact to the sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import MediaError


@dataclass(frozen=True)
class Audio:
    """Mono samples; its first one sounds with the first displayed frame."""

    samples: Array
    """float32 [n], full scale is -1 to 1."""
    rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate_hz


def fit_length(samples: Array, n: int, rate_hz: int = 16000, fade_s: float = 0.005) -> Array:
    """Exactly `n` samples [n]: silence is appended, or the rest is cut behind a linear fade-out.

    The rate only gives the length of the fade.
    """
    if len(samples) <= n:
        return np.pad(samples, (0, n - len(samples)))
    fitted = samples[:n].copy()
    n_fade = min(n, round(fade_s * rate_hz))
    ramp = np.arange(n_fade, 0, -1, dtype=np.float32) - 1  # the last sample is silent
    fitted[n - n_fade :] *= ramp / np.float32(max(n_fade, 1))
    return fitted


def write_wav(audio: Audio, path: Path, subtype: str = "PCM_16") -> None:
    """Write a WAV file, clipped to full scale and without dither. Raises `MediaError`."""
    samples = np.clip(audio.samples, -1.0, 1.0)
    try:
        soundfile.write(path, samples, audio.rate_hz, subtype=subtype, format="WAV")
    except (OSError, soundfile.LibsndfileError) as error:
        # the folder, because the name is mostly a temporary one
        raise MediaError(
            f"{path.parent}: the sound cannot be written there ({error}); choose another folder"
        ) from error
