"""Writing a sound alone, as a .wav."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from taro_rt.engines.errors import MediaError
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.mixing import finished
from taro_rt.runtime.plan import OutputPlan
from taro_rt.runtime.probe import VideoInfo
from taro_rt.runtime.progress import Percents, Progress

LARGEST_WAV = (1 << 32) - (1 << 16)
"""Bytes of samples; what is longer is written as RF64."""


def write_wav(
    info: VideoInfo, audio: Audio, path: Path, finish: Finish, plan: OutputPlan, progress: Progress | None
) -> None:
    """As `write_output`, for a plan that is a .wav."""
    rate_hz = plan.rate_hz or audio.rate_hz
    try:
        written = Percents(progress, "write")
        # RIFF counts its bytes in 32 bits
        kind = "WAV" if 2 * plan.channels * audio.duration_s * rate_hz < LARGEST_WAV else "RF64"
        with soundfile.SoundFile(path, "w", rate_hz, plan.channels, "PCM_16", format=kind) as file:
            for block in finished(audio, finish, info, rate_hz, plan.channels):
                written(file.tell() / rate_hz / audio.duration_s)
                file.write(np.clip(block.T, -1.0, 1.0))
    except (OSError, soundfile.LibsndfileError) as error:
        # the folder, because the name is mostly a temporary one
        raise MediaError(
            f"{path.parent}: the sound cannot be written there ({error}); choose another folder"
        ) from error
