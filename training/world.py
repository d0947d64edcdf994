"""What scenes are made of: bodies that move, fields that flow, and the helpers every kind of scene shares.

Coordinates: x grows right over [0, aspect], y grows down over [0, 1]; everything is stepped at 240 Hz.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from taro_rt.training.looks import MODELS, STEPS_HZ, member
from taro_rt.training.sounds import Event, Floats

Colour = tuple[float, float, float]
COLOURS = {  # hue, saturation and value ranges: what a thing is made of can mostly be seen
    "wood": ((0.05, 0.11), (0.5, 0.9), (0.35, 0.7)),
    "metal": ((0.55, 0.65), (0.0, 0.15), (0.55, 0.95)),
    "glass": ((0.45, 0.55), (0.3, 0.7), (0.75, 1.0)),
    "drum": ((0.92, 1.02), (0.6, 1.0), (0.5, 0.95)),
    "stone": ((0.0, 1.0), (0.0, 0.12), (0.12, 0.38)),
    "flesh": ((0.03, 0.09), (0.25, 0.7), (0.35, 0.98)),
    "soil": ((0.06, 0.3), (0.3, 0.7), (0.2, 0.45)),
}


@dataclass(frozen=True, eq=False)
class Body:
    """A thing on screen: path [n, 2] and angle [n] at 240 Hz, half extents along and across itself."""

    shape: str
    extent: tuple[float, float]
    colour: Colour
    path: Floats
    angle: Floats
    stretch: Floats | None = None
    """Factors on the extents [n, 2]."""
    bend: Floats | None = None
    """Sideways shift of the far end [n], in units of the half length: blades of grass."""
    pattern: str = ""
    """wedges, liquid, panels, speckle, boards or nothing."""
    shiny: bool = False
    glowing: bool = False
    """Keeps its colour whatever the light."""
    opacity: float = 1.0
    shadow: bool = False

    @property
    def still(self) -> bool:
        """True if nothing about it ever changes."""
        moving = (self.path, self.angle, self.stretch, self.bend)
        return all(values is None or bool(np.all(values == values[:1])) for values in moving)


@dataclass(frozen=True, eq=False)
class Field:
    """A flowing region: `level` [n] is what is heard, `flow` [n] how far it has moved on."""

    kind: str
    box: tuple[float, float, float, float]
    """Left, top, right, bottom."""
    level: Floats
    flow: Floats
    hue: float


class World:
    """A scene being made."""

    def __init__(self, seed: int, kind: str, duration_s: float, aspect: float, held_out: bool) -> None:
        self.rng = np.random.default_rng([seed, 1])
        self.paint = np.random.default_rng([seed, 6])
        self.duration_s, self.aspect = duration_s, aspect
        self.model = member(MODELS[kind], held_out, self.rng)
        self.n = int(duration_s * STEPS_HZ) + 2
        self.time = np.arange(self.n) / STEPS_HZ
        self.bodies: list[Body] = []
        self.fields: list[Field] = []
        self.events: list[Event] = []
        self.intensity: Floats | None = None
        self.floor: float | None = None
        self.focus = (aspect / 2, 0.6)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def material(self, *among: str) -> str:
        return str(self.rng.choice(among or ("wood", "metal", "glass", "drum", "stone")))

    def colour(self, material: str | None) -> Colour:
        """A colour the material often has; one time in six, or without a material, any colour."""
        typical = material is not None and self.paint.random() < 0.84
        ranges = COLOURS[material] if material and typical else ((0.0, 1.0), (0.0, 0.9), (0.08, 0.95))
        h, s, v = (float(self.paint.uniform(*r)) for r in ranges)
        return colorsys.hsv_to_rgb(h % 1.0, s, v)

    def add(
        self,
        shape: str,
        extent: tuple[float, float],
        path: Floats | tuple[float, float],
        material: str | None = None,
        angle: Floats | float = 0.0,
        *,
        colour: Colour | None = None,
        stretch: Floats | None = None,
        bend: Floats | None = None,
        pattern: str = "",
        glowing: bool = False,
        opacity: float = 1.0,
        shadow: bool = False,
    ) -> None:
        """Put a body before all others; a pair of numbers is a place where it stands still."""
        self.bodies.append(
            Body(
                shape,
                extent,
                colour or self.colour(material),
                np.broadcast_to(np.asarray(path, np.float32), (self.n, 2)),
                np.broadcast_to(np.asarray(angle, np.float32), (self.n,)),
                stretch,
                bend,
                pattern,
                material in ("metal", "glass"),
                glowing,
                opacity,
                shadow,
            )
        )

    def ground(self, y: float, material: str | None = None) -> None:
        self.floor = y
        pattern = str(self.paint.choice(["", "", "speckle", "boards"]))
        self.add("box", (4 * self.aspect, 1.5), (self.aspect / 2, y + 1.5), material, pattern=pattern)

    def hit(self, time_s: float, strength: float, material: str, size: float) -> None:
        self.events.append(Event(time_s, float(np.clip(strength, 0.12, 1.0)), material, size))

    def rhythm(self, gap_low: float, gap_high: float) -> list[float]:
        """Contact times with gaps drawn around a beat of this scene's own, with a pause now and then."""
        beat, loose = self.uniform(gap_low, gap_high), self.uniform(0.0, 0.5)
        rest = self.rng.random() < 0.5
        times, now = [], self.uniform(0.25, 1.2)
        while now < self.duration_s:
            times.append(now)
            now += max(gap_low * 0.7, beat * (1.0 + loose * self.uniform(-1, 1.5)))
            if rest and self.rng.random() < 0.15:
                now += self.uniform(0.8, 2.0)
        return times

    def bursts(
        self, count: tuple[int, int], gap: tuple[float, float], pause: tuple[float, float]
    ) -> list[float]:
        """Contact times in groups with an even gap, pauses between the groups."""
        times, now = [], self.uniform(0.3, 1.0)
        while now < self.duration_s:
            step = self.uniform(*gap)
            for _ in range(int(self.rng.integers(count[0], count[1] + 1))):
                times.append(now)
                now += step
            now += self.uniform(*pause)
        return [t for t in times if t < self.duration_s]

    def gusts(self, low: float, knot_s: tuple[float, float]) -> Floats:
        """A smooth intensity [n] within [low, 1], new values every `knot_s` seconds or so."""
        knots = np.cumsum(self.rng.uniform(*knot_s, int(self.duration_s / knot_s[0]) + 4)) - knot_s[1]
        values = self.rng.permutation(np.linspace(0.0, 1.0, len(knots)))
        i = np.clip(np.searchsorted(knots, self.time) - 1, 0, len(knots) - 2)
        phase = np.clip((self.time - knots[i]) / (knots[i + 1] - knots[i]), 0, 1)
        eased = phase * phase * (3 - 2 * phase)
        return np.asarray(low + (1 - low) * (values[i] * (1 - eased) + values[i + 1] * eased))

    def swing(
        self,
        times: Sequence[float],
        raised: float,
        hit: Callable[[float, float], None],
        fall_s: float = 0.16,
    ) -> Floats:
        """Height [n] above the contact: each blow has a height of its own and lands exactly at its time."""
        height = np.full(self.n, 0.3 * raised)
        before = 0.0
        for now in times:
            strength = self.uniform(0.35, 1.0)
            lift, fall = raised * strength, min(fall_s, 0.4 * (now - before))
            rising = (self.time >= before) & (self.time < now - fall)
            start = 0.3 * raised if before == 0.0 else 0.0
            phase = (self.time[rising] - before) / max(now - fall - before, 1e-3)
            height[rising] = start + (lift - start) * 0.5 * (1 - np.cos(np.pi * phase))
            falling = (self.time >= now - fall) & (self.time < now)
            height[falling] = lift * (1 - ((self.time[falling] - now + fall) / fall) ** 2)
            hit(now, strength)
            before = now
        tail = self.time >= before
        height[tail] = 0.3 * raised * (1 - np.exp(-(self.time[tail] - before) / 0.4))
        return height

    def tremble(self, hz: float = 11.0, decay_s: float = 0.09, since: int = 0) -> Floats:
        """Dying wobble [n] after each event from number `since` on, as strong as the event."""
        wobble = np.zeros(self.n)
        for event in self.events[since:]:
            start = int(np.ceil(event.time_s * STEPS_HZ))
            after = self.time[start:] - event.time_s
            wobble[start:] += event.strength * np.exp(-after / decay_s) * np.sin(2 * np.pi * hz * after)
        return wobble

    def clutter(self) -> None:
        """Things that only stand about, behind everything."""
        rng = self.paint
        for _ in range(int(rng.choice(4, p=[0.5, 0.2, 0.2, 0.1]))):
            size, floor = float(rng.uniform(0.04, 0.16)), self.floor or 1.0
            at = (float(rng.uniform(-0.1, 1.1)) * self.aspect, floor - float(rng.choice([size, 0.5])))
            shape = str(rng.choice(["box", "round", "disc", "cone", "ellipse"]))
            self.add(shape, (size, size * float(rng.uniform(0.3, 1.0))), at, None, -np.pi / 2)
            self.bodies.insert(0, self.bodies.pop())

    def distract(self) -> None:
        """Things that move and make no sound: smooth drifts behind all that acts, touching nothing."""
        rng = self.paint
        stage = next((i for i, body in enumerate(self.bodies) if not body.still), len(self.bodies))
        for _ in range(int(rng.choice(4, p=[0.4, 0.3, 0.2, 0.1]))):
            amplitude, period, phase = rng.uniform(0.05, 0.35), rng.uniform(1.2, 7.0), rng.uniform(0, 6.28)
            turn = 2 * np.pi * self.time / period + phase
            x = rng.uniform(0, self.aspect) + amplitude * np.sin(turn) + rng.uniform(-0.07, 0.07) * self.time
            y = rng.uniform(0.05, 0.5) + 0.3 * amplitude * np.cos(turn * rng.choice([1.0, 2.0]))
            size = float(rng.uniform(0.02, 0.08))
            shape = str(rng.choice(["disc", "box", "round", "ellipse", "cone", "ring"]))
            spin = rng.choice([0.0, 1.0]) * rng.uniform(-2, 2) * self.time
            self.add(shape, (size, size * float(rng.uniform(0.4, 1.0))), np.stack([x, y], 1), None, spin)
            self.bodies.insert(stage, self.bodies.pop())
