"""Many videos in one run: which are meant, and a record for each; a bad one does not stop the rest."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from taro_rt.engines.errors import Cancelled, MediaError, OptionsError, TaroError
from taro_rt.runtime.commands import Job, Machine, generate_file, take_names
from taro_rt.runtime.plan import CONTAINERS, READ_ONLY, default_output
from taro_rt.runtime.progress import Reporter

VIDEO_SUFFIXES = (*CONTAINERS, *READ_ONLY)
OURS = ".taro"
"""What our own outputs have before their suffix: not videos to take from a folder."""


def is_many(names: Sequence[Path]) -> bool:
    """Whether these arguments mean more than one video."""
    return len(names) != 1 or names[0].is_dir() or _is_pattern(names[0])


def expand(names: Sequence[Path]) -> list[Path]:
    """The videos that files, folders and patterns mean, each once, in order; folders are not searched deeper.

    Raises `OptionsError` for a folder or pattern without a video.
    """
    found: dict[Path, None] = {}
    for name in names:
        if name.is_dir():
            videos = sorted(path for path in name.iterdir() if _is_video(path))
        elif _is_pattern(name):
            videos = sorted(
                path for path in map(Path, glob.glob(str(name), recursive=True)) if _is_video(path)
            )
        else:
            videos = [name]
        if not videos:
            raise OptionsError(f"{name}: expected videos ({', '.join(VIDEO_SUFFIXES)}), got none there")
        found |= dict.fromkeys(videos)
    return list(found)


def generate_many(
    machine: Machine,
    videos: Sequence[Path],
    out_dir: Path | None,
    job: Job,
    skip_existing: bool,
    progress: Reporter,
) -> Iterator[dict[str, Any]]:
    """One record per video, as it is done: that of `generate_file`, or `skipped`, or `error`.

    A fault of the machine itself would meet every video: bundle and engines raise at once. Raises `Cancelled`
    and `OptionsError` too.
    """
    if out_dir is not None:
        _make_folder(out_dir)
    machine.pipeline(progress)  # a fault of bundle or engines is no video's
    written: dict[Path, Path] = {}
    for video in videos:
        progress.subject = str(video)
        try:
            output = default_output(video, out_dir)
            names = take_names(output, job.options.takes)
            if other := next((written[name] for name in names if name in written), None):
                raise MediaError(f"{video}: {names[0]} is already the output of {other}; run them apart")
            if skip_existing and all(name.exists() for name in names):
                yield {"video": str(video), "skipped": str(names[0])}
                continue
            record, _ = generate_file(machine, video, output, job, progress)
        except Cancelled:
            raise
        except TaroError as error:
            fault = {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
            yield {"video": str(video), "error": fault}
            continue
        written |= dict.fromkeys(names, video)
        yield record


def summary(records: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Counts, and the exit code: that of the first failure, or 0."""
    failed = [record["error"]["exit_code"] for record in records if "error" in record]
    skipped = sum("skipped" in record for record in records)
    return {
        "written": len(records) - skipped - len(failed),
        "skipped": skipped,
        "failed": len(failed),
        "exit_code": failed[0] if failed else 0,
    }


def line(record: dict[str, Any]) -> str:
    """A record for people."""
    if "error" in record:
        return f"FAIL  {' '.join(record['error']['message'].split())}"
    if "skipped" in record:
        return f"skip  {record['video']}: {record['skipped']} exists"
    outputs = ", ".join(take["output"] for take in record["takes"])
    return f"ok    {record['video']} -> {outputs} ({record['audio_s']:.2f} s)"


def _is_video(path: Path) -> bool:
    return (
        path.suffix.lower() in VIDEO_SUFFIXES
        and f"{OURS}." not in path.name
        and not path.name.startswith(".")
    )


def _is_pattern(name: Path) -> bool:
    return glob.has_magic(str(name)) and not name.exists()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise MediaError(f"{folder}: cannot be made ({error.strerror}); choose another --out-dir") from error
