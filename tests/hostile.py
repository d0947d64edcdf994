"""One hostile file through the whole of `taro-rt generate`, and what must hold afterwards."""

from __future__ import annotations

from pathlib import Path

import av

from taro_rt.engines.errors import TaroError
from taro_rt.runtime.commands import Job, Machine, find_onsets, generate_file
from taro_rt.runtime.finish import KEEPING, Finish
from taro_rt.runtime.mux import shows_a_frame
from taro_rt.runtime.options import Options
from taro_rt.runtime.progress import Silent
from taro_rt.runtime.source import WHOLE, Span

SPANS = (WHOLE, WHOLE, Span(0.2), Span(0.1, 0.4), Span(0, 0.3))
SUFFIXES = (None, None, ".mov", ".mkv", ".webm")


def attempt(machine: Machine, path: Path, work: Path, case: int = 0) -> str:
    """ "made", "refused", or what went wrong: an exception that is none of ours, or a partial output.

    `case` chooses what is asked for; 0 is the plain way. `work` holds nothing else and is left so.
    """
    job = Job(Options(steps=1), Finish(KEEPING[case % 4]), SPANS[case // 4 % 5])
    suffix = SUFFIXES[case // 20 % 5]
    output = None if suffix is None else work / f"out{suffix}"
    try:
        if case % 7 == 6:
            find_onsets(machine, path, None, job, Silent())
        record, _ = generate_file(machine, path, output, job, Silent())
        outcome = "made"
    except TaroError as error:
        names = (str(path), str(output), str(path.with_suffix(".taro")))
        outcome = (
            "refused" if str(error).startswith(names) and "\n" not in str(error) else f"message: {error}"
        )
    except BaseException as error:  # whatever it is, it is the finding
        outcome = f"traceback: {type(error).__name__}: {error}"
    others = [other for other in work.iterdir() if other != path]
    expected = [Path(record["output"])] if outcome == "made" else []
    if others != expected:
        outcome = f"left behind: {[other.name for other in others]} after {outcome}"
    elif outcome == "made" and partial_output(expected[0], record["audio_s"]):
        outcome = f"partial output of {record['video_s']} s"
    for other in others:
        other.unlink()
    return outcome


def partial_output(path: Path, sound_s: float) -> bool:
    """Whether a video is anything but whole: it opens, shows a frame and sounds for `sound_s`."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            rate_hz, n = stream.sample_rate, sum(frame.samples for frame in container.decode(stream))
    except (av.FFmpegError, IndexError):
        return True
    return not shows_a_frame(path) or abs(n / rate_hz - sound_s) > 0.03
