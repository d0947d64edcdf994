"""Draws scenes: antialiased shapes over a random background, seen by a random camera. NumPy only.

Everything is computed per pixel from signed distances, so any size and any times can be drawn directly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taro_rt.training.scenes import STEPS_HZ, Body, Scene
from taro_rt.training.sounds import Floats

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """How a scene is filmed; drawn from the scene's seed by `random_look`."""

    colours: Floats
    """Background colours at the four corners [2, 2, 3]."""
    texture: Floats
    """Background texture, tiled over the picture [16, 16]."""
    texture_level: float
    shake: Floats
    """Camera offset [n, 2] at 240 Hz, in picture heights."""
    zoom: float
    gain: float
    gamma: float
    light: float
    """Direction of the light on round things, radians."""
    grain: float
    stripes: float
    """Level of the stripes that make rotation visible."""


def random_look(seed: int, n: int) -> Look:
    """Appearance for a scene of `n` steps; independent of what happens in it."""
    rng = np.random.default_rng([seed, 3])
    time = np.arange(n) / STEPS_HZ
    shake = np.zeros((n, 2))
    if rng.random() < 0.5:
        for axis in range(2):
            for frequency in rng.uniform(0.1, 2.5, 3):
                level = rng.uniform(0, 0.006) / frequency**0.5
                shake[:, axis] += level * np.sin(2 * np.pi * (frequency * time + rng.random()))
    if rng.random() < 0.2:
        shake[:, 0] += rng.uniform(-0.02, 0.02) * (time - time.mean())
    return Look(
        colours=rng.uniform(0.05, 0.95) * np.ones((2, 2, 3)) + rng.uniform(-0.25, 0.25, (2, 2, 3)),
        texture=rng.standard_normal((16, 16)),
        texture_level=float(rng.choice([0.0, 0.03, 0.08]) * rng.random()),
        shake=shake,
        zoom=rng.uniform(0.9, 1.1),
        gain=rng.uniform(0.7, 1.25),
        gamma=rng.uniform(0.75, 1.3),
        light=rng.uniform(0, 2 * np.pi),
        grain=float(rng.choice([0.0, 0.01, 0.03])),
        stripes=rng.uniform(0.0, 0.25),
    )


def draw(scene: Scene, times_s: Floats, height: int, width: int) -> Frames:
    """Frames [n, height, width, 3] of `scene` at `times_s` [n]. Pixels need not be square: the picture is
    always `scene.aspect` wide, as when a film is squeezed into a square."""
    look = random_look(scene.seed, len(scene.bodies[0].path))
    rng = np.random.default_rng([scene.seed, 4])
    frames = np.empty((len(times_s), height, width, 3), np.uint8)
    for start in range(0, len(times_s), 32):
        block = slice(start, start + 32)
        frames[block] = _draw_block(scene, look, times_s[block], height, width, rng)
    return frames


def _draw_block(
    scene: Scene, look: Look, times_s: Floats, height: int, width: int, rng: np.random.Generator
) -> Frames:
    step = np.clip(np.round(times_s * STEPS_HZ).astype(int), 0, len(look.shake) - 1)
    y = (np.arange(height, dtype=np.float32) + 0.5) / height
    x = (np.arange(width, dtype=np.float32) + 0.5) / width * scene.aspect
    shake = look.shake[step].astype(np.float32)
    px = ((x - scene.aspect / 2) / look.zoom + scene.aspect / 2)[None, None, :] + shake[:, 0, None, None]
    py = ((y - 0.5) / look.zoom + 0.5)[None, :, None] + shake[:, 1, None, None]
    if np.any(look.shake):
        picture = _background(look, px / scene.aspect, py)  # [n, h, w, 3]
    else:
        still = _background(look, px[:1] / scene.aspect, py[:1])
        picture = np.repeat(still, len(step), axis=0)
    soft = 0.7 * max(1 / height, scene.aspect / width) / look.zoom
    for body in scene.bodies:
        _paint(picture, body, step, px, py, soft, look)
    if look.grain:
        picture += look.grain * rng.standard_normal(picture.shape, dtype=np.float32)
    levels = np.clip(picture * (255 * look.gain) + 0.5, 0, 255).astype(np.uint8)
    curve = 255 * (np.arange(256) / 255) ** look.gamma + 0.5
    return np.asarray(curve.astype(np.uint8)[levels])


def _background(look: Look, u: Floats, v: Floats) -> Floats:
    u, v = np.broadcast_arrays(u, v)
    a, b = np.clip(u, 0, 1)[..., None], np.clip(v, 0, 1)[..., None]
    c = look.colours.astype(np.float32)
    picture = (c[0, 0] * (1 - a) + c[0, 1] * a) * (1 - b) + (c[1, 0] * (1 - a) + c[1, 1] * a) * b
    if look.texture_level:
        tile = look.texture.astype(np.float32)[(v * 40).astype(int) % 16, (u * 40).astype(int) % 16]
        picture = picture + look.texture_level * tile[..., None]
    return np.asarray(picture, dtype=np.float32)


def _paint(
    picture: Floats, body: Body, step: npt.NDArray[np.int64], px: Floats, py: Floats, soft: float, look: Look
) -> None:
    """Paint one body over `picture` [n, h, w, 3], touching only the rows and columns it can cover."""
    centre = body.path[step]
    reach = float(np.hypot(*body.extent)) + soft
    rows = np.flatnonzero((np.abs(py - centre[:, 1, None, None]) < reach).any(axis=(0, 2)))
    columns = np.flatnonzero((np.abs(px - centre[:, 0, None, None]) < reach).any(axis=(0, 1)))
    if not len(rows) or not len(columns):
        return
    box = np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    dx = px[:, :, box[2]] - centre[:, 0, None, None]
    dy = py[:, box[1], :] - centre[:, 1, None, None]
    angle = body.angle[step][:, None, None]
    cos, sin = np.cos(angle), np.sin(angle)
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    a, b = body.extent
    if body.shape == "disc":
        distance = np.sqrt(along**2 + across**2) - a
    else:
        distance = np.maximum(np.abs(along) - a, np.abs(across) - b)
    cover = np.clip(0.5 - distance / (2 * soft), 0, 1)[..., None]
    shade = 1 + 0.25 * (dx * np.cos(look.light) + dy * np.sin(look.light)) / max(a, b)
    shade = shade + look.stripes * np.sign(np.sin(along * (6.0 / a)))
    if body.shiny:
        glint = (dx - 0.35 * a * np.cos(look.light)) ** 2 + (dy - 0.35 * a * np.sin(look.light)) ** 2
        shade = shade + 0.8 * np.exp(-glint / (0.12 * a * b + 1e-6))
    colour = np.asarray(body.colour, np.float32) * shade[..., None]
    picture[box] = (1 - cover) * picture[box] + cover * colour
