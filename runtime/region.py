"""A part of a sound made anew: at the level around it, with soft edges, nothing outside touched."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.dynamics import limited
from taro_rt.runtime.loudness import Floats, Meter, level_gain
from taro_rt.runtime.mixing import exactly, resampled
from taro_rt.runtime.source import Span

EDGE_S = 0.05
"""The new sound fades in and out over this time, inside the part."""
TOLERANCE_S = 0.001
"""By which lengths may differ: rates round."""
SAME = 0.7
"""From this correlation on two sounds are one: the same noise gave nearly the same."""
QUIET_LU = 10.0
"""What is beside the part says nothing of its level if it is quieter than the whole by more than this."""


@dataclass(frozen=True)
class Region:
    """The samples `low` to `high` of a sound of `n_total`, which may change."""

    low: int
    high: int
    n_total: int
    rate_hz: int
    n_edge: int
    """Length of a fade, at most half of the region."""

    @classmethod
    def of(cls, part: Span, n_total: int, rate_hz: int, duration_s: float, edge_s: float = EDGE_S) -> Region:
        """That of `part` in a sound for a clip of `duration_s`. Raises `OptionsError`."""
        if abs(n_total / rate_hz - duration_s) > TOLERANCE_S:
            raise OptionsError(
                f"the sound to change: expected {duration_s:.3f} s, as long as the clip, got "
                f"{n_total / rate_hz:.3f} s; take one that was made for this clip"
            )
        check_part(part, duration_s)
        if not (math.isfinite(edge_s) and edge_s >= 0):
            raise OptionsError(f"edge: expected 0 or more seconds, got {edge_s!r}")
        low = round(part.start_s * rate_hz)
        high = n_total if part.end_s is None else min(n_total, round(part.end_s * rate_hz))
        if high - low < 2:
            raise OptionsError(
                f"the part to change: expected two samples or more, got {part.start_s:g} s to "
                f"{high / rate_hz:g} s; choose a later end"
            )
        return cls(low, high, n_total, rate_hz, min(round(edge_s * rate_hz), (high - low) // 2))

    def shares(self) -> Floats:
        """How much of the new sound is heard at each sample [high - low], above 0 to 1.

        Raised cosines that sum to one with the old sound's: the two are mostly alike, so that equal powers
        would be too loud, and neither can make the other clip. No fade at the ends of the clip itself.
        """
        shares = np.ones(self.high - self.low)
        ramp = np.sin(np.pi / 2 * (np.arange(self.n_edge) + 0.5) / max(1, self.n_edge)) ** 2
        if self.low > 0:
            shares[: self.n_edge] = ramp
        if self.high < self.n_total:
            shares[len(shares) - self.n_edge :] = ramp[::-1]
        return shares

    def stretch(self, start_s: float, new: Audio) -> slice:
        """The samples of the whole sound that lie under `new`, which begins at `start_s`."""
        first = round(start_s * self.rate_hz)
        return slice(first, min(self.n_total, first + round(new.duration_s * self.rate_hz)))


def check_part(part: Span, duration_s: float) -> None:
    """Raise `OptionsError` for a part that is not within the clip."""
    end_s = duration_s if part.end_s is None else part.end_s
    is_late = part.start_s > duration_s - TOLERANCE_S
    if is_late or end_s > duration_s + TOLERANCE_S:
        raise OptionsError(
            f"the part to change: expected one within the clip's {duration_s:.3f} s, got {part.start_s:g} s "
            f"to {end_s:g} s; choose an earlier {'start' if is_late else 'end'}"
        )


def with_part(previous: Audio, new: Audio, start_s: float, region: Region) -> Audio:
    """`previous` with its region made of `new`, which begins at `start_s`; all else stays to the bit."""
    samples = np.array(previous.samples)
    below = samples[region.stretch(start_s, new)]
    samples[region.low : region.high] = remade(below, new, region, start_s)
    return Audio(samples, previous.rate_hz)


def remade(
    previous: Floats | Array, new: Audio, region: Region, start_s: float, gain_db: float = 0.0
) -> Floats:
    """The samples [region] of one channel, of `previous` [n] (from `start_s` on) and `new` blended.

    `new` is brought to the level of `previous` and `gain_db` above it; its peaks are limited.
    """
    n, first = len(previous), round(start_s * region.rate_hz)
    blocks = (block[None] for block in new.blocks())
    sound = next(exactly(resampled(blocks, new.rate_hz, region.rate_hz), n, n))[0]
    inside = slice(region.low - first, region.high - first)
    gain = matching_gain(previous, sound, inside, region.rate_hz) * 10 ** (gain_db / 20)
    levelled = limited([np.float32(gain) * sound[None]], region.rate_hz)
    level = np.concatenate(list(levelled), axis=1)[0, inside]
    old = previous[inside].astype(np.float64)
    made: Floats = old + region.shares() * (level - old)
    return made


def matching_gain(previous: Floats | Array, new: Array, inside: slice, rate_hz: int) -> float:
    """Factor that gives `new` [n] the loudness of `previous` [n].

    It is found outside of what will be replaced, unless that is much quieter than the whole and another sound
    in both: then noises would decide on the level of blows.
    """
    pair = (np.asarray(previous, np.float32), np.asarray(new, np.float32))
    beside = (pair[0].copy(), pair[1].copy())
    for samples in beside:
        samples[inside] = 0.0
    (old_lufs, _), (new_lufs, peak) = (_measured(samples, rate_hz) for samples in beside)
    whole_lufs, _ = _measured(pair[0], rate_hz)
    is_heard = min(old_lufs, new_lufs) > -math.inf
    if not is_heard or (old_lufs < whole_lufs - QUIET_LU and _likeness(*beside) < SAME):
        old_lufs, (new_lufs, peak) = whole_lufs, _measured(pair[1], rate_hz)
    return level_gain(new_lufs, peak, None if old_lufs == -math.inf else old_lufs)


def _measured(samples: Array, rate_hz: int) -> tuple[float, float]:
    """Loudness in LUFS and peak."""
    meter = Meter(rate_hz)
    meter.add(samples)
    return meter.loudness(), meter.peak


def _likeness(a: Array, b: Array) -> float:
    """Correlation of two sounds [n], 1 for one at two levels."""
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
