"""Scenes of things that strike the ground or are struck: bounce, hammer, footsteps, drumstick, drop."""

from __future__ import annotations

import numpy as np

from taro_rt.training.looks import STEPS_HZ
from taro_rt.training.sounds import Floats
from taro_rt.training.world import World

UP = -np.pi / 2
"""Angle of a body whose length points up."""


def bounce(w: World) -> None:
    """Balls fall and bounce on a floor; one that has come to rest is gone and another drops in."""
    floor = w.uniform(0.7, 0.9)
    w.focus = (w.aspect / 2, 0.65)
    w.ground(floor)
    shape = {"cube": "round", "hexball": "hexagon", "egg": "ellipse"}.get(w.model, "disc")
    for _ in range(int(w.rng.integers(1, 3))):
        material, size = w.material(), w.uniform(0.0, 1.0)
        radius = 0.04 + 0.075 * size
        low = radius * (0.75 if w.model == "egg" else 1.0)
        first = len(w.events)
        path = _bounces(w, floor - low, material, size)
        squash = 0.25 * np.abs(w.tremble(4.0, 0.03, first))
        path[:, 1] += squash * low
        stretch = np.stack([1 + 0.5 * squash, 1 - squash], 1)
        pattern = "wedges" if w.model == "beachball" else ""
        spin = w.uniform(-1, 1) * w.time if shape == "disc" else np.zeros(w.n)
        if shape == "disc":
            stretch = np.ones((w.n, 2))
        w.add(shape, (radius, low), path, material, spin, stretch=stretch, pattern=pattern, shadow=True)


def _bounces(w: World, rest: float, material: str, size: float) -> Floats:
    """Path [n, 2] of a ball whose centre turns back at height `rest`; every turn is heard."""
    gravity, restitution = w.uniform(1.6, 3.5), w.uniform(0.6, 0.85)
    path = np.zeros((w.n, 2))
    x, y, vx, vy = _above(w)
    for i in range(w.n):
        vy += gravity / STEPS_HZ
        x, y = x + vx / STEPS_HZ, y + vy / STEPS_HZ
        if y > rest and vy > 0:
            y = rest
            if vy > 0.15:
                w.hit(i / STEPS_HZ, vy / 2.0, material, size)
                vy = -restitution * vy
            else:
                x, y, vx, vy = _above(w)
        path[i] = x, y
    return path


def _above(w: World) -> tuple[float, float, float, float]:
    """Place and speed of a ball about to drop in; it drifts inwards, to stay in the picture."""
    x = w.uniform(0.27, 0.73) * w.aspect
    return x, -0.2 - w.uniform(0.0, 0.9), np.sign(w.aspect / 2 - x) * w.uniform(0.0, 0.04), 0.0


def hammer(w: World) -> None:
    """A hammer swings about a hand and strikes a block or a peg: slow up, fast down."""
    material, size = w.material("wood", "metal", "stone", "glass"), w.uniform(0.0, 1.0)
    block = 0.07 + 0.1 * size
    x, top = w.uniform(0.4, 0.6) * w.aspect, w.uniform(0.6, 0.75)
    w.focus = (x, top - 0.1)
    reach, raised = w.uniform(0.25, 0.38), w.uniform(0.5, 1.1)
    angle = w.swing(w.rhythm(0.35, 1.1), raised, lambda t, s: w.hit(t, s, material, size))
    if w.rng.random() < 0.7:
        w.ground(min(0.97, top + 2 * block + 0.02))
    shaken = np.stack([np.full(w.n, x), top + block + 0.012 * np.abs(w.tremble())], 1)
    if w.rng.random() < 0.3:
        w.add("box", (0.02, block), shaken, material, shadow=True)
        w.add("box", (0.045, 0.012), shaken - np.array([0, block - 0.012]), material)
    else:
        w.add("box", (block * 1.4, block), shaken, material, shadow=True)
    heads = {"hammer": ("claw", 0.075, 0.05), "sledge": ("box", 0.07, 0.06), "pick": ("pick", 0.13, 0.03)}
    shape, along, thick = heads.get(w.model, ("round", 0.085, 0.075))
    pivot = np.array([x + reach, top - along])
    direction = np.stack([-np.cos(angle), -np.sin(angle)], 1)
    w.add("box", (reach / 2, 0.016), pivot + direction * reach / 2, "wood", angle)
    head = "wood" if w.model == "mallet" else "metal"
    # Heads hang across the handle: their length points down at the contact.
    w.add(shape, (along, thick), pivot + direction * reach, head, angle - np.pi / 2)
    hand = w.colour("flesh")
    w.add("disc", (0.05, 0.05), (float(pivot[0]), float(pivot[1])), colour=hand)
    w.add("box", (0.2, 0.04), (float(pivot[0]) + 0.2, float(pivot[1]) + 0.05), None, 0.25)


def footsteps(w: World) -> None:
    """Two feet walk across, or tread on the spot: one lifts, swings forward and lands heel first."""
    floor = w.uniform(0.78, 0.9)
    ground = w.material("wood", "stone", "soil", "metal")
    w.focus = (w.aspect / 2, floor - 0.2)
    w.ground(floor, ground)
    size = w.uniform(0.0, 1.0)
    half = (0.09 + 0.06 * size, 0.032 + 0.018 * size)
    times = w.rhythm(0.38, 0.8)
    speed = 0.0 if w.rng.random() < 0.25 else w.uniform(0.15, 0.4) * w.aspect / w.duration_s
    hip = w.uniform(0.25, 0.35) * w.aspect + speed * w.time
    lift, leg = w.uniform(0.07, 0.2), w.uniform(0.4, 0.55)
    shoe, trousers = w.colour(None), w.colour(None)
    for side in (0, 1):
        ahead = w.uniform(0.02, 0.09)
        knots, places, height = [0.0], [float(hip[0])], np.zeros(w.n)
        for now in times[side::2]:
            strength = w.uniform(0.5, 1.0)
            w.hit(now, strength, ground, size)
            begin = max(knots[-1] + 0.02, now - w.uniform(0.3, 0.42))
            moving = (w.time >= begin) & (w.time < now)
            phase = (w.time[moving] - begin) / (now - begin)
            height[moving] = lift * strength * 3.2 * phase * (1 - phase)
            knots += [begin, now]
            places += [places[-1], float(np.interp(now, w.time, hip)) + ahead]
        foot = np.stack([np.interp(w.time, knots, places), floor - half[1] - height], 1)
        ankle = foot - np.array([0.4 * half[0], 1.5 * half[1]])
        _leg(w, ankle, np.stack([hip, np.full(w.n, floor - leg)], 1), trousers)
        tilt = -1.6 * height  # toes up until the heel is down
        w.add(w.model, half, foot, None, tilt, colour=shoe, shadow=True)
    dip = 0.02 * np.abs(w.tremble(5.0, 0.08))  # the weight comes down with each step
    w.add("round", (0.18, 0.1), np.stack([hip, floor - leg - 0.1 + dip], 1), None, UP)


def _leg(w: World, foot: Floats, hip: Floats, colour: tuple[float, float, float]) -> None:
    delta = hip - foot
    length = np.hypot(delta[:, 0], delta[:, 1])
    stretch = np.stack([length / length.max(), np.ones(w.n)], 1)
    angle = np.arctan2(delta[:, 1], delta[:, 0])
    extent = (float(length.max()) / 2, 0.05)
    w.add("box", extent, (foot + hip) / 2, None, angle, colour=colour, stretch=stretch)


def drumstick(w: World) -> None:
    """One or two sticks beat a drum or a cymbal seen from the side."""
    choices = {"cymbal": ("metal",), "snare": ("drum", "drum", "drum", "wood", "metal")}
    material, size = w.material(*choices.get(w.model, ("drum",))), w.uniform(0.0, 1.0)
    half, x, top = 0.12 + 0.16 * size, w.aspect / 2, w.uniform(0.55, 0.72)
    w.focus = (x, top - 0.05)
    if w.rng.random() < 0.6:
        w.ground(w.uniform(0.9, 0.96))
    sides = [-1.0, 1.0] if w.rng.random() < 0.5 else [float(w.rng.choice([-1.0, 1.0]))]
    swings = [
        w.swing(w.rhythm(0.25, 0.9), w.uniform(0.5, 1.0), lambda t, s: w.hit(t, s, material, size))
        for _ in sides
    ]
    tremble = w.tremble()
    if w.model == "cymbal":
        w.add("box", (0.25, 0.008), (x, top + 0.25), "metal", UP)
        w.add("ellipse", (half * 1.2, 0.02), (x, top + 0.01), "metal", 0.12 * tremble, shadow=True)
        w.add("disc", (0.022, 0.022), (x, top))
    else:
        deep = {"snare": 0.35, "tom": 0.9, "bongo": 0.8}[w.model] * half
        at = np.stack([np.full(w.n, x), top + deep + 0.012 * np.abs(tremble)], 1)
        shape = "bongo" if w.model == "bongo" else "box"
        w.add(shape, (deep, half), at, material, UP, shadow=True)
        for end in (-1.0, 1.0) if w.model != "bongo" else (-1.0,):
            w.add("box", (half * 1.03, 0.014), at + np.array([0, end * (deep - 0.014)]), "metal")
    stick = w.colour("wood")
    for side, angle in zip(sides, swings, strict=True):
        reach = w.uniform(0.25, 0.4)
        pivot = np.array([x + side * (reach + 0.3 * half), top - 0.028])
        direction = np.stack([-side * np.cos(angle), -np.sin(angle)], 1)
        w.add("box", (reach / 2, 0.018), pivot + direction * reach / 2, None, side * angle, colour=stick)
        w.add("disc", (0.028, 0.028), pivot + direction * reach, None, colour=stick)
        w.add("disc", (0.045, 0.045), (float(pivot[0]), float(pivot[1])), "flesh")


def drop(w: World) -> None:
    """Things drop one by one, hop once and stay where they land."""
    floor = w.uniform(0.75, 0.92)
    w.focus = (w.aspect / 2, floor - 0.15)
    w.ground(floor)
    material = w.material()
    shapes = {
        "bottle": ("bottle", 0.42),
        "pyramid": ("cone", 0.8),
        "disc": ("disc", 1.0),
        "ring": ("ring", 1.0),
    }
    shape, slim = shapes.get(w.model, ("box", w.uniform(0.6, 1.0)))
    for now in w.rhythm(0.6, 1.7):
        size = w.uniform(0.0, 1.0)
        half = 0.055 + 0.07 * size
        gravity = w.uniform(2.0, 4.0)
        landing = floor - half
        height = landing + half + w.uniform(0.05, 0.4)  # starts above the picture
        since = np.clip(w.time - (now - np.sqrt(2 * height / gravity)), 0, None)
        after = np.clip(w.time - now, 0, None)
        hop = np.clip(after * (0.13 - after) * 4.0, 0, None)
        y = np.where(w.time < now, landing - height + 0.5 * gravity * since**2, landing - hop)
        spin = w.uniform(-2, 2) * np.clip(now - w.time, 0, None)
        rock = 0.25 * np.exp(-after / 0.12) * np.sin(2 * np.pi * 7 * after)
        path = np.stack([np.full(w.n, w.uniform(0.24, 0.76) * w.aspect), y], 1)
        w.add(shape, (half, half * slim), path, material, UP + spin + rock, shadow=True)
        w.hit(now, np.sqrt(2 * gravity * height) / 2.6, material, size)
