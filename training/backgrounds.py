"""What is behind a scene: one painter per family, each a function of world coordinates. NumPy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from taro_rt.training.looks import Look
from taro_rt.training.sounds import Floats

TILE = 64


def smooth_tile(seed: int, octaves: int = 4) -> Floats:
    """Periodic noise [64, 64] in [0, 1]: octaves from 4 cells a side upwards, each half as strong."""
    rng = np.random.default_rng([seed, 7])
    total = np.zeros((TILE, TILE))
    for octave in range(octaves):
        cells = 4 << octave
        grid = rng.standard_normal((cells, cells))
        at = np.arange(TILE) * cells / TILE
        i, f = at.astype(int), at % 1.0
        f = f * f * (3 - 2 * f)
        rows = grid[i] * (1 - f)[:, None] + grid[(i + 1) % cells] * f[:, None]
        total += 0.5**octave * (rows[:, i] * (1 - f) + rows[:, (i + 1) % cells] * f)
    total -= total.min()
    return np.asarray(total / total.max(), dtype=np.float32)


def sample(tile: Floats, u: Floats, v: Floats) -> Floats:
    """`tile` looked up at u, v in units of its period, nearest cell."""
    columns = np.floor(u * TILE).astype(np.int32) & (TILE - 1)
    rows = np.floor(v * TILE).astype(np.int32) & (TILE - 1)
    return np.asarray(tile[rows, columns])


def backdrop(look: Look, x: Floats, y: Floats, aspect: float) -> Floats:
    """Background [h, w, 3] at world coordinates x, y [h, w]."""
    level = PAINTERS[look.background](look, x / look.scale, y / look.scale)
    level = np.clip(level, 0.0, 1.0).astype(np.float32)[..., None]
    near, far, mix = look.colours.astype(np.float32)
    ramp = np.clip(y, 0, 1).astype(np.float32)[..., None]
    base = near * (1 - 0.4 * ramp) + mix * (0.4 * ramp) if look.background != "flat" else near
    strong = 0.6 + 0.4 * look.contrast
    picture = base + look.contrast * level * (far - base) + 0.25 * look.contrast * strong * (level - 0.5)
    return np.asarray(picture, dtype=np.float32)


def _flat(look: Look, u: Floats, v: Floats) -> Floats:
    return np.full(u.shape, 0.5)


def _gradient(look: Look, u: Floats, v: Floats) -> Floats:
    return 0.5 + 0.8 * look.scale * ((u - 0.5) * np.cos(look.light) + (v - 0.5) * np.sin(look.light))


def _checker(look: Look, u: Floats, v: Floats) -> Floats:
    return (np.floor(u) + np.floor(v)) % 2


def _stripes(look: Look, u: Floats, v: Floats) -> Floats:
    return 0.5 + 0.5 * np.clip(
        3 * np.sin(2 * np.pi * (u * np.cos(look.light) + v * np.sin(look.light))), -1, 1
    )


def _noise(look: Look, u: Floats, v: Floats) -> Floats:
    return sample(smooth_tile(look.texture_seed, 5), 0.25 * u, 0.25 * v)


def _bricks(look: Look, u: Floats, v: Floats) -> Floats:
    row = np.floor(v * 2)
    column = u + 0.5 * (row % 2)
    joint = np.minimum(np.abs((v * 2) % 1 - 0.5), np.abs(column % 1 - 0.5) * 2)
    shade = np.sin(row * 12.9 + np.floor(column) * 78.2) * 0.5 + 0.5
    return np.where(joint > 0.44, 1.0, 0.35 * shade)


def _spots(look: Look, u: Floats, v: Floats) -> Floats:
    i, j = np.floor(u), np.floor(v)
    jitter = np.sin(i * 127.1 + j * 311.7) * 43758.5453 % 1.0
    return np.clip((0.15 + 0.3 * jitter - np.hypot(u - i - 0.5, v - j - 0.5)) * 8 + 0.5, 0, 1)


def _skyline(look: Look, u: Floats, v: Floats) -> Floats:
    """Blocks of different heights before a plain sky."""
    tall = np.sin(np.floor(u * 0.8) * 91.7 + look.texture_seed % 97) * 0.5 + 0.5
    return np.where(v * look.scale > 0.75 - 0.5 * tall, 0.3 + 0.7 * tall, 0.0)


def _grain(look: Look, u: Floats, v: Floats) -> Floats:
    """Planks of wood: stretched noise bent into rings."""
    warp = sample(smooth_tile(look.texture_seed, 3), 0.05 * u, 0.4 * v)
    return 0.5 + 0.5 * np.sin(2 * np.pi * (2.0 * v + 4.0 * warp)) - 0.5 * (v * 0.7 % 1.0 > 0.95)


def _polygons(look: Look, u: Floats, v: Floats) -> Floats:
    """Each point takes the level of its nearest seed."""
    rng = np.random.default_rng([look.texture_seed, 8])
    seeds = rng.uniform(-1.0, 3.0, (24, 2)) * min(1.0, look.scale * 4) / look.scale
    best, level = np.full(u.shape, np.inf), np.zeros(u.shape)
    for (a, b), shade in zip(seeds, rng.random(24), strict=True):
        gap = (u - a) ** 2 + (v - b) ** 2
        level = np.where(gap < best, shade, level)
        best = np.minimum(gap, best)
    return level


def _waves(look: Look, u: Floats, v: Floats) -> Floats:
    """Rings around a point outside the picture."""
    return 0.5 + 0.5 * np.sin(2 * np.pi * np.hypot(u + 0.3 / look.scale, v - 0.4 / look.scale))


PAINTERS: dict[str, Callable[[Look, Floats, Floats], Floats]] = {
    "flat": _flat,
    "gradient": _gradient,
    "checker": _checker,
    "stripes": _stripes,
    "noise": _noise,
    "bricks": _bricks,
    "spots": _spots,
    "skyline": _skyline,
    "grain": _grain,
    "polygons": _polygons,
    "waves": _waves,
}
