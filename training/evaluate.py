"""How good is a bundle? Onsets, classes, distances and sync of its sound for clips of looks never trained on.

Every clip is encoded as a real video and goes through the whole pipeline. Chance is the same sounds scored
against the events of other clips.

    python -m taro_rt.training.evaluate [--bundle default] [--clips 140] [--output record.json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch

from taro_rt.engines.contract import Array
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.bench.record import commit, device, versions
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.finish import LOUDNESS, Finish
from taro_rt.runtime.loudness import Meter
from taro_rt.runtime.mixing import finished
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.training import metrics
from taro_rt.training.clips import HELD_OUT, make_scene, sound, write_video
from taro_rt.training.judges import change_of
from taro_rt.training.kept import KEPT
from taro_rt.training.scenes import KINDS
from taro_rt.training.scores import TOLERANCES_S, Clips, Judges, by_kind, mel_of, onset_f1, score
from taro_rt.training.sounds import RATE_HZ

FIRST_TEST_ROW = 1400
"""Held-out clips below this one may be used to choose settings, those from here on only to report."""
DURATION_S = 8.0
RATES = (12, 15, 24, 25, 30, 50, 60)
"""Frames per second of the clips, in turn; of each kind, too."""
CLIPS = 140
"""Ten of every kind."""
QUIET_DB = 20.0
"""Silence must lie this far below the events."""
APART_S = 0.15
"""An onset this far from the ends of a silence belongs to it."""
EARLY_S = 0.25
"""An event that sounds at most this long before its time comes early: a fault in time, no broken silence."""


def floor(judges: Judges, clips: Clips, rows: Sequence[int]) -> dict[str, float]:
    """FD and FAD that perfect sounds would have: those of `rows`, other clips of the same looks."""
    scenes = [make_scene(HELD_OUT + row, DURATION_S, KINDS[(HELD_OUT + row) % len(KINDS)]) for row in rows]
    _, judged, taught = judges.hear(np.stack([mel_of(sound(scene)) for scene in scenes]))
    _, real_judged, real_taught = judges.hear(clips.mels)
    return {"fd": metrics.frechet(taught, real_taught), "fad": metrics.frechet(judged, real_judged)}


@dataclass(frozen=True)
class Heard:
    """What a pipeline made of clips, beside the truth; row r is the same clip throughout."""

    clips: Clips
    mels: Array
    """Log-mel of the generated sounds [n, 816, 64]."""
    picked_s: Sequence[Array]
    """Onsets picked from the onset network's curve."""
    sounds: Sequence[Array]
    """The generated sounds as a file gets them [samples], levelled, at 16 kHz."""
    own_sounds: Sequence[Array]
    """The clips' own sounds at the same rate."""


def listen(pipeline: Pipeline, rows: Sequence[int], options: Options, height: int = 180) -> Heard:
    """Sound for the held-out clips `rows`, each encoded as a real video first."""
    made, own, picked, events, kinds, changes, sounds = [], [], [], [], [], [], []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for k, row in enumerate(rows):
            seed = HELD_OUT + row
            scene = write_video(path, seed, DURATION_S, height, rate_of(row), KINDS[seed % len(KINDS)])
            clip = Clip.read(path, pipeline.geometry)
            result = pipeline.generate(clip, options)
            times = np.array([e.time_s for e in scene.events])
            made.append(mel_of(result.audio.samples))
            own.append(sound(scene))
            events.append(times)
            kinds.append(KINDS.index(scene.kind))
            picked.append(np.array([onset.time_s for onset in result.onsets]))
            changes.append(change_of(torch.from_numpy(watched(clip, pipeline.geometry))[None]))
            blocks = finished(result.audio, Finish(), clip.info, RATE_HZ, 1)
            sounds.append(np.concatenate([block[0] for block in blocks]))
            print(f"{k + 1}/{len(rows)} {scene.kind}", file=sys.stderr, flush=True)
    clips = Clips(np.stack([mel_of(each) for each in own]), np.array(kinds), events, torch.cat(changes))
    return Heard(clips, np.stack(made), picked, sounds, own)


def rate_of(row: int) -> int:
    """Frames per second of held-out clip `row`; those of a kind, `len(KINDS)` apart, have every rate."""
    return RATES[(row + row // len(KINDS)) % len(RATES)]


def figures(heard: Heard, judges: Judges) -> dict[str, object]:
    """What a record says of a bundle: its sound, beside the clips' own and the onsets it picked."""
    clips = heard.clips
    return {
        "generated": asdict(score(judges, clips, heard.mels)),
        "own_sound": asdict(score(judges, clips, clips.mels)),
        "picked_onset_f1": {f"{t * 1000:.0f}": onset_f1(heard.picked_s, clips, t)[0] for t in TOLERANCES_S},
        "class_accuracy_by_kind": by_kind(judges, clips, heard.mels),
        "delivered": delivered(heard.sounds, clips.events_s, heard.picked_s, heard.own_sounds),
    }


def delivered(
    sounds: Sequence[Array],
    events_s: Sequence[Array],
    picked_s: Sequence[Array],
    own_sounds: Sequence[Array],
) -> dict[str, object]:
    """What must hold of every sound in a file: its level, no constant part, no clipping, and silence (of a
    second or more) well below the events; in how many of those that are not an onset was picked, how many are
    quiet until shortly before the next event, which comes early, and how many are none in the clip's own
    sound either, where something rings for longer."""
    levels = []
    for samples in sounds:
        meter = Meter(RATE_HZ)
        meter.add(samples)
        levels.append(meter.loudness())
    loud = [level for level in levels if level > -math.inf]
    gaps, own_gaps, n_seen, n_early = [], [], 0, 0
    for samples, times, picked, own in zip(sounds, events_s, picked_s, own_sounds, strict=True):
        gap, own_gap = metrics.loudness_gap_db(samples, times), metrics.loudness_gap_db(own, times)
        silence = metrics.longest_silence(times, len(samples) / RATE_HZ)
        if gap is not None and own_gap is not None and silence is not None:
            gaps.append(gap)
            own_gaps.append(own_gap)
            n_seen += gap < QUIET_DB and _is_seen(picked, *silence)
            until = metrics.loudness_gap_db(samples, times, EARLY_S) if silence[1] in times else None
            n_early += gap < QUIET_DB and until is not None and until >= QUIET_DB
    return {
        "silent": len(levels) - len(loud),
        "lufs": {
            "lowest": min(loud),
            "median": float(np.median(loud)),
            "highest": max(loud),
            "off_by_more_than_4": sum(abs(level - LOUDNESS) > 4 for level in loud),
        },
        "peak": max(float(np.abs(samples).max()) for samples in sounds),
        "constant_part": max(abs(float(samples.mean())) for samples in sounds),
        "events_over_silence_db": {
            "median": float(np.median(gaps)),
            "worst": min(gaps),
            "below_20_db": sum(gap < QUIET_DB for gap in gaps),
            "of_these_with_an_onset_picked": n_seen,
            "of_these_with_the_next_event_early": n_early,
            "of_these_in_the_own_sound_too": sum(
                max(pair) < QUIET_DB for pair in zip(gaps, own_gaps, strict=True)
            ),
            "in_the_own_sound": sum(gap < QUIET_DB for gap in own_gaps),
            "of": len(gaps),
        }
        if gaps
        else None,
    }


def _is_seen(picked_s: Array, start_s: float, end_s: float) -> bool:
    """Whether an onset was picked within a silence."""
    return bool(((picked_s > start_s + APART_S) & (picked_s < end_s - APART_S)).any())


def watched(clip: Clip, geometry: Geometry) -> npt.NDArray[np.uint8]:
    """The cropped onset frames of one window, [120, s, s, 3]; the last one repeated beyond the end."""
    edge = (geometry.onset_resize - geometry.onset_crop) // 2
    at = np.minimum(np.arange(geometry.onset_values), len(clip.onset_frames) - 1)
    crop = slice(edge, edge + geometry.onset_crop)
    return np.asarray(clip.onset_frames[at][:, crop, crop], np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--first-row", type=int, default=FIRST_TEST_ROW)
    parser.add_argument("--guidance", type=float, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--output", type=Path, help="write the record here as JSON")
    args = parser.parse_args()
    with Pipeline.load(args.bundle) as pipeline:
        options = Options(guidance=args.guidance, steps=args.steps)
        rows = range(args.first_row, args.first_row + args.clips)
        heard = listen(pipeline, rows, options)
        manifest = pipeline.bundle.manifest
    judges, others = Judges.read(), range(rows.stop, rows.stop + args.clips)
    record = {
        "bundle": manifest.name,
        "transformer_sha256": manifest.files["transformer.safetensors"].sha256,
        "onset_sha256": manifest.files["onset.safetensors"].sha256,
        "judges_sha256": hashlib.sha256(KEPT.read_bytes()).hexdigest(),
        "device": device(),
        "versions": versions(),
        "commit": commit(),
        "settings": asdict(options.resolve(manifest.sampler)),
        "clips": args.clips,
        "first_row": args.first_row,
        "seconds": DURATION_S,
        "frame_rates": RATES,
        **figures(heard, judges),
        "other_clips": floor(judges, heard.clips, others),
    }
    text = json.dumps(record, indent=2)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
