"""`taro-rt generate --within take.wav`: a part of a .wav made anew, all other samples as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from taro_rt.engines.errors import MediaError, OptionsError
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.clip import open_reel
from taro_rt.runtime.commands import Job, Machine, Record, check_target, take_names
from taro_rt.runtime.files import atomic_outputs
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.loudness import Floats
from taro_rt.runtime.onsets import as_json, check_within
from taro_rt.runtime.probe import probe
from taro_rt.runtime.progress import Progress, report
from taro_rt.runtime.region import Region, remade
from taro_rt.runtime.timing import Timings

KINDS = ("WAV", "WAVEX", "RF64")
BITS = {"PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
FLOATS = {"FLOAT": "float32", "DOUBLE": "float64"}
BLOCK = 1 << 16
"""Samples of every channel that are copied at a time."""


@dataclass(frozen=True)
class Take:
    """A .wav that is there already. What its samples are like is kept in files made of it."""

    path: Path
    kind: str
    subtype: str
    rate_hz: int
    channels: int
    n_samples: int

    @classmethod
    def open(cls, path: Path) -> Take:
        """Raises `MediaError` unless it is a .wav of plain samples."""
        if not os.path.isfile(path):
            raise MediaError(f"{path}: expected a .wav made before, got no file there; check the path")
        try:
            found = soundfile.info(str(path))
        except (OSError, soundfile.LibsndfileError) as error:
            raise MediaError(f"{path}: expected a .wav, got something unreadable ({error})") from error
        if found.format not in KINDS or found.subtype not in (*BITS, *FLOATS):
            raise MediaError(
                f"{path}: expected a .wav of {', '.join((*BITS, *FLOATS))} samples, got {found.format} of "
                f"{found.subtype}; convert it first"
            )
        return cls(path, found.format, found.subtype, found.samplerate, found.channels, found.frames)

    def read(self, part: slice) -> Floats:
        """Samples [n, channels] of a part, full scale -1 to 1."""
        values, _ = soundfile.read(
            self.path, dtype=self._dtype, start=part.start, stop=part.stop, always_2d=True
        )
        return np.asarray(values, np.float64) / (1.0 if self.subtype in FLOATS else 1 << 31)

    def write(self, path: Path, low: int, samples: Floats, progress: Progress | None) -> None:
        """A file of the same kind at `path`, with `samples` [n, channels] from sample `low` on. Raises
        `MediaError`, and `Cancelled` if `progress` says so."""
        made, first = self._stored(samples), 0
        try:
            with soundfile.SoundFile(
                path, "w", self.rate_hz, self.channels, self.subtype, format=self.kind
            ) as file:
                for block in self._blocks():
                    start, stop = max(low, first), min(low + len(made), first + len(block))
                    if start < stop:
                        block[start - first : stop - first] = made[start - low : stop - low]
                    file.write(block)
                    first += len(block)
                    report(progress, "write", first / self.n_samples)
        except (OSError, soundfile.LibsndfileError) as error:
            raise MediaError(
                f"{path.parent}: the sound cannot be written there ({error}); choose another folder"
            ) from error

    def _blocks(self) -> Iterator[npt.NDArray[Any]]:
        with soundfile.SoundFile(self.path) as file:
            while len(block := file.read(BLOCK, dtype=self._dtype, always_2d=True)):
                yield block

    @property
    def _dtype(self) -> str:
        """A type that holds the samples exactly: of whole numbers, the upper bits of 32."""
        return FLOATS.get(self.subtype, "int32")

    def _stored(self, samples: Floats) -> npt.NDArray[Any]:
        if self.subtype in FLOATS:
            return samples.astype(FLOATS[self.subtype])
        bits = BITS[self.subtype]
        full = 1 << (bits - 1)
        return (np.clip(np.round(samples * full), -full, full - 1).astype(np.int64) << (32 - bits)).astype(
            np.int32
        )


def regenerate_file(
    machine: Machine, video: Path, within: Path, output: Path | None, job: Job, progress: Progress
) -> tuple[Record, tuple[str, ...]]:
    """Write `within` with the part `job.span` made anew, once for every take; the record of the result.

    Raises before any engine is loaded for whatever can be known by then.
    """
    outputs = _outputs(video, within, output, job)
    if job.finish != Finish(gain_db=job.finish.gain_db):
        raise OptionsError(
            f"within: level, rate and channels are those of {within}; leave out --audio, --loudness, --rate "
            "and --channels (--gain makes the part louder)"
        )
    if job.exports:
        raise OptionsError(
            "within: expected no --export with it, got one; export when the whole is generated"
        )
    job.options.resolve(machine.bundle.manifest.sampler)
    take, timings = Take.open(within), Timings()
    with timings("probe"):
        found = probe(video)
        check_within(job.options.onsets or (), found.duration_s)
        try:
            region = Region.of(job.span, take.n_samples, take.rate_hz, found.duration_s)
        except OptionsError as error:
            raise OptionsError(f"{within}: {error}") from None
    with timings("load"):
        pipeline = machine.pipeline(progress)
    with open_reel(found, pipeline.geometry) as reel:
        result = pipeline.generate(reel, job.options, progress, outputs[0].parent, around=job.span)
    with atomic_outputs(outputs, job.force) as temporaries:
        for k, (temporary, audio) in enumerate(zip(temporaries, result.takes, strict=True)):
            with timings("write"):
                samples = _remade(take, audio, region, result.start_s, job.finish.gain_db)
                take.write(temporary, region.low, samples, partial(report_part, progress, k, len(outputs)))
    report(progress, "write", 1.0)
    takes = [{"output": str(path), "seed": seed} for path, seed in zip(outputs, result.seeds, strict=True)]
    record = {
        **takes[0],
        "takes": takes,
        "video": str(video),
        "within": str(within),
        "start_s": region.low / region.rate_hz,
        "end_s": region.high / region.rate_hz,
        "video_s": found.duration_s,
        "audio_s": take.n_samples / take.rate_hz,
        "rate_hz": take.rate_hz,
        "onsets": as_json(result.onsets),
        "warnings": [],
        "bundle": machine.name,
        **asdict(pipeline.engines.choice),
        "timings_s": {stage: round(s, 4) for stage, s in {**timings.seconds, **result.timings}.items()},
    }
    return record, ()


def _outputs(video: Path, within: Path, output: Path | None, job: Job) -> list[Path]:
    if output is None:
        raise OptionsError("within: expected -o with the name of the new .wav, got none")
    if output.suffix.lower() != ".wav":
        raise OptionsError(
            f"{output}: expected a .wav, since only there the rest stays as it is, got "
            f"{output.suffix or 'no suffix'!r}; write {output.with_suffix('.wav').name}"
        )
    outputs = take_names(output, job.options.takes)
    for path in outputs:
        check_target(video, path, job.force)
    return outputs


def _remade(take: Take, audio: Audio, region: Region, start_s: float, gain_db: float) -> Floats:
    """Samples [n, channels] of the region; every channel keeps its own level."""
    previous = take.read(region.stretch(start_s, audio))
    return np.stack([remade(channel, audio, region, start_s, gain_db) for channel in previous.T], axis=1)


def report_part(progress: Progress, k: int, n: int, stage: str, fraction: float) -> None:
    """Progress of the k-th of n equal pieces of a stage."""
    report(progress, stage, (k + fraction) / n)
