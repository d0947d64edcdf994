"""What `taro-rt generate` and `taro-rt onsets` do with one video. All that can be checked is checked before
engines load.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.errors import MediaError
from taro_rt.runtime.alongside import alongside
from taro_rt.runtime.clip import open_reel
from taro_rt.runtime.files import atomic_output, atomic_outputs, check_output, refuse_same_file
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.handoff import Export, check_exports, check_names, for_editors, write_exports
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.onsets import as_json, check_within
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline, Result
from taro_rt.runtime.plan import check_suffix, default_output, plan_output
from taro_rt.runtime.probe import VideoInfo, probe
from taro_rt.runtime.progress import Progress, report
from taro_rt.runtime.source import WHOLE, Span
from taro_rt.runtime.timing import Timings

Record = dict[str, Any]
Warnings = tuple[str, ...]


class Machine:
    """A bundle and its engines, opened and loaded when they are first needed, and once. A context manager."""

    def __init__(
        self,
        bundle: str = "default",
        backend: str = "auto",
        device: str | None = None,
        threads: int | None = None,
        precision: str = "auto",
    ) -> None:
        self.name = bundle
        self._asked = (backend, device, threads, precision)
        self._pipeline: Pipeline | None = None

    @classmethod
    def of(cls, pipeline: Pipeline, name: str) -> Machine:
        """One around engines that are loaded already; `name` is what records call the bundle."""
        machine = cls(name)
        machine.bundle, machine._pipeline = pipeline.bundle, pipeline
        return machine

    @cached_property
    def bundle(self) -> Bundle:
        """The verified bundle. Raises `BundleError`."""
        return Bundle.open(self.name)

    def pipeline(self, progress: Progress) -> Pipeline:
        """The loaded engines. Raises `EngineError`."""
        if self._pipeline is None:
            report(progress, "load", 0.0)
            self._pipeline = Pipeline.load(self.bundle, *self._asked)
            report(progress, "load", 1.0)
        return self._pipeline

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pipeline is not None:
            self._pipeline.close()


@dataclass(frozen=True)
class Job:
    """What to do with a video."""

    options: Options = field(default_factory=Options)
    finish: Finish = field(default_factory=Finish)
    span: Span = WHOLE
    force: bool = False
    """Replace an existing output."""
    exports: tuple[Export, ...] = ()
    """Files for editors, written with the output; of several takes, a set for each."""


def generate_file(
    machine: Machine, video: Path, output: Path | None, job: Job, progress: Progress
) -> tuple[Record, Warnings]:
    """Generate and write every take; the record of the result, and the warnings met on the way."""
    options, timings = job.options, Timings()
    outputs = take_names(output or default_output(video), options.takes)
    finish = for_editors(job.finish) if job.exports else job.finish
    exports = take_exports(job.exports, options.takes)
    check_names(outputs, [export for take in exports for export in take])
    for path in outputs:
        check_suffix(path)
    paths = [*outputs, *(export.path for take in exports for export in take)]
    for path in paths:
        check_target(video, path, job.force)
    options.resolve(machine.bundle.manifest.sampler)
    with timings("probe"):
        found = probe(video, job.span)
        check_within(options.onsets or (), found.duration_s)
        plan = plan_output(found, outputs[0], finish)  # the others differ in their numbers alone
        check_exports(found, outputs, exports[0], finish)
    with timings("load"):
        pipeline = machine.pipeline(progress)
    with open_reel(found, pipeline.geometry) as reel:
        result = pipeline.generate(reel, options, progress, folder=outputs[0].parent)
        info, warnings = reel.finish()
    with atomic_outputs(paths, job.force) as temporaries:  # an interrupt in a later take leaves none

        def write(k: int, told: Progress) -> None:
            report(told, "write", 0.0)
            audio = result.takes[k]
            write_output(info, audio, temporaries[k], finish, plan, told)
            first = len(outputs) + k * len(job.exports)
            into = temporaries[first : first + len(job.exports)]
            about = (info, audio, result.seeds[k], result.onsets, outputs[k])
            write_exports(*about, exports[k], into, finish)

        with timings("write"):
            alongside(write, len(outputs), "write", progress)
    report(progress, "write", 1.0)
    warnings = (*warnings, *plan.notices)
    seconds = {**timings.seconds, **result.timings}
    record = _record(video, info, outputs, result, plan.rate_hz, warnings)
    for take, written in zip(record["takes"], exports, strict=True) if job.exports else ():
        take["exports"] = {export.kind: str(export.path) for export in written}
    record |= {"bundle": machine.name, **asdict(pipeline.engines.choice)}
    if (window := pipeline.engines.window) is not None:
        record["device_memory_mb"] = window.memory_mb
    return {**record, "timings_s": {stage: round(s, 4) for stage, s in seconds.items()}}, warnings


def find_onsets(
    machine: Machine, video: Path, output: Path | None, job: Job, progress: Progress
) -> tuple[Record, Warnings]:
    """Onset times and curve of a video, written to `output` if given."""
    if output:
        check_target(video, output, job.force)
    geometry = machine.bundle.manifest.geometry
    with open_reel(probe(video, job.span), geometry) as reel:
        curve, onsets = machine.pipeline(progress).onsets(reel, progress)
        info, warnings = reel.finish()
    record = {
        "video": str(video),
        "start_s": job.span.start_s,
        "duration_s": info.duration_s,
        "fps": geometry.onset_fps,
        "onsets": as_json(onsets),
        "curve": [round(float(value), 4) for value in curve],
    }
    if output:
        with atomic_output(output, job.force) as path:
            try:
                path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            except OSError as error:
                raise MediaError(
                    f"{output}: cannot be written ({error.strerror}); choose another folder"
                ) from error
    return record, warnings


def take_names(output: Path, takes: int) -> list[Path]:
    """One name per take: clip.taro.mp4, or clip.taro.1.mp4, clip.taro.2.mp4, ... for several."""
    if takes == 1 or not output.name:  # a name that is missing is refused with the other checks
        return [output]
    return [output.with_name(f"{output.stem}.{k}{output.suffix}") for k in range(1, takes + 1)]


def take_exports(exports: tuple[Export, ...], takes: int) -> list[tuple[Export, ...]]:
    """The exports of each take, named as `take_names` does."""
    sets = [[Export(e.kind, path) for path in take_names(e.path, takes)] for e in exports]
    return [tuple(named[k] for named in sets) for k in range(takes)]


def check_target(video: Path, output: Path, force: bool) -> None:
    """Raise `MediaError` unless `output` can be written and is not the video itself."""
    refuse_same_file(video, output)
    check_output(output, force)


def _record(
    video: Path,
    info: VideoInfo,
    outputs: list[Path],
    result: Result,
    rate_hz: int | None,
    warnings: Warnings,
) -> Record:
    takes = [{"output": str(path), "seed": seed} for path, seed in zip(outputs, result.seeds, strict=True)]
    return {
        **takes[0],
        "takes": takes,
        "video": str(video),
        "video_s": info.duration_s,
        "audio_s": result.audio.duration_s,
        "rate_hz": rate_hz or result.audio.rate_hz,
        "onsets": as_json(result.onsets),
        "warnings": list(warnings),
    }
