"""Files that hand a generated sound over to an editor: `--export otio=FILE`, `mlt=FILE`, `bwf=FILE`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from taro_rt.engines.errors import MediaError, OptionsError
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.bwf import write_bwf
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.mixing import finished
from taro_rt.runtime.onsets import Onset
from taro_rt.runtime.plan import SOUND_RATE_HZ, plan_output
from taro_rt.runtime.probe import VideoInfo, frame_rate
from taro_rt.runtime.source import open_video
from taro_rt.runtime.timecode import since_midnight
from taro_rt.runtime.timeline import Timeline, as_mlt, as_otio, unwritable

SUFFIXES = {"otio": ".otio", "mlt": ".mlt", "bwf": ".wav"}
"""What can be asked for → how its file is called."""
EDITING_RATES = (
    *(Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)),
    *map(Fraction, (24, 25, 30, 48, 50, 60, 100, 120)),
)
"""Frame rates that editors have a name for."""
RATE_ROUNDING = Fraction(4, 10000)
"""By which a container's rounded time stamps may miss one of them."""


@dataclass(frozen=True)
class Export:
    """One file to write beside the output. Raises `OptionsError` for a kind or a suffix that is none."""

    kind: str
    path: Path

    def __post_init__(self) -> None:
        if self.kind not in SUFFIXES:
            raise OptionsError(f"export: expected {', '.join(SUFFIXES)}, got {self.kind!r}")
        if self.path.suffix.lower() != SUFFIXES[self.kind]:
            raise OptionsError(
                f"export: expected {self.kind}=FILE{SUFFIXES[self.kind]}, got {str(self.path)!r}"
            )


def read_exports(texts: Sequence[str]) -> tuple[Export, ...]:
    """Of a command line: "otio=a.otio", several or with commas between. Raises `OptionsError`.

    A comma belongs to a file's name unless a kind follows it.
    """
    found: dict[str, Export] = {}
    for text in texts:
        for part in re.split(rf",\s*(?=(?:{'|'.join(SUFFIXES)})=)", text):
            kind, equals, name = part.partition("=")
            if not equals or not name:
                raise OptionsError(f"export: expected otio=FILE, mlt=FILE or bwf=FILE, got {part!r}")
            if kind in found:
                raise OptionsError(f"export: expected each kind once, got {kind} twice")
            found[kind] = Export(kind, Path(name))
    return tuple(found.values())


def for_editors(finish: Finish) -> Finish:
    """At the rate that editors work at, unless another is asked for: melt plays 16 kHz a millisecond late."""
    return replace(finish, rate_hz=finish.rate_hz or SOUND_RATE_HZ)


def check_names(outputs: Sequence[Path], exports: Sequence[Export]) -> None:
    """Raise unless all names differ, and are such that the files can be written."""
    names: set[str] = set()
    for path in (*outputs, *(export.path for export in exports)):
        if (real := os.path.realpath(path)) in names:
            raise OptionsError(f"export: expected a name of its own for each file, got {path} twice")
        names.add(real)


def check_exports(
    info: VideoInfo, outputs: Sequence[Path], exports: Sequence[Export], finish: Finish
) -> None:
    """Raise `MediaError` for what could not be written after the model ran."""
    for export in exports:
        if export.kind == "bwf":
            plan_output(info, export.path, _alone(finish))
        elif export.kind == "mlt" and (odd := unwritable([info.path, *outputs, *(e.path for e in exports)])):
            raise MediaError(f"{str(odd)!r}: XML cannot hold this name; rename the file, or leave out mlt")


def write_exports(
    info: VideoInfo,
    audio: Audio,
    seed: int,
    onsets: Sequence[Onset],
    output: Path,
    exports: Sequence[Export],
    temporaries: Sequence[Path],
    finish: Finish,
) -> None:
    """Write each of `exports` to its place in `temporaries`, for the take that `output` is to hold.

    Time lines show the output's picture, or the whole video up to the part's end if the output is a .wav;
    what they play is the Broadcast WAV if that is exported too, else the output. Raises `MediaError`.
    """
    bwf = next((export.path for export in exports if export.kind == "bwf"), None)
    timeline, clock_s = _timeline(info, audio, onsets, output, bwf)
    for export, path in zip(exports, temporaries, strict=True):
        try:
            if export.kind == "bwf":
                _write_bwf(info, audio, seed, onsets, path, finish, clock_s)
            elif export.kind == "otio":
                path.write_text(as_otio(timeline), encoding="utf-8")
            else:
                path.write_text(as_mlt(timeline, export.path.absolute().parent), encoding="utf-8")
        except OSError as error:
            raise MediaError(
                f"{export.path}: cannot be written ({error.strerror}); choose another folder"
            ) from error


def _timeline(
    info: VideoInfo, audio: Audio, onsets: Sequence[Onset], output: Path, bwf: Path | None
) -> tuple[Timeline, Fraction]:
    """The time line, and the time of day in seconds at which the sound begins."""
    with open_video(info.path) as (source, picture):
        stated = frame_rate(picture, info)
        nearest = min(EDITING_RATES, key=lambda known: abs(known - stated))
        rate = nearest if abs(stated / nearest - 1) < RATE_ROUNDING else stated.limit_denominator(1001)
        aspect = Fraction(picture.sample_aspect_ratio or 0) or Fraction(1)
        tags = [source.metadata, picture.metadata, *(data.metadata for data in source.streams.data)]
        clocks = [since_midnight(v, rate) for t in tags for k, v in t.items() if k.lower() == "timecode"]
    midnight_s = next((clock for clock in clocks if clock is not None), Fraction(0))
    start_s = Fraction(info.start_s - info.origin_s).limit_denominator(1_000_000)
    is_sound_alone = output.suffix.lower() == ".wav"
    offset = round(start_s * rate) if is_sound_alone else 0
    timeline = Timeline(
        name=output.stem,
        rate=rate,
        size=(info.width, info.height),
        pixel_aspect=1 / aspect if info.rotation_deg % 180 else aspect,
        picture=info.path if is_sound_alone else output,
        sound=bwf or output,
        n_frames=offset + max(1, round(Fraction(audio.duration_s) * rate)),
        offset=offset,
        picture_clock=midnight_s * rate + (0 if is_sound_alone else round(start_s * rate)),
        sound_clock=Fraction(round((midnight_s + start_s) * rate) if bwf else 0),
        onsets=onsets,
    )
    return timeline, midnight_s + start_s


def _write_bwf(
    info: VideoInfo,
    audio: Audio,
    seed: int,
    onsets: Sequence[Onset],
    path: Path,
    finish: Finish,
    clock_s: Fraction,
) -> None:
    plan = plan_output(info, path, _alone(finish))
    rate_hz = plan.rate_hz or audio.rate_hz
    write_bwf(
        path,
        finished(audio, _alone(finish), info, rate_hz, plan.channels),
        (plan.channels, round(audio.duration_s * rate_hz)),
        rate_hz,
        round(clock_s * rate_hz),
        f"Sound for {info.path.name}, seed {seed}",
        onsets,
    )


def _alone(finish: Finish) -> Finish:
    """A .wav has no second track."""
    return replace(finish, audio="replace") if finish.audio == "keep-as-second-track" else finish
