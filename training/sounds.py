"""Sounds of single contacts from a small physical model: damped modes plus the noise of the contact.

A struck body rings in a few modes. Material sets how inharmonic they are and how fast they die, size sets the
pitch, the strength of the blow sets level and brightness. Each kind of scene adds what its own contacts have:
a heel's thump, a latch, the clatter of a thing coming to rest. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable
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
    "flesh": Material((420.0, 900.0), (1.0, 1.9, 2.9), (0.006, 0.012), 2.5, 2600.0),
    "soil": Material((70.0, 130.0), (1.0, 1.7), (0.015, 0.03), 1.6, 1100.0),
}


@dataclass(frozen=True)
class Event:
    """One audible contact: when (s), how hard (0..1), and what was struck (size 0 small .. 1 large)."""

    time_s: float
    strength: float
    material: str
    size: float


def strike(event: Event, rng: np.random.Generator, ring: float = 1.0, click: float = 1.0) -> Array:
    """The sound [n] of one contact at 16 kHz, peak `strength`; `rng` varies each blow a little.

    `ring` stretches the decay of the modes (a held thing rings less), `click` scales the contact noise.
    """
    material = MATERIALS[event.material]
    low, high = material.base_hz
    base = high * (low / high) ** event.size
    decay = ring * (material.decay_s[0] + (material.decay_s[1] - material.decay_s[0]) * event.size)
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
        decays = np.exp(-time * ((1 + 0.35 * i) / decay))
        sound += gain * decays * np.sin(2 * np.pi * frequency * time + phase)
    cutoff = material.click_hz * (0.4 + 0.6 * event.strength)
    sound += material.click * click * noise_burst(n, 0.004, cutoff, rng)
    return faded(event.strength * sound / np.abs(sound).max())


def noise_burst(n: int, decay_s: float, cutoff_hz: float, rng: np.random.Generator) -> Floats:
    """Dying noise [n] below `cutoff_hz`, peak 1."""
    live = min(n, int(12 * decay_s * RATE_HZ) + 64)
    burst = np.zeros(n)
    dying = np.zeros(
        fft_size(live + 256)
    )  # the filter is circular: what rings before the start must not end up inside
    dying[:live] = rng.standard_normal(live) * np.exp(-np.arange(live) / RATE_HZ / decay_s)
    burst[:live] = low_pass(dying, cutoff_hz)[:live]
    return burst / (np.abs(burst).max() + 1e-9)


def thump(hz: float, decay_s: float) -> Floats:
    """A dull blow [n]: one low mode whose pitch sinks a little, peak about 1."""
    time = np.arange(int(7 * decay_s * RATE_HZ)) / RATE_HZ
    sinking = 2 * np.pi * hz * (time + 0.25 * decay_s * (1 - np.exp(-time / decay_s)))
    return np.sin(sinking) * np.exp(-time / decay_s)


def faded(sound: Floats) -> Array:
    """`sound` [n] with 1 ms eased in and the last quarter out: a cut tail would click."""
    sound = np.array(sound, dtype=np.float32)
    n = len(sound)
    edge = min(16, n)
    sound[:edge] *= np.linspace(0.0, 1.0, edge, dtype=np.float32)
    sound[-(n // 4) :] *= np.linspace(1.0, 0.0, n // 4, dtype=np.float32)
    return sound


def fft_size(n: int) -> int:
    """A length of at least `n` that transforms fast: a multiple of a fair power of two."""
    step = 64 if n < 8192 else 4096
    return -(-n // step) * step


def low_pass(signal: Floats, cutoff_hz: float) -> Floats:
    """Fourth-order roll-off above `cutoff_hz`, circular [n]."""
    spectrum = np.fft.rfft(signal)
    frequency = np.fft.rfftfreq(len(signal), 1 / RATE_HZ)
    return np.fft.irfft(spectrum / (1 + (frequency / cutoff_hz) ** 4) ** 0.5, len(signal))


def mixed(*parts: tuple[float, float, Floats]) -> Array:
    """Parts given as (start s, level, sound [n]) added up and faded out."""
    starts = [round(start * RATE_HZ) for start, _, _ in parts]
    mix = np.zeros(max(s + len(p[2]) for s, p in zip(starts, parts, strict=True)))
    for start, (_, level, sound) in zip(starts, parts, strict=True):
        mix[start : start + len(sound)] += level * sound
    return faded(mix)


def ball(event: Event, rng: np.random.Generator, model: str) -> Array:
    """A ball's bounce: the floor's dull push, the ball's own ring, and the pitch rising as it springs off."""
    push = thump(150.0 - 70.0 * event.size, 0.03)
    time = np.arange(round(0.2 * RATE_HZ)) / RATE_HZ
    spring = np.sin(2 * np.pi * (430.0 - 200.0 * event.size) * (time + 2.2 * time**2)) * np.exp(-time / 0.035)
    s = event.strength
    return mixed((0, 1.0, strike(event, rng, ring=0.7)), (0, 0.6 * s, push), (0, 0.5 * s, spring))


def hammer_blow(event: Event, rng: np.random.Generator, model: str) -> Array:
    """A tool's blow: what is struck, and the head's own short ping."""
    head = Event(0.0, event.strength, "wood" if model == "mallet" else "metal", 0.25)
    return mixed((0, 1.0, strike(event, rng, click=1.6)), (0, 0.3, strike(head, rng, ring=0.12)))


def footstep(event: Event, rng: np.random.Generator, model: str) -> Array:
    """Heel, then sole: a thump, what the ground is made of, and on soil a crunch."""
    s = event.strength
    parts = [
        (0.0, 0.8 * s, thump(105.0 - 40.0 * event.size, 0.028)),
        (0.0, 0.5, strike(event, rng, ring=0.4)),
        (0.055, 0.22, strike(event, rng, ring=0.3, click=2.0)),
    ]
    if event.material in ("soil", "stone"):
        for at in np.cumsum(rng.exponential(0.009, 9)):
            parts.append((float(at), 0.2 * s * rng.random(), noise_burst(400, 0.002, 3500.0, rng)))
    return mixed(*parts)


def stick_blow(event: Event, rng: np.random.Generator, model: str) -> Array:
    """A stick on a skin or plate: the body, and the wooden tick of the tip."""
    tip = Event(0.0, event.strength, "wood", 0.0)
    return mixed((0, 1.0, strike(event, rng)), (0, 0.2, strike(tip, rng, ring=0.3)))


def landing(event: Event, rng: np.random.Generator, model: str) -> Array:
    """A thing lands and clatters to rest within a sixth of a second."""
    parts = [(0.0, 1.0, strike(event, rng)), (0.0, 0.5 * event.strength, thump(80.0, 0.035))]
    at, level = 0.045 + 0.02 * event.size, 0.3
    for _ in range(3):
        parts.append((at, level, strike(event, rng, ring=0.5)))
        at, level = at + 0.5 * at * rng.uniform(0.6, 1.0), 0.6 * level
    return mixed(*parts)


def door(event: Event, rng: np.random.Generator, model: str) -> Array:
    """A knock on a panel, or a slam: boom, panel and, a moment later, the latch."""
    if "knock" in model:
        knuckles = Event(0.0, event.strength, "flesh", 0.5)
        return mixed(
            (0, 1.0, strike(event, rng, ring=0.5, click=0.6)),
            (0, 0.5, strike(knuckles, rng)),
            (0, 0.5 * event.strength, thump(170.0, 0.016)),
        )
    s, latch = event.strength, Event(0.0, event.strength, "metal", 0.1)
    return mixed(
        (0, 1.0 * s, thump(82.0 - 25.0 * event.size, 0.07)),
        (0, 0.7 * s, noise_burst(6000, 0.03, 450.0, rng)),
        (0, 0.5, strike(event, rng)),
        (0.028, 0.16, strike(latch, rng, ring=0.08)),
        (0.060, 0.10, strike(latch, rng, ring=0.08)),
    )


def clink(event: Event, rng: np.random.Generator, model: str) -> Array:
    """Two glasses touch and both ring on, a little out of tune."""
    other = Event(0.0, event.strength, event.material, float(np.clip(event.size + 0.13, 0.0, 1.0)))
    ring = 2.4 if event.material == "glass" else 0.7
    return mixed((0, 0.7, strike(event, rng, ring, click=0.5)), (0.004, 0.5, strike(other, rng, ring, 0.4)))


def handclap(event: Event, rng: np.random.Generator, model: str) -> Array:
    """Hands meet finger by finger within a few milliseconds; the air between them pops."""
    parts = [(0.0, 0.8, strike(event, rng)), (0.0, 0.35 * event.strength, thump(320.0, 0.008))]
    for delay in rng.uniform(0.002, 0.012, 3):
        parts.append((float(delay), 0.45, strike(event, rng)))
    parts.append((0.004, 0.12 * event.strength, noise_burst(5000, 0.025, 1800.0, rng)))
    return mixed(*parts)


def marble(event: Event, rng: np.random.Generator, model: str) -> Array:
    """Small hard balls click: bright and over at once."""
    return strike(event, rng, ring=0.25 if event.material == "glass" else 0.12, click=0.8)


def pawl(event: Event, rng: np.random.Generator, model: str) -> Array:
    """A pawl drops into the next tooth: a dry click with an echo of the frame."""
    dry = strike(event, rng, ring=0.06 if event.material == "metal" else 0.25, click=1.5)
    return mixed((0, 1.0, dry), (0.009, 0.3, dry))


VOICES: dict[str, Callable[[Event, np.random.Generator, str], Array]] = {
    "bounce": ball,
    "hammer": hammer_blow,
    "footsteps": footstep,
    "drumstick": stick_blow,
    "drop": landing,
    "door": door,
    "glasses": clink,
    "clap": handclap,
    "marbles": marble,
    "ratchet": pawl,
}
"""The sound of one contact in each kind of scene, called with the event, a generator and the object model."""
