"""What may be asked of a sound on its way into a file: level, rate, channels, and the original beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from taro_rt.engines.errors import OptionsError

Keeping = Literal["replace", "mix", "duck", "keep-as-second-track"]
KEEPING: tuple[Keeping, ...] = ("replace", "mix", "duck", "keep-as-second-track")
RATES_HZ = (16000, 44100, 48000)
LOUDNESS = -23.0
"""LUFS; the level of European broadcasts."""
LIMITS = {"gain": (-60.0, 40.0), "loudness": (-60.0, -5.0)}


@dataclass(frozen=True)
class Finish:
    """Options of writing a sound. Raises `OptionsError`."""

    audio: Keeping = "replace"
    """What becomes of the video's own sound: left out, mixed with the new one, mixed but lowered while the
    new one sounds, or kept as a track of its own."""
    gain_db: float = 0.0
    """Louder or quieter than the loudness asked for."""
    loudness: float | None = LOUDNESS
    """Integrated loudness of the new sound in LUFS; None leaves its level."""
    rate_hz: int | None = None
    """Samples per second in the file; None: 48000 beside a picture, else the sound's own."""
    channels: int | None = None
    """1, or 2 for the same sound on both; None: 1, or as many as the original has that it is mixed with."""

    def __post_init__(self) -> None:
        faults = [*_within("gain", self.gain_db, "dB")]
        if self.loudness is not None:
            faults += _within("loudness", self.loudness, "LUFS")
        if self.audio not in KEEPING:
            faults.append(f"audio: expected {', '.join(KEEPING)}, got {self.audio!r}")
        if self.rate_hz is not None and self.rate_hz not in RATES_HZ:
            faults.append(f"rate: expected {', '.join(map(str, RATES_HZ))}, got {self.rate_hz!r}")
        if self.channels not in (None, 1, 2):
            faults.append(f"channels: expected 1 or 2, got {self.channels!r}")
        if faults:
            raise OptionsError("; ".join(faults))

    @property
    def mixes(self) -> bool:
        """Whether the original sounds in the same track."""
        return self.audio in ("mix", "duck")


def read_loudness(text: str) -> float | None:
    """LUFS from a command line; "off" is None. Raises `OptionsError`."""
    if text.strip().lower() == "off":
        return None
    try:
        return float(text)
    except ValueError:
        raise OptionsError(f"loudness: expected a number of LUFS or off, got {text!r}") from None


def _within(name: str, value: Any, unit: str) -> list[str]:
    low, high = LIMITS[name]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and low <= value <= high:
        return []
    return [f"{name}: expected {low:g} to {high:g} {unit}, got {value!r}"]
