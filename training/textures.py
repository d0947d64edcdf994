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
    """Gusts bend grass, toss a tree, a palm or washing on a line, lift a flag or turn a wheel, and carry
    leaves along."""
    level = w.intensity = w.gusts(0.08, (0.8, 2.0))
    floor = w.uniform(0.75, 0.9)
    w.ground(floor, "soil")
    blown = {"grass": _grass, "tree": _tree, "flag": _flag, "laundry": _laundry, "palm": _palm, "mill": _mill}
    blown[w.model](w, level, floor)
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


def _laundry(w: World, level: Floats, floor: float) -> None:
    """Washing on a line swings about its pegs."""
    top, first = floor - w.uniform(0.5, 0.65), w.uniform(0.08, 0.2) * w.aspect
    for x in (first - 0.06, w.aspect - first + 0.06):
        w.add("box", (0.5 * (floor - top), 0.012), (x, 0.5 * (floor + top)), "wood", UP)
    w.add("box", (0.5 * w.aspect - first + 0.06, 0.005), (w.aspect / 2, top), "wood")
    n = int(w.rng.integers(3, 6))
    for k in range(n):
        peg = np.array([first + (k + 0.5) / n * (w.aspect - 2 * first), top])
        half = w.uniform(0.09, 0.18)
        hanging = -UP - 1.3 * _flutter(w, level)
        path = peg + half * np.stack([np.cos(hanging), np.sin(hanging)], 1)
        wide = w.uniform(0.3, 0.42) * (w.aspect - 2 * first) / n
        w.add("box", (half, min(wide, 0.14)), path, None, hanging, colour=w.colour(None))


def _palm(w: World, level: Floats, floor: float) -> None:
    """Fronds around the top of a trunk that leans with the gusts."""
    tall, sway = w.uniform(0.42, 0.55), 0.25 * _flutter(w, level)
    x = w.uniform(0.35, 0.6) * w.aspect
    w.add("box", (0.5 * tall, 0.02), (x, floor - 0.5 * tall), "wood", UP, bend=sway)
    crown = np.stack([x + 0.5 * tall * sway, np.full(w.n, floor - tall)], 1)
    green, n = w.colour("soil"), int(w.rng.integers(6, 10))
    for k in range(n):
        half = w.uniform(0.1, 0.16)
        out = UP + (k - 0.5 * (n - 1)) * (3.6 / n)
        turn = 2 * np.pi * np.cumsum(0.7 + 2.5 * level) / STEPS_HZ + w.uniform(0, 6.28)
        # All are blown to the same side, the more the stronger the gust.
        angle = out - level * (0.75 * np.sin(out) + 0.25 * np.sin(turn))
        path = crown + half * np.stack([np.cos(angle), np.sin(angle)], 1)
        w.add("cone", (half, 0.028), path, None, angle, colour=green, bend=0.3 + 0.4 * np.sin(turn) * level)


def _mill(w: World, level: Floats, floor: float) -> None:
    """A wheel on a pole that turns the faster the stronger it blows."""
    x, tall = w.uniform(0.35, 0.65) * w.aspect, w.uniform(0.4, 0.55)
    w.add("cone", (0.5 * tall, 0.03), (x, floor - 0.5 * tall), "wood", UP)
    hub, half = np.array([x, floor - tall]), w.uniform(0.09, 0.14)
    turned = np.cumsum(0.15 + 1.1 * level**1.5) / STEPS_HZ * 2 * np.pi + w.uniform(0, 6.28)
    tones, n = (w.colour(None), w.colour(None)), int(w.rng.integers(3, 7))
    for k in range(n):
        angle = turned + 2 * np.pi * k / n
        path = hub + half * np.stack([np.cos(angle), np.sin(angle)], 1)
        w.add("round", (half, 0.03), path, None, angle, colour=tones[k % 2])
    w.add("disc", (0.025, 0.025), (float(hub[0]), float(hub[1])), "metal")


def fire(w: World) -> None:
    """Flames whose height is heard: over logs, in a hearth, a bowl or a burner, on candles or on a torch."""
    level = w.intensity = w.gusts(0.12, (0.7, 1.8))
    flow = np.cumsum(0.6 + 0.8 * level) / STEPS_HZ
    x, base = w.uniform(0.4, 0.6) * w.aspect, w.uniform(0.78, 0.88)
    lit = {"torch": _torch, "candles": _candles, "burner": _burner, "bowl": _bowl, "bonfire": _bonfire}
    flames = lit.get(w.model, _logs)(w, x, base)
    x, base, wide, _ = flames[0]
    w.focus = (x, base - 0.15)
    hue = 0.0 if w.paint.random() < 0.9 else float(w.paint.uniform(0.0, 1.0))
    if w.model == "burner":
        hue = float(w.paint.uniform(0.55, 0.65))
    for k, (at, foot, half, tall) in enumerate(flames):
        box = (at - 1.6 * half, foot - tall, at + 1.6 * half, foot + 0.05)
        w.fields.append(Field("fire", box, level, flow + 0.37 * k, hue))
    for k in range(6 if wide > 0.08 else 0):
        rise = (w.time * w.uniform(0.35, 0.6) + w.uniform(0, 1)) % 1.0
        drift = x + wide * w.uniform(-0.7, 0.7) + 0.05 * np.sin(7 * rise + k)
        path = np.stack([np.where(level > 0.15 + 0.12 * k, drift, AWAY), base - 0.75 * rise], 1)
        w.add("disc", (0.008, 0.008), path, colour=(1.0, 0.75, 0.3), glowing=True)


Flame = tuple[float, float, float, float]
"""Middle, foot, half width and full height."""


def _torch(w: World, x: float, base: float) -> list[Flame]:
    base -= 0.22
    w.add("cone", (0.25, 0.05), (x, base + 0.2), "wood", np.pi / 2)
    return [(x, base, 0.1, 0.62)]


def _logs(w: World, x: float, base: float) -> list[Flame]:
    """A fire on the ground, within walls if it is a hearth."""
    wide = w.uniform(0.18, 0.28)
    w.ground(base + 0.03, "stone")
    if w.model == "hearth":
        w.add("box", (wide + 0.12, 0.36), (x, base - 0.33), "stone")
        w.add("box", (wide + 0.05, 0.3), (x, base - 0.27), colour=(0.05, 0.04, 0.04))
    for lean in (-0.35, 0.3, 0.05):
        w.add("round", (wide, 0.035), (x, base), "wood", lean)
    return [(x, base, wide, 0.62)]


def _bonfire(w: World, x: float, base: float) -> list[Flame]:
    """A pile of poles that lean against each other."""
    w.ground(base + 0.03, "soil")
    wide, tall = w.uniform(0.16, 0.24), w.uniform(0.12, 0.2)
    for k in range(5):
        out = (k - 2) / 2
        w.add("round", (tall, 0.022), (x + 0.6 * wide * out, base - 0.7 * tall), "wood", UP - 0.7 * out)
    return [(x, base - 0.05, wide, w.uniform(0.65, 0.8))]


def _bowl(w: World, x: float, base: float) -> list[Flame]:
    """A bowl of embers on three legs."""
    wide, foot = w.uniform(0.1, 0.2), base - w.uniform(0.1, 0.3)
    w.ground(base + 0.05, "stone")
    for out in (-0.7, 0.0, 0.7):
        w.add(
            "box",
            (0.5 * (base + 0.05 - foot), 0.01),
            (x + out * wide, 0.5 * (base + 0.05 + foot)),
            "metal",
            UP,
        )
    w.add("ellipse", (1.1 * wide, 0.05), (x, foot), "metal")
    return [(x, foot, wide, w.uniform(0.4, 0.6))]


def _candles(w: World, x: float, base: float) -> list[Flame]:
    """Some candles side by side, each with a small flame."""
    w.ground(base + 0.04, "wood")
    n, flames = int(w.rng.integers(1, 5)), []
    for k in range(n):
        at, tall = x + (k - 0.5 * (n - 1)) * w.uniform(0.16, 0.24), w.uniform(0.06, 0.16)
        w.add("box", (tall, w.uniform(0.025, 0.05)), (at, base + 0.04 - tall), None, UP)
        flames.append((at, base + 0.04 - 2 * tall, w.uniform(0.04, 0.07), w.uniform(0.2, 0.32)))
    return flames


def _burner(w: World, x: float, base: float) -> list[Flame]:
    """A row of flames on a burner."""
    n, step, foot = int(w.rng.integers(4, 7)), w.uniform(0.07, 0.1), base - w.uniform(0.0, 0.15)
    w.add("box", (0.5 * n * step + 0.04, 0.03), (x, foot + 0.04), "metal")
    return [(x + (k - 0.5 * (n - 1)) * step, foot + 0.01, 0.45 * step, w.uniform(0.2, 0.3)) for k in range(n)]


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
