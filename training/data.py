"""Rendered clips on disk: made once by all cores, resumed where a run was cut off, then memory-mapped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from taro_rt.engines.contract import Array
from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.training.clips import sound, views, visual_frames
from taro_rt.training.scenes import KINDS, Scene, make_scene
from taro_rt.training.sounds import MATERIALS, RATE_HZ

Column = tuple[tuple[int, ...], type]
"""Shape and dtype of one row."""
Row = dict[str, Any]
MOST_EVENTS = 200
ROWS_A_WORKER = 8
"""Fewer are not worth the start of another process."""
CLIP_S = 8.16
TRAIN, PICTURES, JUDGE = 0, 250_000, 500_000
"""First seeds of what is trained on, of what only the visual encoder is trained on (so that the transformer
learns from features as uncertain as those of a user's clip), and of what only the judge of kinds is trained
on; evaluation itself starts at `HELD_OUT`."""


@dataclass(frozen=True)
class Sounds:
    """Soundtracks of scenes, in the order of their seeds."""

    samples: npt.NDArray[np.int16]
    """[n, 130560]"""
    kinds: npt.NDArray[np.int64]
    """Index into `KINDS` [n]."""


@dataclass(frozen=True)
class Pictures:
    """Scenes as the visual encoder is shown them."""

    visual_frames: npt.NDArray[np.uint8]
    """[n, 32, v, v, 3]"""
    materials: Array
    """1 where a material sounds in the clip, then its mean size [n, 2, materials]."""


@dataclass(frozen=True)
class Views:
    """The same scenes as the two networks that watch are shown them."""

    onset_frames: npt.NDArray[np.uint8]
    """[n, 120, s, s, 3]"""
    visual_frames: npt.NDArray[np.uint8]
    """[n, 32, v, v, 3]"""
    events: Array
    """Time and strength of every contact [n, most, 2]; NaN where a clip has fewer."""


def scene_of(seed: int) -> Scene:
    """The scene of a seed; kinds come in turn."""
    return make_scene(seed, CLIP_S, KINDS[seed % len(KINDS)])


def open_sounds(folder: Path, n: int, first: int = TRAIN) -> Sounds:
    """The soundtracks of scenes first..first+n-1, made first where they are missing."""
    columns: Mapping[str, Column] = {
        "samples": ((round(CLIP_S * RATE_HZ),), np.int16),
        "kinds": ((), np.int64),
    }
    return Sounds(**fill(folder, columns, n, partial(_sound_row, first)))


def open_views(folder: Path, n: int, config: NetworkConfig, first: int = TRAIN) -> Views:
    """What is seen of scenes first..first+n-1, rendered first where it is missing."""
    g = config.geometry()
    columns: Mapping[str, Column] = {
        "onset_frames": ((g.onset_values, g.onset_crop, g.onset_crop, 3), np.uint8),
        "visual_frames": ((g.visual_frames, g.visual_size, g.visual_size, 3), np.uint8),
        "events": ((MOST_EVENTS, 2), np.float32),
    }
    return Views(**fill(folder, columns, n, partial(_view_row, config, first)))


def open_pictures(folder: Path, n: int, config: NetworkConfig, first: int = PICTURES) -> Pictures:
    """What the visual encoder sees of scenes first..first+n-1, rendered first where it is missing."""
    g = config.geometry()
    columns: Mapping[str, Column] = {
        "visual_frames": ((g.visual_frames, g.visual_size, g.visual_size, 3), np.uint8),
        "materials": ((2, len(MATERIALS)), np.float32),
    }
    return Pictures(**fill(folder, columns, n, partial(_picture_row, config, first)))


def _sound_row(first: int, row: int) -> Row:
    scene = scene_of(first + row)
    return {"samples": np.round(sound(scene) * 32767), "kinds": KINDS.index(scene.kind)}


def _view_row(config: NetworkConfig, first: int, row: int) -> Row:
    scene = scene_of(first + row)
    seen = views(scene, config)
    events = np.full((MOST_EVENTS, 2), np.nan, np.float32)
    contacts = [(e.time_s, e.strength) for e in scene.events[:MOST_EVENTS]]
    events[: len(contacts)] = np.reshape(contacts, (-1, 2))
    return {
        "onset_frames": seen.onset_frames,
        "visual_frames": seen.visual_frames,
        "events": events,
    }


def _picture_row(config: NetworkConfig, first: int, row: int) -> Row:
    scene = scene_of(first + row)
    materials = np.zeros((2, len(MATERIALS)), np.float32)
    for i, name in enumerate(sorted(MATERIALS)):
        sizes = [e.size for e in scene.events if e.material == name]
        materials[:, i] = (1.0, float(np.mean(sizes))) if sizes else (0.0, 0.5)
    return {"visual_frames": visual_frames(scene, config), "materials": materials}


def draw_sounds(sounds: Sounds, rng: np.random.Generator, batch: int, n: int) -> Tensor:
    """Random stretches of `n` samples [b, n] in [-1, 1], at a random level."""
    clips, length = sounds.samples.shape
    rows = rng.integers(0, clips, batch)
    starts = rng.integers(0, length - n + 1, batch)
    drawn = np.stack([sounds.samples[r, s : s + n] for r, s in zip(rows, starts, strict=True)])
    level = rng.uniform(0.5, 1.2, (batch, 1))
    return torch.from_numpy((drawn / 32767 * level).astype(np.float32))


def fill(
    folder: Path, columns: Mapping[str, Column], n: int, make: Callable[[int], Row]
) -> dict[str, npt.NDArray[Any]]:
    """Arrays of `n` rows in `folder`, one .npy file a column; rows that are not there yet are made."""
    folder.mkdir(parents=True, exist_ok=True)
    every: Mapping[str, Column] = {**columns, "done": ((), np.bool_)}
    for name, (shape, dtype) in every.items():
        path = folder / f"{name}.npy"
        if not path.exists():
            np.lib.format.open_memmap(path, "w+", dtype, (n, *shape))
    done = np.load(folder / "done.npy", mmap_mode="r")
    if len(done) < n:
        raise ValueError(f"{folder}: expected {n} rows, got {len(done)}; remove the folder to make them anew")
    missing = np.flatnonzero(~done[:n])
    work = partial(_fill_row, folder, tuple(columns), make)
    n_workers = min(os.cpu_count() or 1, len(missing) // ROWS_A_WORKER)
    workers = partial(ProcessPoolExecutor, n_workers, get_context("spawn")) if n_workers > 1 else nullcontext
    with one_thread_each(), workers() as pool:
        rows = pool.map(work, missing.tolist(), chunksize=4) if pool else map(work, missing)
        for k, _ in enumerate(rows):
            if k % 100 == 99:
                print(f"{folder.name}: {k + 1}/{len(missing)} made", file=sys.stderr, flush=True)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r")[:n] for name in columns}


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that are started meanwhile multiply matrices on one thread each.

    Two workers of two threads on two cores, all waiting busily for each other, were seen to stand still
    for 13 minutes.
    """
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _fill_row(folder: Path, names: tuple[str, ...], make: Callable[[int], Row], row: int) -> None:
    made = make(row)
    for name in names:
        np.load(folder / f"{name}.npy", mmap_mode="r+")[row] = made[name]
    np.load(folder / "done.npy", mmap_mode="r+")[row] = True
