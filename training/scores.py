"""The measures of generated sounds, and the frozen networks that judge them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from taro_rt.engines.contract import Array
from taro_rt.training import metrics
from taro_rt.training.data import CLIP_S
from taro_rt.training.judges import KindJudge, SyncJudge
from taro_rt.training.kept import KEPT, kept
from taro_rt.training.mel import LogMel
from taro_rt.training.scenes import KINDS
from taro_rt.training.sounds import RATE_HZ
from taro_rt.training.teacher import AudioEncoder

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
    sync_chance: float
    """The same sounds with the pictures of other clips."""


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
        sync_chance=judges.in_sync(clips.change.roll(1, 0), mels),
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


def by_kind(judges: Judges, clips: Clips, mels: Array) -> dict[str, float]:
    """Class accuracy of every kind."""
    chances = judges.hear(mels)[0]
    return {
        kind: metrics.accuracy(chances[clips.kinds == i], clips.kinds[clips.kinds == i])
        for i, kind in enumerate(KINDS)
        if (clips.kinds == i).any()
    }
