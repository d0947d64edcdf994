"""Little worlds with known contact times: things fall, bounce, collide and are struck.

`make_scene(seed)` moves bodies by simple mechanics at 240 steps per second and records every audible contact.
Coordinates: x grows right over [0, aspect], y grows down over [0, 1]. NumPy only.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from taro_rt.training.sounds import MATERIALS, Event, Floats

STEPS_HZ = 240
COLOURS = {  # hue, saturation and value ranges: what a thing is made of can be seen
    "wood": ((0.05, 0.11), (0.5, 0.9), (0.35, 0.7)),
    "metal": ((0.55, 0.65), (0.0, 0.15), (0.55, 0.95)),
    "glass": ((0.45, 0.55), (0.3, 0.7), (0.75, 1.0)),
    "drum": ((0.92, 1.02), (0.6, 1.0), (0.5, 0.95)),
    "stone": ((0.0, 1.0), (0.0, 0.12), (0.12, 0.38)),
}


@dataclass(frozen=True)
class Body:
    """A thing on screen: path [n, 2] and angle [n] at 240 Hz; half extents (a disc has equal ones)."""

    shape: str  # disc, box
    extent: tuple[float, float]
    colour: tuple[float, float, float]
    path: Floats
    angle: Floats
    shiny: bool = False


@dataclass(frozen=True)
class Scene:
    """Everything a clip shows and sounds like."""

    seed: int
    kind: str
    duration_s: float
    aspect: float
    bodies: tuple[Body, ...]
    events: tuple[Event, ...]


def make_scene(seed: int, duration_s: float = 8.16, kind: str | None = None) -> Scene:
    """A scene from a seed; the same seed gives the same scene. `kind` is one of `KINDS` (random if None)."""
    rng = np.random.default_rng([seed, 1])
    kind = kind or str(rng.choice(sorted(KINDS)))
    aspect = float(rng.choice([1.0, 4 / 3, 16 / 9], p=[0.2, 0.3, 0.5]))
    world = World(rng, duration_s, aspect)
    KINDS[kind](world)
    world.add_distractors()
    events = sorted((e for e in world.events if 0.02 < e.time_s < duration_s - 0.02), key=lambda e: e.time_s)
    return Scene(seed, kind, duration_s, aspect, tuple(world.bodies), tuple(events))


class World:
    """Bodies and events being made; one method per thing that many kinds of scene need."""

    def __init__(self, rng: np.random.Generator, duration_s: float, aspect: float) -> None:
        self.rng = rng
        self.duration_s = duration_s
        self.aspect = aspect
        self.n = int(duration_s * STEPS_HZ) + 2
        self.time = np.arange(self.n) / STEPS_HZ
        self.bodies: list[Body] = []
        self.events: list[Event] = []

    def material(self) -> str:
        return str(self.rng.choice(sorted(MATERIALS)))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def colour(self, material: str | None) -> tuple[float, float, float]:
        ranges = COLOURS[material] if material else ((0.0, 1.0), (0.0, 0.8), (0.1, 0.9))
        h, s, v = (self.uniform(*r) for r in ranges)
        return colorsys.hsv_to_rgb(h % 1.0, s, v)

    def add(
        self,
        shape: str,
        extent: tuple[float, float],
        path: Floats,
        material: str | None,
        angle: Floats | None = None,
    ) -> None:
        self.bodies.append(
            Body(
                shape,
                extent,
                self.colour(material),
                path.astype(np.float32),
                np.zeros(self.n, np.float32) if angle is None else angle.astype(np.float32),
                shiny=material in ("metal", "glass"),
            )
        )

    def still(
        self, shape: str, extent: tuple[float, float], at: tuple[float, float], material: str | None
    ) -> None:
        self.add(shape, extent, np.tile(np.asarray(at), (self.n, 1)), material)

    def hit(self, time_s: float, strength: float, material: str, size: float) -> None:
        self.events.append(Event(time_s, float(np.clip(strength, 0.08, 1.0)), material, size))

    def rhythm(self, gap_low: float, gap_high: float) -> list[float]:
        """Contact times with gaps drawn around a beat of this scene's own."""
        beat, loose = self.uniform(gap_low, gap_high), self.uniform(0.0, 0.5)
        times, now = [], self.uniform(0.25, 1.2)
        while now < self.duration_s:
            times.append(now)
            now += max(gap_low * 0.7, beat * (1.0 + loose * self.uniform(-1, 1.5)))
        return times

    def add_distractors(self) -> None:
        """Things that move and make no sound: smooth drifts that touch nothing."""
        for _ in range(int(self.rng.choice([0, 1, 2], p=[0.5, 0.35, 0.15]))):
            amplitude, period = self.uniform(0.05, 0.3), self.uniform(2.0, 7.0)
            phase, drift = self.uniform(0, 6.28), self.uniform(-0.05, 0.05)
            wave = np.sin(2 * np.pi * self.time / period + phase)
            x = self.uniform(0, self.aspect) + amplitude * wave + drift * self.time
            y = self.uniform(0.05, 0.5) + 0.3 * amplitude * np.cos(2 * np.pi * self.time / period)
            size = self.uniform(0.02, 0.08)
            shape = str(self.rng.choice(["disc", "box"]))
            self.add(shape, (size, size * self.uniform(0.6, 1.4)), np.stack([x, y], 1), None)
            self.bodies.insert(0, self.bodies.pop())  # behind everything else


def bounce(w: World) -> None:
    """Balls fall and bounce on a floor; one that has come to rest rolls away and another drops in."""
    floor = w.uniform(0.7, 0.92)
    w.still("box", (w.aspect, 0.5), (w.aspect / 2, floor + 0.5), None)
    for _ in range(int(w.rng.integers(1, 3))):
        material, size = w.material(), w.uniform(0.0, 1.0)
        radius = 0.04 + 0.07 * size
        gravity, restitution = w.uniform(1.6, 3.5), w.uniform(0.6, 0.85)
        path = np.zeros((w.n, 2))
        x, y, vx, vy = w.uniform(0.2, 0.8) * w.aspect, -0.2 - w.uniform(0, 1.0), w.uniform(-0.1, 0.1), 0.0
        for i in range(w.n):
            vy += gravity / STEPS_HZ
            x, y = x + vx / STEPS_HZ, y + vy / STEPS_HZ
            if y > floor - radius and vy > 0:
                y = floor - radius
                if vy > 0.12:
                    w.hit(i / STEPS_HZ, vy / 2.0, material, size)
                    vy = -restitution * vy
                elif y > 0:  # at rest: gone, and a new one drops in after a pause
                    x, y = w.uniform(0.2, 0.8) * w.aspect, -0.2 - w.uniform(0.0, 0.8)
                    vx, vy = w.uniform(-0.1, 0.1), 0.0
            path[i] = x, y
        w.add("disc", (radius, radius), path, material)


def box_walls(w: World) -> None:
    """A puck slides without gravity and hits the four walls of a frame."""
    margin = w.uniform(0.05, 0.15)
    material, size = w.material(), w.uniform(0.0, 1.0)
    radius = 0.04 + 0.06 * size
    bounds = (margin + radius, w.aspect - margin - radius), (margin + radius, 1 - margin - radius)
    for x0, y0, ex, ey in (
        (w.aspect / 2, margin / 2, w.aspect, margin / 2),
        (w.aspect / 2, 1 - margin / 2, w.aspect, margin / 2),
        (margin / 2, 0.5, margin / 2, 1.0),
        (w.aspect - margin / 2, 0.5, margin / 2, 1.0),
    ):
        w.still("box", (ex, ey), (x0, y0), "stone" if size > 0.5 else None)
    speed, heading = w.uniform(0.4, 1.0), w.uniform(0, 6.28)
    position = np.array([w.aspect / 2, 0.5])
    velocity = speed * np.array([np.cos(heading), np.sin(heading)])
    path = np.zeros((w.n, 2))
    for i in range(w.n):
        position = position + velocity / STEPS_HZ
        for axis, (low, high) in enumerate(bounds):
            outside = position[axis] < low or position[axis] > high
            if outside and (position[axis] - (low + high) / 2) * velocity[axis] > 0:
                if abs(velocity[axis]) > 0.08:
                    w.hit(i / STEPS_HZ, abs(velocity[axis]), material, size)
                velocity[axis] *= -1
        path[i] = position
    w.add("disc", (radius, radius), path, material)


def hammer(w: World) -> None:
    """A hammer swings about a pivot and strikes a block: slow up, fast down."""
    material, size = w.material(), w.uniform(0.0, 1.0)
    block = 0.07 + 0.1 * size
    x, top = w.uniform(0.35, 0.65) * w.aspect, w.uniform(0.65, 0.8)
    w.still("box", (block * 1.4, block), (x, top + block), material)
    reach, raised = w.uniform(0.25, 0.4), w.uniform(0.5, 1.1)
    angle = swing(w, w.rhythm(0.35, 1.1), raised, lambda t, s: w.hit(t, s, material, size))
    side = float(w.rng.choice([-1.0, 1.0]))
    pivot = np.array([x + side * reach, top - 0.05])
    direction = np.stack([-side * np.cos(angle), -np.sin(angle)], 1)
    w.add("box", (reach / 2, 0.014), pivot + direction * reach / 2, None, side * angle)
    w.add("box", (0.035, 0.05), pivot + direction * reach, None, side * angle)


def swing(w: World, times: list[float], raised: float, hit: Callable[[float, float], None]) -> Floats:
    """Angle [n] above the contact: each blow is lifted by its own height and lands exactly at its time."""
    angle = np.full(w.n, 0.3 * raised)
    before = 0.0
    for now in times:
        strength = w.uniform(0.35, 1.0)
        lift, fall = raised * strength, min(0.16, 0.4 * (now - before))
        rising = (w.time >= before) & (w.time < now - fall)
        span = max(now - fall - before, 1e-3)
        start = 0.3 * raised if before == 0.0 else 0.0
        phase = (w.time[rising] - before) / span
        angle[rising] = start + (lift - start) * 0.5 * (1 - np.cos(np.pi * phase))
        falling = (w.time >= now - fall) & (w.time < now)
        angle[falling] = lift * (1 - ((w.time[falling] - now + fall) / fall) ** 2)
        hit(now, strength)
        before = now
    tail = w.time >= before
    angle[tail] = 0.3 * raised * (1 - np.exp(-(w.time[tail] - before) / 0.4))
    return angle


def drumstick(w: World) -> None:
    """One or two sticks beat a wide drum or plate seen from the side."""
    material = str(w.rng.choice(["drum", "drum", "metal", "wood"]))
    size = w.uniform(0.2, 1.0)
    half, x, top = 0.12 + 0.2 * size, w.aspect / 2, w.uniform(0.6, 0.75)
    w.still("box", (half, 0.05 + 0.12 * size), (x, top + 0.05 + 0.12 * size), material)
    for side in [-1.0, 1.0] if w.rng.random() < 0.4 else [float(w.rng.choice([-1.0, 1.0]))]:
        angle = swing(w, w.rhythm(0.25, 0.9), w.uniform(0.4, 0.8), lambda t, s: w.hit(t, s, material, size))
        reach = w.uniform(0.25, 0.4)
        pivot = np.array([x + side * (reach + 0.3 * half), top - 0.02])
        direction = np.stack([-side * np.cos(angle), -np.sin(angle)], 1)
        w.add("box", (reach / 2, 0.012), pivot + direction * reach / 2, None, side * angle)


def falling(w: World) -> None:
    """Things drop one by one and stay where they land."""
    floor = w.uniform(0.75, 0.93)
    w.still("box", (w.aspect, 0.5), (w.aspect / 2, floor + 0.5), None)
    material = w.material()
    for now in w.rhythm(0.5, 1.6):
        size = w.uniform(0.0, 1.0)
        half = 0.035 + 0.06 * size
        gravity = w.uniform(2.0, 4.0)
        landing = floor - half
        height = landing + half + w.uniform(0.05, 0.4)  # starts above the picture
        since = w.time - (now - np.sqrt(2 * height / gravity))
        y = np.where(w.time < now, landing - height + 0.5 * gravity * np.clip(since, 0, None) ** 2, landing)
        spin = w.uniform(-3, 3) * np.clip(now - w.time, 0, None)
        path = np.stack([np.full(w.n, w.uniform(0.1, 0.9) * w.aspect), y], 1)
        w.add(str(w.rng.choice(["disc", "box"])), (half, half), path, material, spin)
        w.hit(now, np.sqrt(2 * gravity * height) / 2.6, material, size)


def stomp(w: World) -> None:
    """A block walks on the spot or across: lifts, hovers, comes down."""
    floor = w.uniform(0.7, 0.9)
    ground = w.material()
    w.still("box", (w.aspect, 0.5), (w.aspect / 2, floor + 0.5), ground)
    size = w.uniform(0.2, 1.0)
    height = swing(w, w.rhythm(0.35, 0.9), w.uniform(0.08, 0.25), lambda t, s: w.hit(t, s, ground, size))
    half = (0.05 + 0.08 * size, 0.04 + 0.05 * size)
    x = w.uniform(0.2, 0.8) * w.aspect + w.uniform(-0.04, 0.04) * w.time
    w.add("box", half, np.stack([x, floor - half[1] - height], 1), None)


def collide(w: World) -> None:
    """Two pendulum balls swing on strings and knock in the middle."""
    material, size = w.material(), w.uniform(0.0, 1.0)
    radius = 0.035 + 0.05 * size
    x, length = w.aspect / 2, w.uniform(0.45, 0.65)
    period, raised, decay = w.uniform(0.9, 1.6), w.uniform(0.35, 0.7), w.uniform(6.0, 20.0)
    offset = w.uniform(0.0, period)
    phase = (w.time + offset) / period  # a knock at every integer of 2 * phase
    swinging = raised * np.exp(-w.time / decay) * np.abs(np.sin(2 * np.pi * phase))
    left_turn = np.floor(2 * phase) % 2 == 0
    for side, active in ((-1.0, left_turn), (1.0, ~left_turn)):
        angle = np.where(active, swinging, 0.0) * side
        path = np.stack([x + side * radius + length * np.sin(angle), 0.1 + length * np.cos(angle)], 1)
        middle = np.stack(
            [x + side * radius + length / 2 * np.sin(angle), 0.1 + length / 2 * np.cos(angle)], 1
        )
        w.add("box", (length / 2, 0.004), middle, None, np.pi / 2 - angle)
        w.add("disc", (radius, radius), path, material)
    knock = period / 2 - offset % (period / 2)
    while knock < w.duration_s:
        w.hit(knock, raised * np.exp(-knock / decay) * 1.6, material, size)
        knock += period / 2


KINDS: dict[str, Callable[[World], None]] = {
    "bounce": bounce,
    "walls": box_walls,
    "hammer": hammer,
    "drumstick": drumstick,
    "falling": falling,
    "stomp": stomp,
    "collide": collide,
}
