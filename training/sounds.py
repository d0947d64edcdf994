"""Sounds of struck things from a small physical model: damped modes plus the click of the contact.

A struck body rings in a few modes. Material sets how inharmonic they are and how fast they die, size sets the
pitch, the strength of the blow sets level and brightness. NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taro_rt.engines.contract import Array

RATE_HZ = 16000
Floats = npt.NDArray[np.floating[Any]]
"""Arrays of either precision: simulation runs in float64, what leaves it is float32."""


@dataclass(frozen=True)
class Material:
    """Modes of a unit-size body: base frequency range (Hz), frequency ratios, decay of the base mode (s)."""

    base_hz: tuple[float, float]
    ratios: tuple[float, ...]
    decay_s: tuple[float, float]
    click: float
    """Level of the contact noise beside the modes."""
    click_hz: float
    """Where the contact noise rolls off."""


MATERIALS = {
    "wood": Material((260.0, 620.0), (1.0, 2.57, 4.95, 7.4), (0.05, 0.11), 0.5, 3000.0),
    "metal": Material((520.0, 1500.0), (1.0, 1.51, 2.32, 2.78, 3.95, 5.4), (0.35, 0.9), 0.3, 7000.0),
    "glass": Material((1500.0, 3200.0), (1.0, 1.72, 2.1), (0.10, 0.28), 0.4, 7500.0),
    "drum": Material((80.0, 190.0), (1.0, 1.59, 2.14, 2.30, 2.65, 2.92), (0.16, 0.34), 0.4, 1500.0),
    "stone": Material((150.0, 340.0), (1.0, 2.2, 3.7, 5.6), (0.02, 0.045), 1.0, 4500.0),
}


@dataclass(frozen=True)
class Event:
    """One audible contact: when (s), how hard (0..1), and what was struck (size 0 small .. 1 large)."""

    time_s: float
    strength: float
    material: str
    size: float


def strike(event: Event, rng: np.random.Generator) -> Array:
    """The sound [n] of one contact at 16 kHz, level about `strength`; `rng` varies each blow a little."""
    material = MATERIALS[event.material]
    low, high = material.base_hz
    base = high * (low / high) ** event.size
    decay = material.decay_s[0] + (material.decay_s[1] - material.decay_s[0]) * event.size
    n = int(RATE_HZ * min(2.0, 7.0 * decay + 0.05))
    time = np.arange(n) / RATE_HZ
    sound = np.zeros(n)
    for i, ratio in enumerate(material.ratios):
        frequency = base * ratio * (1.0 + 0.004 * rng.standard_normal())
        if frequency > 7600.0:
            continue
        # Harder blows excite the high modes more; high modes die faster.
        gain = np.exp(-i * (0.75 - 0.45 * event.strength)) * (0.7 + 0.6 * rng.random())
        phase = 2 * np.pi * rng.random()
        sound += (
            gain * np.sin(2 * np.pi * frequency * time + phase) * np.exp(-time / (decay / (1 + 0.35 * i)))
        )
    burst = rng.standard_normal(n) * np.exp(-time / 0.004)
    click = _low_pass(burst, material.click_hz * (0.4 + 0.6 * event.strength))
    sound += material.click * click / (np.abs(click).max() + 1e-9)
    sound[:16] *= np.linspace(0.0, 1.0, 16)
    sound[-(n // 4) :] *= np.linspace(1.0, 0.0, n // 4)  # a cut tail would click
    return np.asarray(event.strength * sound / np.abs(sound).max(), dtype=np.float32)


def soundtrack(events: Iterable[Event], duration_s: float, rng: np.random.Generator) -> Array:
    """All events mixed over a faint room tone: [round(duration_s * 16000)], peak 0.5 (spec B8)."""
    n = round(duration_s * RATE_HZ)
    track = np.zeros(n, np.float32)
    for event in events:
        start = round(event.time_s * RATE_HZ)
        if 0 <= start < n:
            sound = strike(event, rng)[: n - start]
            track[start : start + len(sound)] += sound
    peak = np.abs(track).max()
    if peak > 0:
        track *= 0.5 / peak
    room = _low_pass(rng.standard_normal(n), 600.0)
    return np.asarray(track + 2e-4 * room, dtype=np.float32)


def _low_pass(signal: Floats, cutoff_hz: float) -> Floats:
    spectrum = np.fft.rfft(signal)
    frequency = np.fft.rfftfreq(len(signal), 1 / RATE_HZ)
    return np.fft.irfft(spectrum / (1 + (frequency / cutoff_hz) ** 4) ** 0.5, len(signal))
