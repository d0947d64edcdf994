"""How good is a bundle? Onsets, classes, distances and sync of its sound for clips of looks never trained on.

Every clip is encoded as a real video and goes through the whole pipeline. Chance is the same sounds scored
against the events of other clips.

    python -m taro_rt.training.evaluate [--bundle default] [--clips 56] [--output record.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from taro_rt.engines.contract import Array
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.loudness import Meter
from taro_rt.runtime.mixing import finished
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.training import metrics
from taro_rt.training.clips import HELD_OUT, sound, write_video
from taro_rt.training.data import CLIP_S
from taro_rt.training.judges import KindJudge, SyncJudge, change_of
from taro_rt.training.kept import KEPT, kept
from taro_rt.training.mel import LogMel
from taro_rt.training.scenes import KINDS
from taro_rt.training.sounds import RATE_HZ
from taro_rt.training.teacher import AudioEncoder

FIRST_TEST_ROW = 1400
"""Held-out clips below this one may be used to choose settings, those from here on only to report."""
TOLERANCES_S = (0.1, 0.05)
FRAMES = 816


@dataclass(frozen=True)
class Clips:
    """What generated sounds are compared with; row r is the same clip throughout."""

    mels: Array
    """Log-mel of the clips' own sound [n, 816, 64]."""
    kinds: npt.NDArray[np.int64]
    events_s: Sequence[Array]
    """Times of the contacts; none in a texture."""
    change: Tensor
    """What `SyncJudge` sees [n, 65, 120]."""


@dataclass(frozen=True)
class Scores:
    """Figures of one set of generated sounds, named as in the paper's tables."""

    onset_f1: dict[str, float]
    """Mean over clips with events, by tolerance in ms."""
    onset_f1_chance: dict[str, float]
    """The same sounds against the events of other clips."""
    class_accuracy: float
    fd: float
    """Fréchet distance in the embedding of the teacher (two-second means)."""
    fad: float
    """The same in the embedding of the kind judge, which knows nothing of the teacher."""
    inception_score: float
    kl: float
    sync_accuracy: float
    """Share of clips whose sound the sync judge takes for its picture's."""


@dataclass(frozen=True)
class Judges:
    """The frozen networks that judge, and the teacher."""

    kind: KindJudge
    sync: SyncJudge
    teacher: AudioEncoder

    @staticmethod
    def read(path: Path = KEPT) -> Judges:
        """The judges whose weights are kept in `path`."""
        encoder = {key.removeprefix("encoder."): value for key, value in kept("teacher", path).items()}
        made = Judges(KindJudge(), SyncJudge(), AudioEncoder())
        made.kind.load_state_dict(kept("kind-judge", path))
        made.sync.load_state_dict(kept("sync-judge", path))
        made.teacher.load_state_dict({k: encoder[k] for k in made.teacher.state_dict()})
        for net in (made.kind, made.sync, made.teacher):
            net.eval().requires_grad_(False)
        return made

    @torch.inference_mode()
    def hear(self, mels: Array) -> tuple[Array, Array, Array]:
        """Of log-mels [n, 816, 64]: class probabilities [n, kinds], and the two embeddings [4 n, d]."""
        chances, judged, taught = [], [], []
        for block in torch.from_numpy(mels).split(16):
            parts, logits = self.kind(block)
            chances.append(torch.softmax(logits, 1))
            judged.append(parts.flatten(0, 1))
            tokens = self.teacher(block)  # [b, 51 * 4, d], time-major
            parts = torch.nn.functional.adaptive_avg_pool1d(tokens.transpose(1, 2), 4).transpose(1, 2)
            taught.append(parts.flatten(0, 1))
        return tuple(torch.cat(x).numpy() for x in (chances, judged, taught))  # type: ignore[return-value]

    @torch.inference_mode()
    def in_sync(self, change: Tensor, mels: Array) -> float:
        """Share of clips whose log-mel is taken for their own."""
        return float((self.sync(change, torch.from_numpy(mels)) > 0).float().mean())


def score(judges: Judges, clips: Clips, mels: Array) -> Scores:
    """Figures of the generated log-mels [n, 816, 64], one per clip."""
    chances, judged, taught = judges.hear(mels)
    real_chances, real_judged, real_taught = judges.hear(clips.mels)
    f1, chance = {}, {}
    for tolerance_s in TOLERANCES_S:
        key = f"{tolerance_s * 1000:.0f}"
        f1[key], chance[key] = onset_f1([metrics.mel_onsets(mel) for mel in mels], clips, tolerance_s)
    return Scores(
        onset_f1=f1,
        onset_f1_chance=chance,
        class_accuracy=metrics.accuracy(chances, clips.kinds),
        fd=metrics.frechet(taught, real_taught),
        fad=metrics.frechet(judged, real_judged),
        inception_score=metrics.inception_score(chances),
        kl=metrics.divergence(real_chances, chances),
        sync_accuracy=judges.in_sync(clips.change, mels),
    )


def onset_f1(found: Sequence[Array], clips: Clips, tolerance_s: float) -> tuple[float, float]:
    """Mean F1 over the clips with events, and the mean when every sound is scored against another's."""
    rows = [i for i, times in enumerate(clips.events_s) if len(times)]
    n = len(rows)

    def mean(shifts: Sequence[int]) -> float:
        pairs = [(rows[i], rows[(i + shift) % n]) for shift in shifts for i in range(n)]
        return float(np.mean([metrics.f1(found[a], clips.events_s[b], tolerance_s) for a, b in pairs]))

    return mean([0]), mean(range(1, n))


def mel_of(samples: Array) -> Array:
    """Log-mel [816, 64] of a sound at 16 kHz brought to peak 0.5 (spec B8), cut or padded to a window."""
    level = 0.5 / max(float(np.abs(samples).max()), 1e-4)
    whole = np.zeros(round(CLIP_S * RATE_HZ), np.float32)
    whole[: len(samples)] = level * samples[: len(whole)]
    return np.asarray(LogMel()(torch.from_numpy(whole)[None])[0, :FRAMES].numpy())


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


def listen(pipeline: Pipeline, rows: Sequence[int], options: Options, height: int = 180) -> Heard:
    """Sound for the held-out clips `rows`, each encoded as a real video first."""
    made, real, picked, events, kinds, changes, sounds = [], [], [], [], [], [], []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for k, row in enumerate(rows):
            seed = HELD_OUT + row
            scene = write_video(path, seed, CLIP_S, height=height, kind=KINDS[seed % len(KINDS)])
            clip = Clip.read(path, pipeline.geometry)
            result = pipeline.generate(clip, options)
            times = np.array([e.time_s for e in scene.events])
            made.append(mel_of(result.audio.samples))
            real.append(mel_of(sound(scene)))
            events.append(times)
            kinds.append(KINDS.index(scene.kind))
            picked.append(np.array([onset.time_s for onset in result.onsets]))
            changes.append(change_of(torch.from_numpy(watched(clip, pipeline.geometry))[None]))
            blocks = finished(result.audio, Finish(), clip.info, RATE_HZ, 1)
            sounds.append(np.concatenate([block[0] for block in blocks]))
            print(f"{k + 1}/{len(rows)} {scene.kind}", file=sys.stderr, flush=True)
    clips = Clips(np.stack(real), np.array(kinds), events, torch.cat(changes))
    return Heard(clips, np.stack(made), picked, sounds)


def figures(heard: Heard, judges: Judges) -> dict[str, object]:
    """What a record says of a bundle: its sound, beside the clips' own and the onsets it picked."""
    clips = heard.clips
    return {
        "generated": asdict(score(judges, clips, heard.mels)),
        "own_sound": asdict(score(judges, clips, clips.mels)),
        "picked_onset_f1": {f"{t * 1000:.0f}": onset_f1(heard.picked_s, clips, t)[0] for t in TOLERANCES_S},
        "class_accuracy_by_kind": by_kind(judges, clips, heard.mels),
        "delivered": delivered(heard.sounds, clips.events_s),
    }


def delivered(sounds: Sequence[Array], events_s: Sequence[Array]) -> dict[str, object]:
    """What must hold of every sound in a file: its level, no constant part, no clipping, and silence (of a
    second or more) well below the events."""
    levels = []
    for samples in sounds:
        meter = Meter(RATE_HZ)
        meter.add(samples)
        levels.append(meter.loudness())
    pairs = zip(sounds, events_s, strict=True)
    gaps = [gap for each in pairs if (gap := metrics.loudness_gap_db(*each)) is not None]
    return {
        "lufs": {"lowest": min(levels), "median": float(np.median(levels)), "highest": max(levels)},
        "peak": max(float(np.abs(samples).max()) for samples in sounds),
        "constant_part": max(abs(float(samples.mean())) for samples in sounds),
        "events_over_silence_db": {
            "median": float(np.median(gaps)),
            "worst": min(gaps),
            "below_20_db": sum(gap < 20 for gap in gaps),
            "of": len(gaps),
        }
        if gaps
        else None,
    }


def watched(clip: Clip, geometry: Geometry) -> npt.NDArray[np.uint8]:
    """The cropped onset frames of one window, [120, s, s, 3]; the last one repeated beyond the end."""
    edge = (geometry.onset_resize - geometry.onset_crop) // 2
    at = np.minimum(np.arange(geometry.onset_values), len(clip.onset_frames) - 1)
    crop = slice(edge, edge + geometry.onset_crop)
    return np.asarray(clip.onset_frames[at][:, crop, crop], np.uint8)


def by_kind(judges: Judges, clips: Clips, mels: Array) -> dict[str, float]:
    """Class accuracy of every kind."""
    chances = judges.hear(mels)[0]
    return {
        kind: metrics.accuracy(chances[clips.kinds == i], clips.kinds[clips.kinds == i])
        for i, kind in enumerate(KINDS)
        if (clips.kinds == i).any()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--clips", type=int, default=56)
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
    record = {
        "bundle": manifest.name,
        "transformer_sha256": manifest.files["transformer.safetensors"].sha256,
        "settings": asdict(options.resolve(manifest.sampler)),
        "clips": args.clips,
        "first_row": args.first_row,
        **figures(heard, Judges.read()),
    }
    text = json.dumps(record, indent=2)
    print(text)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
