"""What is computed: a video file that has to be decoded in earnest."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from taro_rt.runtime.resize import Frames

FPS = 30
BALL_S = 0.8
"""Between two bounces."""


def write_video(path: Path, duration_s: float, height: int) -> None:
    """A silent H.264 film, 16 to 9, 30 frames a second: a ball that bounces before a grained wall."""
    width = 2 * round(height * 16 / 18)
    height = 2 * (height // 2)
    rng = np.random.default_rng(0)
    wall = rng.integers(60, 120, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    wall = wall.repeat(8, 0).repeat(8, 1)[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast"}
        for k in range(max(1, round(duration_s * FPS))):
            picture = _with_ball(wall, k / FPS)
            grain = rng.integers(0, 12, (height // 2, width // 2, 1), np.uint8).repeat(2, 0).repeat(2, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture + grain, format="rgb24")))
        container.mux(stream.encode(None))


def _with_ball(wall: Frames, time_s: float) -> Frames:
    height, width = wall.shape[:2]
    radius = height // 12
    phase = (time_s / BALL_S) % 1
    x = width * (0.1 + 0.8 * (time_s / 8 % 1))
    y = height - radius - 0.7 * height * 4 * phase * (1 - phase)
    rows, columns = np.ogrid[:height, :width]
    picture = wall.copy()
    picture[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = (230, 200, 40)
    return picture
