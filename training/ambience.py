"""Sounds that go on: rain, wind, fire, water and rolling, each driven by an intensity that is also seen.

Noise in bands, and grains: many short sounds at random times whose rate follows the intensity. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from taro_rt.training.sounds import RATE_HZ, Floats, fft_size


def at_audio_rate(intensity: Floats, rate_hz: float, n: int) -> Floats:
    """`intensity` sampled at `rate_hz`, linearly interpolated to [n] at 16 kHz."""
    return np.interp(np.arange(n) / RATE_HZ, np.arange(len(intensity)) / rate_hz, intensity)


def band(n: int, low_hz: float, high_hz: float, rng: np.random.Generator) -> Floats:
    """Noise [n] between two frequencies with gentle slopes, RMS 1."""
    size = fft_size(n)
    frequency = np.fft.rfftfreq(size, 1 / RATE_HZ)
    gain = 1 / np.sqrt((1 + (frequency / high_hz) ** 4) * (1 + (low_hz / (frequency + 1e-3)) ** 4))
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * gain, size)[:n]
    return np.asarray(noise / noise.std())


def grains(rate: Floats, kernels: list[Floats], tail: float, rng: np.random.Generator) -> Floats:
    """Short sounds at random times: `rate` [n] grains per second, shared among the kernels.

    Levels are log-normal with width `tail`: 0 is all alike, 1 is a few loud ones among many faint.
    """
    n = len(rate)
    size = fft_size(n + max(len(k) for k in kernels))
    spectrum = np.zeros(size // 2 + 1, complex)
    for kernel in kernels:
        hits = rng.random(n) < rate / (RATE_HZ * len(kernels))
        impulses = hits * np.exp(tail * rng.standard_normal(n)) * rng.choice([-1.0, 1.0], n)
        spectrum += np.fft.rfft(impulses, size) * np.fft.rfft(kernel, size)
    return np.asarray(np.fft.irfft(spectrum, size)[:n])


def blip(start_hz: float, rise: float, decay_s: float) -> Floats:
    """A bubble: a sine whose pitch rises by the share `rise` per decay time, peak about 1."""
    time = np.arange(int(6 * decay_s * RATE_HZ)) / RATE_HZ
    sound = np.sin(2 * np.pi * start_hz * (time + 0.5 * rise / decay_s * time**2)) * np.exp(-time / decay_s)
    return np.asarray(sound * np.minimum(1.0, time / 0.002))


def rain(level: Floats, rng: np.random.Generator) -> Floats:
    """Patter over hiss: more and louder drops as the rain grows."""
    n = len(level)
    drops = [blip(rng.uniform(900.0, 5500.0), 0.1, rng.uniform(0.0008, 0.004)) for _ in range(6)]
    hiss = band(n, 1800.0, 7000.0, rng)
    return grains(20.0 + 700.0 * level**1.5, drops, 0.8, rng) * (0.3 + 0.7 * level) + 0.22 * level**1.5 * hiss


def wind(level: Floats, rng: np.random.Generator) -> Floats:
    """Noise that grows louder and brighter with the gusts, with a faint whistle on the strongest."""
    n = len(level)
    centre = 260.0 * 2.0 ** rng.uniform(-0.5, 0.5)
    mix = np.zeros(n)
    for octave, (gain, power) in enumerate(((0.7, 1.3), (0.8, 2.0), (0.6, 3.0), (0.4, 4.0))):
        low = centre * 2.0 ** (octave - 1.5)
        mix += gain * level**power * band(n, low, 1.6 * low, rng)
    whistle = centre * 2.2 * (1 + 0.25 * level)
    mix += 0.35 * level**4 * np.sin(2 * np.pi * np.cumsum(whistle) / RATE_HZ) * (1 + 0.2 * mix)
    return mix


def fire(level: Floats, rng: np.random.Generator) -> Floats:
    """A low roar that follows the height of the flames, and crackles, few of them loud."""
    n = len(level)
    snaps = [blip(rng.uniform(1200.0, 5000.0), 0.0, rng.uniform(0.0006, 0.003)) for _ in range(5)]
    pops = [blip(rng.uniform(300.0, 900.0), -0.2, rng.uniform(0.003, 0.008)) for _ in range(2)]
    crackle = grains(4.0 + 45.0 * level**2, snaps, 1.0, rng) + 0.7 * grains(1.0 + 4.0 * level, pops, 0.6, rng)
    roar = band(n, 40.0, 180.0, rng) * 0.5 + band(n, 200.0, 900.0, rng) * 0.12
    return 0.8 * crackle * (0.4 + 0.6 * level) + roar * level**1.2


def water(level: Floats, rng: np.random.Generator) -> Floats:
    """Rushing noise that swells with each wave, and bubbles: short rising tones."""
    n = len(level)
    bubbles = [
        blip(rng.uniform(350.0, 1800.0), rng.uniform(0.1, 0.4), rng.uniform(0.012, 0.045)) for _ in range(9)
    ]
    rush = 0.7 * band(n, 300.0, 1300.0, rng) + 0.35 * band(n, 1300.0, 4500.0, rng) * level
    splashing = grains(6.0 + 30.0 * level, bubbles, 0.4, rng) * (0.15 + 0.85 * level)
    return 0.6 * rush * (0.05 + level**2) + 0.35 * splashing


def rolling(level: Floats, rng: np.random.Generator) -> Floats:
    """Small balls roll over a board: fine regular grain, faint beside their clicks."""
    kernels = [blip(rng.uniform(700.0, 2600.0), 0.0, rng.uniform(0.001, 0.003)) for _ in range(4)]
    return (
        0.05
        * level
        * (0.3 * grains(500.0 * level, kernels, 0.3, rng) + 0.2 * band(len(level), 300, 1500, rng))
    )


AMBIENCE: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "rain": rain,
    "wind": wind,
    "fire": fire,
    "water": water,
    "marbles": rolling,
}
"""The lasting sound of a kind of scene, from its intensity [n] at 16 kHz (0 none .. 1 full)."""
