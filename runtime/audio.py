"""A sound, in memory or in a file of its own."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import EngineError, MediaError

BLOCK_S = 0.5
"""Sound that is worked on at a time."""
FADE_S = 0.005
"""Length of the fade-out where a sound is cut."""


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

    def blocks(self) -> Iterator[Array]:
        """The samples in order, half a second at a time; those of a sound in a file leave memory again."""
        n = round(BLOCK_S * self.rate_hz)
        for start in range(0, len(self.samples), n):
            yield np.array(self.samples[start : start + n])
            _let_go(self.samples)


class Spool:
    """Takes a sound as it comes, in memory or in an unnamed file that vanishes with the process."""

    def __init__(self, rate_hz: int, folder: Path | None = None) -> None:
        """`folder` is where the file lies; None keeps the sound in memory. Raises `MediaError`."""
        self._rate_hz = rate_hz
        self._folder = folder
        self._parts: list[Array] = []
        self.n_samples = 0
        """How many came so far."""
        self._file: IO[bytes] | None = None
        if folder is not None:
            try:
                self._file = TemporaryFile(dir=folder)  # noqa: SIM115 (see close)
            except OSError as error:
                raise self._refusal(error) from error

    def add(self, samples: Array) -> None:
        """Append samples [n]. Raises `EngineError` unless all are finite, `MediaError` for a full disk."""
        if not np.isfinite(samples).all():
            raise EngineError("the sound: expected finite values, got others; try another backend or seed")
        self.n_samples += len(samples)
        if self._file is None:
            self._parts.append(samples)
            return
        try:
            self._file.write(samples.astype(np.float32).tobytes())
        except OSError as error:
            raise self._refusal(error) from error

    def audio(self, n: int) -> Audio:
        """All of it, `n` samples long: see `fit_length`."""
        if self._file is None:
            return Audio(fit_length(np.concatenate(self._parts), n, self._rate_hz), self._rate_hz)
        try:
            if self.n_samples < n:
                self._file.truncate(4 * n)  # after what was written: silence
            self._file.flush()
            samples: Array = np.memmap(self._file, np.float32, "r+", shape=(n,))
        except OSError as error:
            raise self._refusal(error) from error
        if self.n_samples > n:
            n_fade = min(n, round(FADE_S * self._rate_hz))
            samples[n - n_fade :] = fit_length(np.append(samples[n - n_fade :], 0), n_fade, self._rate_hz)
        return Audio(samples, self._rate_hz)

    def close(self) -> None:
        """Let the file go; a sound that was taken from it keeps its own hold on it."""
        if self._file is not None:
            self._file.close()

    def _refusal(self, error: OSError) -> MediaError:
        return MediaError(
            f"{self._folder}: the sound cannot be kept there ({error.strerror}); choose another output folder"
        )


def fit_length(samples: Array, n: int, rate_hz: int = 16000, fade_s: float = FADE_S) -> Array:
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


def _let_go(samples: Array) -> None:
    """Drop the pages of a mapped file from memory; the file keeps them."""
    base: object = samples
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
