"""Draws what flows: flames, waves and falling water, as functions of place and time. NumPy only."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

from taro_rt.training.backgrounds import sample, smooth_tile
from taro_rt.training.sounds import Floats
from taro_rt.training.world import Field

Steps = npt.NDArray[np.int64]


def overlay(field: Field, steps: Steps, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Colour [n, h, w, 3] and cover [n, h, w, 1] of `field` at world coordinates x, y [n, h, w]."""
    level = field.level[steps].astype(np.float32)[:, None, None]
    flow = field.flow[steps].astype(np.float32)[:, None, None]
    if field.kind == "fire":
        return _flames(field, level, flow, x, y)
    tones = [colorsys.hsv_to_rgb(field.hue % 1.0, s, v) for s, v in ((0.8, 0.3), (0.55, 0.65), (0.08, 0.97))]
    height, foam, cover = (_fall if field.kind == "fall" else _waves)(field, level, flow, x, y)
    deep, bright, white = (np.asarray(tone, np.float32) for tone in tones)
    colour = deep + np.clip(height, 0, 1)[..., None] * (bright - deep)
    colour += np.clip(foam, 0, 1)[..., None] * (white - colour)
    return colour, np.clip(cover, 0, 1)[..., None]


def _flames(field: Field, level: Floats, flow: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    left, top, right, bottom = field.box
    u = (x - 0.5 * (left + right)) * (2 / (right - left))
    tall = (0.15 + 0.85 * level) * np.float32(bottom - top)
    v = (np.float32(bottom) - y) / tall  # 0 at the foot, 1 at the tip
    lick = sample(smooth_tile(11), 0.35 * u + 0.1 * v, y / (bottom - top) * 0.8 + flow)
    heat = 1.25 - v - 1.8 * (u * u) * (0.7 + v) + 1.1 * (lick - 0.5) * (0.4 + v)
    heat = np.where(v < -0.02, 0, np.clip(heat, 0, 1))
    # Black body: red comes first, then green, then blue.
    ramp = np.stack(
        [np.clip(heat * 3, 0, 1), np.clip(heat * 2 - 0.45, 0, 1), np.clip(heat * 2.4 - 1.5, 0, 1)], -1
    )
    if field.hue:
        tint = np.asarray(colorsys.hsv_to_rgb(field.hue, 0.7, 1.0), np.float32)
        ramp = ramp[..., 1:2] * 0.6 + ramp[..., 0:1] * 0.7 * tint
    return ramp.astype(np.float32), np.clip(heat * 4 - 0.3, 0, 1)[..., None]


def _waves(field: Field, level: Floats, flow: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Swell that rolls towards the viewer; on a shore the last wave runs up a beach."""
    top = np.float32(field.box[1])
    depth = np.maximum(y - top, 0) + np.float32(0.05)
    rows = 2.2 * np.log(depth)
    crest = np.sin(6.2832 * (rows - 0.8 * flow) + 1.3 * np.sin(x / depth * 0.35 + flow))
    ripple = np.sin(6.2832 * (x / depth * 0.25 + 0.4 * flow) + 4 * crest)
    height = 0.45 + (0.12 + 0.45 * level) * (0.8 * crest + 0.25 * ripple)
    foam = (crest - 1.25 + 0.95 * level + 0.2 * ripple) * np.clip((depth - 0.05) * 40, 0, 4)
    swell = top - 0.1 * level * (1 + 0.3 * np.sin(4 * x + 6.2832 * flow))
    cover = (y - swell) * 40
    if field.kind == "shore":
        edge = top + 0.22 + 0.28 * level + 0.03 * np.sin(5 * x + 2 * flow)
        foam = np.maximum(foam, 1.6 - 45 * np.abs(y - edge + 0.03))
        cover = np.minimum(cover, (edge - y) * 40)
    return height, foam, cover


def _fall(field: Field, level: Floats, flow: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """A sheet of streaks as wide as the stream is strong, with spray at its foot."""
    left, top, right, bottom = field.box
    u = (x - 0.5 * (left + right)) * (2 / (right - left))
    streak = sample(smooth_tile(12), 1.3 * u, 0.35 * y - 1.2 * flow)
    width = 0.3 + 0.7 * level
    foot = np.exp(-(((y - bottom) / (0.05 + 0.16 * level)) ** 2))
    spray = sample(smooth_tile(13), 0.8 * u, 0.8 * y + 0.9 * flow)
    cover = np.maximum((width - np.abs(u)) * 14, foot * (1.5 - np.abs(u)) * 4 * spray)
    return streak, (streak - 0.75 + 0.35 * level) * 3 + 2.2 * foot * spray, cover * (y > top)
