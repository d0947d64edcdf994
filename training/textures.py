"""Scenes that go on sounding: rain, wind, fire, water, each driven by an intensity one can see."""

from __future__ import annotations

import numpy as np

from taro_rt.training.looks import STEPS_HZ
from taro_rt.training.sounds import Floats
from taro_rt.training.world import Field, World

UP = -np.pi / 2
AWAY = 9.0
"""Far outside the picture."""


def rain(w: World) -> None:
    """Drops fall past, more of them the harder it rains, and splash on the ground."""
    level = w.intensity = w.gusts(0.08, (0.9, 2.2))
    floor = w.uniform(0.75, 0.92)
    w.ground(floor, "soil")
    slant, speed = w.uniform(-0.25, 0.25), w.uniform(1.3, 2.2)
    shape, length, thick = {"streaks": ("box", 0.06, 0.006), "drops": ("teardrop", 0.035, 0.012)}.get(
        w.model, ("disc", 0.015, 0.015)
    )
    colour = w.colour("glass")
    for k in range(64):
        far = w.uniform(0.6, 1.0)
        fallen = w.uniform(0, 1.4) + far * speed * w.time
        turn = np.floor(fallen / 1.4)
        y = fallen % 1.4 * (floor + 0.2) / 1.4 - 0.15
        x = (np.sin(turn * 12.9898 + k * 78.233) * 43758.5453 % 1.0) * (w.aspect + 0.4) - 0.2 + slant * y
        x = np.where(level > (k + 1) / 66, x, AWAY)
        angle = np.arctan2(1.0, slant)
        # The teardrop's round end falls first; its length runs with the fall.
        w.add(shape, (length * far, thick), np.stack([x, y], 1), angle=angle, colour=colour, opacity=0.85)
    for k in range(14):
        _splash(w, level, floor, (k + 1) / 15, colour)


def _splash(
    w: World, level: Floats, floor: float, threshold: float, colour: tuple[float, float, float]
) -> None:
    """Flat rings that grow and vanish, one after the other, at places of their own."""
    beat = w.uniform(2.0, 4.0)
    turn = w.time * beat + w.uniform(0, 1)
    phase = turn % 1.0
    x = (np.sin(np.floor(turn) * 91.7 + 40 * threshold) * 4375.85 % 1.0) * w.aspect
    y = np.full(w.n, floor + w.uniform(0.0, 0.9 - floor if floor < 0.88 else 0.02))
    x = np.where(level > threshold, x, AWAY)
    size = np.stack([0.3 + phase, 0.3 + phase], 1)
    w.add("ellipse", (0.06, 0.013), np.stack([x, y], 1), colour=colour, stretch=size, opacity=0.6)


def wind(w: World) -> None:
    """Gusts bend grass, toss a tree or lift a flag, and carry leaves along."""
    level = w.intensity = w.gusts(0.08, (0.8, 2.0))
    floor = w.uniform(0.75, 0.9)
    w.ground(floor, "soil")
    {"grass": _grass, "tree": _tree}.get(w.model, _flag)(w, level, floor)
    carried = np.cumsum(level**1.5) / STEPS_HZ * w.uniform(0.8, 1.4)
    for _ in range(7):
        x = (w.uniform(0, 2) + carried * w.uniform(0.8, 1.2)) % (w.aspect + 0.4) - 0.2
        y = w.uniform(0.1, floor - 0.1) + 0.05 * np.sin(6 * x + w.uniform(0, 6))
        x = np.where(level > 0.25, x, np.where(level > 0.2, x, AWAY))
        leaf = w.colour("soil")
        w.add("ellipse", (0.025, 0.011), np.stack([x, y], 1), None, 9 * x, colour=leaf)


def _flutter(w: World, level: Floats) -> Floats:
    """Lean [n]: with the gust, and trembling the faster the stronger it blows."""
    turn = 2 * np.pi * np.cumsum(0.6 + 2.2 * level) / STEPS_HZ + w.uniform(0, 6.28)
    return level * (0.85 + 0.3 * np.sin(turn))


def _grass(w: World, level: Floats, floor: float) -> None:
    tall = w.uniform(0.25, 0.45)
    for k in range(22):
        half = 0.5 * tall * w.uniform(0.6, 1.1)
        x = (k + w.uniform(0, 1)) / 22 * w.aspect
        base = (x, floor + w.uniform(0.0, 0.06) - half)
        green = w.colour("soil")
        lean = 0.9 * _flutter(w, level)
        w.add("cone", (half, 0.022), base, None, UP, colour=green, bend=lean)


def _tree(w: World, level: Floats, floor: float) -> None:
    x, top = w.uniform(0.35, 0.55) * w.aspect, floor - w.uniform(0.4, 0.5)
    w.add("cone", (0.3, 0.05), (x, floor - 0.25), "wood", UP, bend=0.25 * level)
    green = w.colour("soil")
    for _ in range(9):
        out = np.array([w.uniform(-0.2, 0.2), w.uniform(-0.14, 0.14)])
        toss = _flutter(w, level) * (0.16 - 0.3 * min(0.2, out[1]))
        path = np.stack([x + out[0] + toss, top + out[1] + 0.5 * toss**2], 1)
        radius = w.uniform(0.07, 0.11)
        tint = w.uniform(0.8, 1.2)
        shade = (min(1, green[0] * tint), min(1, green[1] * tint), min(1, green[2] * tint))
        w.add("ellipse", (radius * 1.2, radius), path, colour=shade)


def _flag(w: World, level: Floats, floor: float) -> None:
    x, top, width = 0.3 * w.aspect, floor - 0.65, 0.09
    w.add("box", (0.33, 0.012), (x, floor - 0.33), "wood", UP)
    cloth, other = w.colour(None), w.colour(None)
    turn = 2 * np.pi * np.cumsum(0.5 + 2.0 * level) / STEPS_HZ
    place = np.tile(np.array([x, top + 0.1]), (w.n, 1))
    for k in range(6):
        droop = 1.35 * (1 - np.clip(level * 1.4, 0, 1)) + 0.5 * level * np.sin(turn - 1.1 * k)
        step = np.stack([np.cos(droop), np.sin(droop)], 1) * width
        w.add("box", (width * 0.62, 0.1), place + step / 2, None, droop, colour=cloth if k % 2 else other)
        place = place + step


def fire(w: World) -> None:
    """Flames whose height is heard, over logs, in a hearth or on a torch."""
    level = w.intensity = w.gusts(0.12, (0.7, 1.8))
    flow = np.cumsum(0.6 + 0.8 * level) / STEPS_HZ
    x, base = w.uniform(0.4, 0.6) * w.aspect, w.uniform(0.78, 0.88)
    wide = 0.1 if w.model == "torch" else w.uniform(0.18, 0.28)
    if w.model == "torch":
        base -= 0.22
        w.add("cone", (0.25, 0.05), (x, base + 0.2), "wood", np.pi / 2)
    else:
        w.ground(base + 0.03, "stone")
        if w.model == "hearth":
            w.add("box", (wide + 0.12, 0.36), (x, base - 0.33), "stone")
            w.add("box", (wide + 0.05, 0.3), (x, base - 0.27), colour=(0.05, 0.04, 0.04))
        for lean in (-0.35, 0.3, 0.05):
            w.add("round", (wide, 0.035), (x, base), "wood", lean)
    w.focus = (x, base - 0.15)
    hue = 0.0 if w.paint.random() < 0.9 else float(w.paint.uniform(0.0, 1.0))
    w.fields.append(
        Field("fire", (x - 1.6 * wide, base - 0.62, x + 1.6 * wide, base + 0.05), level, flow, hue)
    )
    for k in range(6):
        rise = (w.time * w.uniform(0.35, 0.6) + w.uniform(0, 1)) % 1.0
        drift = x + wide * w.uniform(-0.7, 0.7) + 0.05 * np.sin(7 * rise + k)
        path = np.stack([np.where(level > 0.15 + 0.12 * k, drift, AWAY), base - 0.75 * rise], 1)
        w.add("disc", (0.008, 0.008), path, colour=(1.0, 0.75, 0.3), glowing=True)


def water(w: World) -> None:
    """Waves that swell and break, on the open sea or a shore, or a fall whose stream grows and shrinks."""
    level = w.intensity = w.gusts(0.12, (0.9, 2.0))
    flow = np.cumsum(0.35 + 0.9 * level) / STEPS_HZ
    hue = float(w.paint.uniform(0.47, 0.62)) if w.paint.random() < 0.85 else float(w.paint.random())
    if w.model == "fall":
        half, x = w.uniform(0.18, 0.3), w.aspect / 2
        w.ground(0.88, "stone")
        box = (x - half, -0.3, x + half, 0.95)
    else:
        top = w.uniform(0.3, 0.5)
        box = (-2.0 * w.aspect, top, 3.0 * w.aspect, 2.0)
        if w.model == "sea":
            bob = 0.03 * level * np.sin(2 * np.pi * flow * 1.2)
            path = np.stack([np.full(w.n, w.uniform(0.3, 0.7) * w.aspect), top - 0.01 + bob], 1)
            w.add("round", (0.07, 0.025), path, "wood", 2 * bob)
    w.fields.append(Field(w.model, box, level, flow, hue))
