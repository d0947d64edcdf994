"""Scenes of things brought together: door, glasses, clapping hands, marbles, ratchet."""

from __future__ import annotations

import numpy as np

from taro_rt.training.looks import STEPS_HZ
from taro_rt.training.sounds import Floats
from taro_rt.training.world import World

UP = -np.pi / 2


def door(w: World) -> None:
    """A door seen from the front opens and slams, or one seen from the side is knocked at."""
    material, size = w.material("wood", "wood", "metal", "glass"), w.uniform(0.0, 1.0)
    (_knock if w.model.endswith("knock") else _slam)(w, material, size)


def _slam(w: World, material: str, size: float) -> None:
    tall, wide = 0.28 + 0.1 * size, 0.13 + 0.07 * size
    hinge, y = w.aspect / 2 - wide, 0.9 - tall
    w.focus = (w.aspect / 2, y)
    angle = w.swing(w.rhythm(1.0, 2.0), w.uniform(0.8, 1.35), lambda t, s: w.hit(t, s, material, size), 0.3)
    w.ground(0.92)
    frame, inside = w.colour("wood"), w.colour(None)
    w.add("box", (wide + 0.03, tall + 0.03), (w.aspect / 2, y), colour=frame)
    w.add("box", (wide, tall), (w.aspect / 2, y), colour=(inside[0] / 4, inside[1] / 4, inside[2] / 4))
    near = np.cos(angle)
    # An open door comes towards the viewer: narrower and a little taller.
    stretch = np.stack([near, 1 + 0.12 * np.sin(angle)], 1)
    shaken = 0.008 * w.tremble(13.0, 0.1)

    def on_door(u: float, v: float) -> Floats:
        x = hinge + wide * (1 + u) * near + shaken
        return np.stack([x, np.full(w.n, y + v * tall)], 1)

    pattern = "panels" if w.model == "panelled" else ""
    w.add("box", (wide, tall), on_door(0.0, 0.0), material, stretch=stretch, pattern=pattern)
    if w.model == "window":
        w.add("box", (wide * 0.6, tall * 0.3), on_door(0.0, -0.45), "glass", stretch=stretch)
    w.add("disc", (0.022, 0.022), on_door(0.8, 0.05), "metal")


def _knock(w: World, material: str, size: float) -> None:
    tall, thick = 0.32 + 0.1 * size, 0.025 + 0.02 * size
    x, y = w.uniform(0.3, 0.45) * w.aspect, 0.95 - 0.42
    w.focus = (x + 0.1, y)
    times = w.bursts((2, 4), (0.24, 0.36), (0.7, 1.6))
    gap = w.swing(times, w.uniform(0.1, 0.16), lambda t, s: w.hit(t, s, material, size), 0.1)
    w.ground(0.95)
    w.add("box", (thick, tall), np.stack([x - 0.01 * np.abs(w.tremble()), np.full(w.n, y)], 1), material)
    if w.model.startswith("window"):
        w.add("box", (thick * 0.7, tall * 0.3), (x, y - 0.4 * tall), "glass")
    w.add("box", (thick + 0.03, 0.012), (x, y + 0.25 * tall), "metal")
    skin, sleeve = w.colour("flesh"), w.colour(None)
    fist = np.stack([x + thick + 0.05 + gap, np.full(w.n, y - 0.05)], 1)
    w.add("round", (0.2, 0.035), fist + np.array([0.22, 0.06]), None, 0.25, colour=sleeve)
    w.add("round", (0.05, 0.048), fist, None, 0.1, colour=skin)


def glasses(w: World) -> None:
    """Two glasses are tipped together and touch at the rim."""
    material, size = w.material("glass", "glass", "glass", "glass", "metal"), w.uniform(0.0, 1.0)
    half = 0.17 + 0.08 * size
    across = half * {"wine": 0.48, "tumbler": 0.55, "coupe": 0.6, "flute": 0.3}[w.model]
    x, y = w.aspect / 2, w.uniform(0.4, 0.55)
    w.focus = (x, y)
    gap = w.swing(w.rhythm(0.7, 1.8), w.uniform(0.1, 0.22), lambda t, s: w.hit(t, s, material, size), 0.2)
    ringing = 0.015 * w.tremble(14.0, 0.12)
    drink, skin, sleeve = w.colour(None), w.colour("flesh"), w.colour(None)
    for side in (-1.0, 1.0):
        path = np.stack([x + side * (across + gap), y + 0.15 * gap + ringing], 1)
        lean = side * 0.8 * gap
        arm = np.stack([path[:, 0] + side * 0.2, path[:, 1] + 0.7 * half], 1)
        w.add("round", (0.2, 0.045), arm, None, side * 0.3, colour=sleeve)
        extent = (half, across)
        w.add(w.model, extent, path, material, UP + lean, pattern="liquid", opacity=0.85, colour=None)
        fingers = path + np.array([side * 0.02, 0.55 * half])
        w.add("round", (across * 0.8, 0.03), fingers, colour=skin)
        inner = np.stack([path[:, 0], path[:, 1] - 0.25 * half], 1)
        w.add("box", (across * 0.7, half * 0.2), inner, None, lean, colour=drink, opacity=0.8)


def clap(w: World) -> None:
    """Two hands at the ends of two arms meet palm to palm."""
    size = w.uniform(0.0, 1.0)
    half = (0.17 + 0.06 * size, 0.055 + 0.025 * size)
    x, y = w.aspect / 2, w.uniform(0.4, 0.55)
    w.focus = (x, y)
    reach = w.uniform(0.12, 0.22)
    gap = w.swing(w.rhythm(0.3, 0.9), reach, lambda t, s: w.hit(t, s, "flesh", size), 0.12)
    bounce = 0.01 * w.tremble(10.0, 0.06)
    skin, sleeve = w.colour("flesh"), w.colour(None)
    shape = {"mitten": "ellipse", "paddle": "paddle"}.get(w.model, "hand")
    for side in (-1.0, 1.0):
        path = np.stack([x + side * (half[1] + gap), y + 0.2 * gap + bounce], 1)
        arm = path + np.array([side * 0.17, half[0] + 0.16])
        w.add("round", (0.25, 0.055), arm, None, side * 0.85, colour=sleeve)
        w.add(shape, half, path, None, UP + side * 1.2 * gap, colour=skin)
        if shape == "hand":  # the thumb, on the near side
            thumb = path + np.array([side * 0.01, 0.25 * half[0]])
            w.add("ellipse", (half[0] * 0.5, half[1] * 0.4), thumb, None, UP - side * 0.5, colour=skin)


def marbles(w: World) -> None:
    """Small balls roll to and fro on a tipping tray and click against each other and its ends."""
    count, size = int(w.rng.integers(3, 6)), w.uniform(0.0, 1.0)
    material = {"steel": "metal"}.get(w.model) or w.material("glass", "glass", "stone", "wood")
    radius, half, y = 0.045 + 0.03 * size, min(0.5, 0.42 * w.aspect), w.uniform(0.55, 0.75)
    w.focus = (w.aspect / 2, y)
    tip = 0.2 * (2 * w.gusts(0.0, (0.8, 1.8)) - 1)
    along, clicks = _roll(w, count, radius, half - radius, tip)
    for now, speed, wall in clicks:
        w.hit(now, speed / 0.9, "wood" if wall else material, 0.2 if wall else size)
    speeds = np.abs(np.diff(along, axis=0, prepend=along[:1])).mean(1) * STEPS_HZ
    w.intensity = np.clip(np.convolve(speeds, np.ones(12) / 12, "same") / 0.6, 0, 1)
    w.ground(min(0.95, y + 0.15))
    centre, sides = np.array([w.aspect / 2, y]), (-1.0, 1.0)
    turn = np.stack([np.cos(tip), np.sin(tip)], 1)
    lift = np.stack([np.sin(tip), -np.cos(tip)], 1)
    board, wall_colour = w.colour("wood"), w.colour("wood")
    w.add("box", (half + 0.03, 0.02), centre - 0.02 * lift, None, tip, colour=board)
    for side in sides:
        at = centre + side * (half + 0.015) * turn + 0.03 * lift
        w.add("box", (0.015, 0.05), at, None, tip, colour=wall_colour)
    shape = "hexagon" if w.model == "faceted" else "disc"
    for k in range(count):
        path = centre + along[:, k, None] * turn + radius * lift
        w.add(
            shape, (radius, radius), path, material, along[:, k] / radius, pattern="wedges" if k % 2 else ""
        )


def _roll(
    w: World, count: int, radius: float, end: float, tip: Floats
) -> tuple[Floats, list[tuple[float, float, bool]]]:
    """Positions [n, count] along the tray; clicks as (time s, closing speed, against an end?)."""
    place = np.sort(w.rng.uniform(-0.8, 0.8, count)) * end
    place = np.maximum.accumulate(place + 2.2 * radius * np.arange(count)) - 1.1 * radius * count
    place, speed = np.clip(place, -end, end), np.zeros(count)
    along, clicks = np.zeros((w.n, count)), []
    pull = 4.0 * np.sin(tip)
    for i in range(w.n):
        speed = (speed + pull[i] / STEPS_HZ) * 0.9985
        place = place + speed / STEPS_HZ
        for k in range(count - 1):
            if place[k + 1] - place[k] < 2 * radius:
                closing = speed[k] - speed[k + 1]
                if closing > 0:
                    keep = 0.85 if closing > 0.1 else 0.0
                    mean, half = 0.5 * (speed[k] + speed[k + 1]), 0.5 * keep * closing
                    speed[k], speed[k + 1] = mean - half, mean + half
                    if closing > 0.18:
                        clicks.append((i / STEPS_HZ, float(closing), False))
                middle = 0.5 * (place[k] + place[k + 1])
                place[k], place[k + 1] = middle - radius, middle + radius
        for k, side in ((0, -1.0), (count - 1, 1.0)):
            if side * place[k] > end:
                place[k] = side * end
                if side * speed[k] > 0.18:
                    clicks.append((i / STEPS_HZ, abs(float(speed[k])), True))
                speed[k] *= -0.5
        along[i] = place
    return along, clicks


def ratchet(w: World) -> None:
    """A toothed wheel is cranked on, burst by burst; its pawl rides up each tooth and drops."""
    material, size = w.material("metal", "metal", "wood"), w.uniform(0.0, 1.0)
    radius = 0.16 + 0.09 * size
    teeth = {"saw": 8, "fine": 12, "cog": 10}[w.model]
    x, y = w.aspect / 2, w.uniform(0.5, 0.6)
    w.focus = (x, y - 0.08)
    times = w.bursts((5, 12), (0.14, 0.24), (0.6, 1.8))
    turned, lifted, before = np.zeros(w.n), np.zeros(w.n), 0.0
    for now in times:
        begin = max(before, now - 0.24)
        phase = np.clip((w.time - begin) / (now - begin), 0, 1)
        turned += phase * (2 * np.pi / teeth)
        lifted += np.where(w.time < now, phase, 0.0)
        w.hit(now, w.uniform(0.6, 1.0), material, size)
        before = now
    drop = 0.05 * w.tremble(16.0, 0.03)
    if w.rng.random() < 0.6:
        w.ground(w.uniform(0.88, 0.95))
    w.add("box", (0.05, 0.3), (x, y + 0.3), "wood")
    w.add(w.model, (radius, radius), (x, y), material, turned)
    for at in range(3):
        spoke = turned + at * 2 * np.pi / 3
        path = np.stack([x + 0.5 * radius * np.cos(spoke), y + 0.5 * radius * np.sin(spoke)], 1)
        w.add("disc", (0.13 * radius, 0.13 * radius), path)
    crank = np.stack([x + 0.55 * radius * np.cos(turned), y + 0.55 * radius * np.sin(turned)], 1)
    w.add("round", (0.6 * radius, 0.022), crank, "wood", turned)
    lift = 0.35 * np.clip(lifted, 0, 1) - drop
    reach = 1.1 * radius
    pivot = np.array([x + 0.85 * radius, y - 1.2 * radius])
    angle = np.pi - 0.4 + lift
    path = pivot + 0.5 * reach * np.stack([np.cos(angle), np.sin(angle)], 1)
    w.add("cone", (reach / 2, 0.035), path, "metal", angle)
    w.add("disc", (0.035, 0.035), (float(pivot[0]), float(pivot[1])), "metal")
