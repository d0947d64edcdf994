"""How loud a sound is, and how much louder it may get.

Loudness is that of ITU-R BS.1770-5 for one channel: K-weighting, blocks of 0.4 s, both gates.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from taro_rt.engines.contract import Array

CEILING = 10 ** (-1 / 20)
"""No sample leaves above -1 dB of full scale: codecs and players add a little."""
MAX_GAIN_DB = 30.0
"""A sound gets louder by at most this: what is nearly silent is not made noise."""
MAX_LIMITING_DB = 20.0
"""Single peaks may be turned down by this much, so that short hard sounds can be as loud as others."""
HOP_S = 0.1
HOPS_PER_BLOCK = 4
ABSOLUTE_GATE = -70.0
RELATIVE_GATE = -10.0
OFFSET = -0.691
RESPONSE_S = 0.25
"""After this the K-weighting filter's answer is below 1e-12."""

Floats = npt.NDArray[np.float64]


class Meter:
    """Integrated loudness and sample peak of a sound that comes block by block."""

    def __init__(self, rate_hz: int) -> None:
        self._response = k_weighting(rate_hz)
        self._n_hop = round(HOP_S * rate_hz)
        self._tail = np.zeros(len(self._response) - 1)
        self._waiting = np.zeros(0)
        self._hops: list[float] = []
        self.peak = 0.0
        """Largest magnitude so far."""

    def add(self, samples: Array) -> None:
        """Take in the next samples [n]."""
        if not len(samples):
            return
        self.peak = max(self.peak, float(np.abs(samples).max()))
        weighted = _convolved(samples.astype(np.float64), self._response)
        weighted[: len(self._tail)] += self._tail
        self._tail = weighted[len(samples) :]
        energy = np.concatenate([self._waiting, weighted[: len(samples)] ** 2])
        n_whole = len(energy) // self._n_hop
        hops = energy[: n_whole * self._n_hop].reshape(n_whole, self._n_hop)
        self._hops += hops.mean(axis=1).tolist()
        self._waiting = energy[n_whole * self._n_hop :]

    def loudness(self) -> float:
        """Integrated loudness in LUFS; minus infinity where all is below the absolute gate.

        A sound shorter than a block of 0.4 s is one block.
        """
        hops = np.array(self._hops)
        if len(hops) < HOPS_PER_BLOCK:
            rest = [self._waiting.mean()] if len(self._waiting) else []
            blocks = np.array([np.mean([*hops, *rest])]) if len(hops) or rest else np.zeros(0)
        else:
            blocks = np.lib.stride_tricks.sliding_window_view(hops, HOPS_PER_BLOCK).mean(axis=1)
        loud = blocks[blocks > _energy(ABSOLUTE_GATE)]
        if not len(loud):
            return -math.inf
        gate = max(_energy(ABSOLUTE_GATE), float(loud.mean()) * 10 ** (RELATIVE_GATE / 10))
        return OFFSET + 10 * math.log10(loud[loud > gate].mean())


def k_weighting(rate_hz: int) -> Floats:
    """Impulse response of the K-weighting filter at any rate: a shelf for the head, then a high pass."""
    k, q = math.tan(math.pi * 1681.974450955533 / rate_hz), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    norm = 1 + k / q + k * k
    shelf = (
        [
            (high + band * k / q + k * k) / norm,
            2 * (k * k - high) / norm,
            (high - band * k / q + k * k) / norm,
        ],
        [2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm],
    )
    k, q = math.tan(math.pi * 38.13547087602444 / rate_hz), 0.5003270373238773
    norm = 1 + k / q + k * k
    high_pass = ([1.0, -2.0, 1.0], [2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm])
    signal = [1.0] + [0.0] * (round(RESPONSE_S * rate_hz) - 1)
    for forward, back in (shelf, high_pass):
        signal = _filtered(signal, forward, back)
    return np.array(signal)


def level_gain(loudness: float, peak: float, target: float | None) -> float:
    """Factor that brings a sound to `target` LUFS (None: leaves it), as far as the caps allow.

    They are `MAX_GAIN_DB`, and `CEILING` with `MAX_LIMITING_DB` on top, which a limiter must take off again.
    """
    if target is None or loudness == -math.inf:
        return 1.0
    return min(10 ** (min(target - loudness, MAX_GAIN_DB) / 20), most_gain(peak))


def most_gain(peak: float) -> float:
    """The factor that leaves a limiter `MAX_LIMITING_DB` to take off a peak."""
    return CEILING / peak * 10 ** (MAX_LIMITING_DB / 20)


def limit_peak(samples: Array) -> Array:
    """The samples, scaled down to `CEILING` if they are louder."""
    peak = float(np.abs(samples).max(initial=0.0))
    return samples if peak <= CEILING else samples * np.float32(CEILING / peak)


def _energy(lufs: float) -> float:
    return float(10 ** ((lufs - OFFSET) / 10))


def _convolved(signal: Floats, response: Floats) -> Floats:
    n = len(signal) + len(response) - 1
    size = 1 << (n - 1).bit_length()
    product = np.fft.rfft(signal, size) * np.fft.rfft(response, size)
    made: Floats = np.fft.irfft(product, size)[:n]
    return made


def _filtered(signal: list[float], forward: list[float], back: list[float]) -> list[float]:
    """A filter of second order, sample by sample (direct form II, transposed)."""
    first = second = 0.0
    out = []
    for x in signal:
        y = forward[0] * x + first
        first = forward[1] * x - back[0] * y + second
        second = forward[2] * x - back[1] * y
        out.append(y)
    return out
