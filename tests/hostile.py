"""One hostile file through the whole of `taro-rt generate`, and what must hold afterwards."""

from __future__ import annotations

from pathlib import Path

import av

from taro_rt.engines.errors import TaroError
from taro_rt.runtime.commands import Job, Machine, generate_file
from taro_rt.runtime.mux import shows_a_frame
from taro_rt.runtime.options import Options
from taro_rt.runtime.progress import Silent


def attempt(machine: Machine, path: Path, work: Path) -> str:
    """ "made", "refused", or what went wrong: an exception that is none of ours, or a partial output.

    `work` holds nothing else; it is left without outputs.
    """
    try:
        record, _ = generate_file(machine, path, None, Job(Options(steps=1)), Silent())
        outcome = "made"
    except TaroError as error:
        outcome = (
            "refused" if str(error).startswith(str(path)) and "\n" not in str(error) else f"message: {error}"
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
