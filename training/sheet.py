"""A contact sheet of procedural clips: every kind in a row of its own, at several times."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from taro_rt.training.film import Frames, develop
from taro_rt.training.pictures import write_png
from taro_rt.training.render import draw
from taro_rt.training.scenes import KINDS, Scene, make_scene
from taro_rt.training.sounds import Floats

HEIGHT, WIDTH = 100, 148
COLUMNS = 6


def shown_times(scene: Scene) -> Floats:
    """Six times around the second contact, a tenth of a second apart, or spread over a texture."""
    if scene.kind in ("rain", "wind", "fire", "water") or not scene.events:
        return np.linspace(0.5, scene.duration_s - 0.5, COLUMNS)
    contact = scene.events[min(1, len(scene.events) - 1)].time_s
    return np.maximum(contact + np.array([-0.3, -0.15, -0.07, 0.0, 0.07, 0.2]), 0)


def sheet(first_seed: int, held_out: bool) -> Frames:
    """Picture [kinds * height, columns * width, 3]; row k shows scene `first_seed + k`."""
    rows = []
    for k, kind in enumerate(KINDS):
        scene = make_scene(first_seed + k, 8.16, kind, held_out)
        pictures = develop(draw(scene, shown_times(scene), HEIGHT, WIDTH, 1 / 30), scene.look, scene.seed)
        pictures[:, -2:] = pictures[:, :, -2:] = 255
        rows.append(np.concatenate(list(pictures), axis=1))
    return np.concatenate(rows)


def write_sheet(path: Path, first_seed: int = 0, held_out: bool = False) -> None:
    """Write the sheet as PNG."""
    write_png(path, sheet(first_seed, held_out))
