"""Many videos in one run: which are meant, and a record for each; a bad one does not stop the rest."""

from __future__ import annotations

import glob
import os
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
    return len(names) != 1 or os.path.isdir(names[0]) or _is_pattern(names[0])


def expand(names: Sequence[Path]) -> list[Path]:
    """The videos that files, folders and patterns mean, each once, in order; folders are not searched deeper.

    A file under two spellings is one video. Raises `OptionsError` for a folder or pattern without a video;
    one that cannot be read stands for itself.
    """
    found: dict[str, Path] = {}
    for name in names:
        if os.path.isdir(name):  # Path.is_dir raises for a name that is too long or locked
            try:
                videos = sorted(path for path in name.iterdir() if _is_video(path))
            except OSError:  # locked: named in its turn, so that the other videos go on
                videos = [name]
        elif _is_pattern(name):
            videos = sorted(
                path for path in map(Path, glob.glob(str(name), recursive=True)) if _is_video(path)
            )
        else:
            videos = [name]
        if not videos:
            raise OptionsError(f"{name}: expected videos ({', '.join(VIDEO_SUFFIXES)}), got none there")
        for video in videos:
            found.setdefault(os.path.realpath(video), video)
    return list(found.values())


def generate_many(
    machine: Machine,
    videos: Sequence[Path],
    out_dir: Path | None,
    job: Job,
    skip_existing: bool,
    progress: Reporter,
) -> Iterator[dict[str, Any]]:
    """One record per video, as it is done: that of `generate_file`, or `skipped`, or `error`.

    A fault of bundle or engines is no video's: loading them raises, when the first video needs them. Raises
    `Cancelled` too.
    """
    if out_dir is not None:
        _make_folder(out_dir)
    written: dict[Path, Path] = {}
    for video in videos:
        progress.subject = str(video)
        try:
            output, names = _names(video, out_dir, job, written)
        except TaroError as error:
            yield _failure(video, error)
            continue
        written |= dict.fromkeys(names, video)  # whether made now or before
        if skip_existing and all(map(os.path.exists, names)):
            yield _skip(video, names)
            continue
        machine.pipeline(progress)
        try:
            record, _ = generate_file(machine, video, output, job, progress)
        except Cancelled:
            raise
        except TaroError as error:
            # with --skip-existing several runs may share a folder: another one was faster
            was_faster = skip_existing and all(map(os.path.exists, names))
            record = _skip(video, names) if was_faster else _failure(video, error)
        yield record


def _names(video: Path, out_dir: Path | None, job: Job, written: dict[Path, Path]) -> tuple[Path, list[Path]]:
    """What the output is called, and its takes. Raises `MediaError` for a name that another video has."""
    if os.path.isdir(video):
        raise MediaError(f"{video}: the folder cannot be read; check its permissions")
    output = default_output(video, out_dir)
    names = take_names(output, job.options.takes)
    if other := next((written[name] for name in names if name in written), None):
        raise MediaError(f"{video}: {names[0]} is already the output of {other}; run them apart")
    return output, names


def _skip(video: Path, names: list[Path]) -> dict[str, Any]:
    return {"video": str(video), "skipped": str(names[0])}


def _failure(video: Path, error: TaroError) -> dict[str, Any]:
    fault = {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
    return {"video": str(video), "error": fault}


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
    return glob.has_magic(str(name)) and not os.path.exists(name)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"{folder}: cannot be made ({error.strerror}); choose another --out-dir") from error
