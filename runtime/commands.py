"""What `taro-rt generate` and `taro-rt onsets` do. All that can be checked is checked before engines load."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taro_rt.engines.bundle import Bundle
from taro_rt.runtime.audio import write_wav
from taro_rt.runtime.clip import open_reel
from taro_rt.runtime.files import atomic_output, check_output, refuse_same_file
from taro_rt.runtime.mux import default_output, plan_output, write_video
from taro_rt.runtime.onsets import as_json, check_within
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline, Result
from taro_rt.runtime.probe import VideoInfo, probe
from taro_rt.runtime.progress import Progress, report
from taro_rt.runtime.timing import Timings

Record = dict[str, Any]
Warnings = tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A video and what is loaded for it."""

    video: Path
    bundle: str = "default"
    backend: str = "auto"
    device: str | None = None
    threads: int | None = None

    def check(self, outputs: list[Path], force: bool) -> None:
        """Raise `MediaError` for an output that cannot be written."""
        for path in outputs:
            refuse_same_file(self.video, path)
            check_output(path, force)

    def load(self, bundle: Bundle, progress: Progress) -> Pipeline:
        report(progress, "load", 0.0)
        pipeline = Pipeline.load(bundle, self.backend, self.device, self.threads)
        report(progress, "load", 1.0)
        return pipeline


def generate_files(
    source: Source, output: Path | None, options: Options, force: bool, progress: Progress
) -> tuple[Record, Warnings]:
    """Generate and write every take; the record of the result, and the warnings met on the way."""
    outputs = take_names(output or default_output(source.video), options.takes)
    source.check(outputs, force)
    timings = Timings()
    bundle = Bundle.open(source.bundle)
    with timings("probe"):
        found = probe(source.video)
    options.resolve(bundle.manifest.sampler)
    check_within(options.onsets or (), found.duration_s)
    plans = [plan_output(found, path) for path in outputs]
    with timings("load"):
        pipeline = source.load(bundle, progress)
    with pipeline, open_reel(found, pipeline.geometry) as reel:
        result = pipeline.generate(reel, options, progress, folder=outputs[0].parent)
        info, warnings = reel.finish()
        backend = pipeline.engines.backend
    with ExitStack() as outputs_together:  # an interrupt in a later take leaves none of them
        for k, (path, audio) in enumerate(zip(outputs, result.takes, strict=True)):
            report(progress, "write", k / len(outputs))
            with timings("write"):
                temporary = outputs_together.enter_context(atomic_output(path, force))
                if plans[k].is_wav:
                    write_wav(audio, temporary)
                else:
                    write_video(info, audio, temporary)
    report(progress, "write", 1.0)
    warnings = (*warnings, *plans[0].notices)
    seconds = {**timings.seconds, **result.timings}
    return _record(source, info, outputs, result, backend, seconds, warnings), warnings


def find_onsets(
    source: Source, output: Path | None, force: bool, progress: Progress
) -> tuple[Record, Warnings]:
    """Onset times and curve of a video, written to `output` if given."""
    source.check([output] if output else [], force)
    bundle = Bundle.open(source.bundle)
    found = probe(source.video)
    with source.load(bundle, progress) as pipeline, open_reel(found, pipeline.geometry) as reel:
        curve, onsets = pipeline.onsets(reel, progress)
        info, warnings = reel.finish()
    record = {
        "video": str(source.video),
        "duration_s": info.duration_s,
        "fps": bundle.manifest.geometry.onset_fps,
        "onsets": as_json(onsets),
        "curve": [round(float(value), 4) for value in curve],
    }
    if output:
        with atomic_output(output, force) as path:
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record, warnings


def take_names(output: Path, takes: int) -> list[Path]:
    """One name per take: clip.taro.mp4, or clip.taro.1.mp4, clip.taro.2.mp4, ... for several."""
    if takes == 1 or not output.name:  # a name that is missing is refused with the other checks
        return [output]
    return [output.with_name(f"{output.stem}.{k}{output.suffix}") for k in range(1, takes + 1)]


def _record(
    source: Source,
    info: VideoInfo,
    outputs: list[Path],
    result: Result,
    backend: str,
    timings: dict[str, float],
    warnings: Warnings,
) -> Record:
    takes = [{"output": str(path), "seed": seed} for path, seed in zip(outputs, result.seeds, strict=True)]
    return {
        **takes[0],
        "takes": takes,
        "video": str(source.video),
        "video_s": info.duration_s,
        "audio_s": result.audio.duration_s,
        "rate_hz": result.audio.rate_hz,
        "bundle": source.bundle,
        "backend": backend,
        "onsets": as_json(result.onsets),
        "timings_s": {stage: round(seconds, 4) for stage, seconds in timings.items()},
        "warnings": list(warnings),
    }
