"""Does the sound follow the picture? Onset F1 of generated sound on clips never trained on, beside chance.

Each clip is encoded as a real video and goes through the whole pipeline. Chance is the same sounds scored
against the events of other clips.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from taro_rt.engines.contract import Array
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.training.clips import HELD_OUT, sound, write_video
from taro_rt.training.mel import HOP, LogMel
from taro_rt.training.scenes import TEXTURES, make_scene
from taro_rt.training.sounds import RATE_HZ

TOLERANCES_S = (0.1, 0.05)
FIRST_TEST_SEED = 1000
"""Held-out clips below this one may be used to choose settings, those from here on only to report."""


@dataclass(frozen=True)
class Sync:
    """Mean onset F1 over clips at one tolerance."""

    tolerance_s: float
    generated: float
    chance: float
    """The generated sounds scored against the events of other clips."""
    real: float
    """The clips' own soundtracks: what the detector below can reach at best."""
    picked: float
    """The onsets picked from the onset network's curve."""


def sound_onsets(samples: Array) -> Array:
    """Times (s) at which the energy of `samples` [n] at 16 kHz rises: frames whose half-wave rectified flux
    of the log-mel, averaged over bands, reaches a quarter of the clip's strongest, at least 80 ms apart."""
    mel = LogMel()(torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None])[0].numpy()
    mel = np.maximum(mel, mel.max() - 7.0)  # nothing 60 dB below the loudest counts
    lag = 3
    flux = np.maximum(mel[lag:] - mel[:-lag], 0).mean(1)
    threshold = max(0.35, 0.25 * float(np.percentile(flux, 98)))
    times: list[float] = []
    for k in np.argsort(-flux):
        if flux[k] < threshold:
            break
        time_s = (k + lag - 1) * HOP / RATE_HZ
        if all(abs(time_s - other) >= 0.08 for other in times):
            times.append(time_s)
    return np.sort(np.array(times))


def f1(found: Array, true: Array, tolerance_s: float) -> float:
    """F1 of one-to-one matches within the tolerance; true events closer than 80 ms count as one."""
    merged: list[float] = []
    for time_s in np.sort(true):
        if not merged or time_s - merged[-1] >= 0.08:
            merged.append(float(time_s))
    if not merged or not len(found):
        return float(len(merged) == len(found))
    pairs = sorted(
        (abs(a - b), i, j)
        for i, a in enumerate(found)
        for j, b in enumerate(merged)
        if abs(a - b) <= tolerance_s
    )
    left: set[int] = set()
    right: set[int] = set()
    for _, i, j in pairs:
        if i not in left and j not in right:
            left.add(i)
            right.add(j)
    return 2 * len(left) / (len(found) + len(merged))


def evaluate(pipeline: Pipeline, seeds: Sequence[int], options: Options, height: int = 180) -> list[Sync]:
    """Onset F1 over the held-out clips `HELD_OUT + seed`; textures, which have no events, are left out."""
    events, heard, real, picked = [], [], [], []
    with TemporaryDirectory() as folder:
        for seed in seeds:
            if make_scene(HELD_OUT + seed).kind in TEXTURES:
                continue
            path = Path(folder) / f"{seed}.mp4"
            scene = write_video(path, HELD_OUT + seed, height=height)
            result = pipeline.generate(path, options)
            events.append(np.array([e.time_s for e in scene.events]))
            heard.append(sound_onsets(result.audio.samples))
            real.append(sound_onsets(sound(scene)))
            picked.append(np.array([onset.time_s for onset in result.onsets]))
    n = len(events)

    def mean(found: list[Array], tolerance_s: float, shifts: Sequence[int]) -> float:
        return float(
            np.mean([f1(found[i], events[(i + s) % n], tolerance_s) for s in shifts for i in range(n)])
        )

    return [
        Sync(t, mean(heard, t, [0]), mean(heard, t, range(1, n)), mean(real, t, [0]), mean(picked, t, [0]))
        for t in TOLERANCES_S
    ]


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--first-seed", type=int, default=FIRST_TEST_SEED)
    parser.add_argument("--guidance", type=float, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--output", type=Path, help="write the record here as JSON")
    args = parser.parse_args()
    with Pipeline.load(args.bundle) as pipeline:
        options = Options(guidance=args.guidance, steps=args.steps)
        seeds = range(args.first_seed, args.first_seed + args.clips)
        rows = [asdict(row) for row in evaluate(pipeline, seeds, options)]
        manifest = pipeline.bundle.manifest
    record = {
        "bundle": manifest.name,
        "transformer_sha256": manifest.files["transformer.safetensors"].sha256,
        "settings": asdict(options.resolve(manifest.sampler)),
        "clips": args.clips,
        "first_seed": args.first_seed,
        "onset_f1": rows,
    }
    text = json.dumps(record, indent=2)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
