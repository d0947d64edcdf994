"""Whole procedural clips: scene, picture and sound from one seed, as arrays or as a video file."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from taro_rt.engines.contract import Array
from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.training.render import Frames, draw
from taro_rt.training.scenes import Scene, make_scene
from taro_rt.training.sounds import Floats, soundtrack

HELD_OUT = 1_000_000
"""Seeds from here on are never trained on."""


@dataclass(frozen=True)
class Views:
    """What the two visual networks are shown of a clip."""

    onset_frames: Frames
    """[120, s, s, 3] at 15 frames per second."""
    visual_frames: Frames
    """[32, v, v, 3] at 4 frames per second."""
    event_times_s: Array
    event_strengths: Array


def slot_times(rate: int, n: int, source_fps: float) -> Floats:
    """Time of the source frame that slots 0..n-1 show at `rate` (spec B2), for a source of `source_fps`."""
    slots = np.arange(n)
    return np.asarray((np.ceil((slots + 0.5) / rate * source_fps - 1e-9) - 1) / source_fps)


def views(scene: Scene, config: NetworkConfig) -> Views:
    """Model-sized frames of a scene as a film of a random frame rate would show them."""
    g = config.geometry()
    rng = np.random.default_rng([scene.seed, 5])
    fps = float(rng.choice([12, 15, 24, 24000 / 1001, 25, 30, 30000 / 1001, 50, 60]))
    edge = (g.onset_resize - g.onset_crop) // 2
    frames = draw(scene, slot_times(g.onset_fps, g.onset_values, fps), g.onset_resize, g.onset_resize)
    crop = slice(edge, edge + g.onset_crop)
    return Views(
        frames[:, crop, crop],
        draw(scene, slot_times(g.visual_fps, g.visual_frames, fps), g.visual_size, g.visual_size),
        np.array([e.time_s for e in scene.events], np.float32),
        np.array([e.strength for e in scene.events], np.float32),
    )


def sound(scene: Scene) -> Array:
    """The scene's own soundtrack [n] at 16 kHz."""
    return soundtrack(scene.events, scene.duration_s, np.random.default_rng([scene.seed, 2]))


def write_video(
    path: Path, seed: int, duration_s: float = 8.0, height: int = 360, fps: int = 30, kind: str | None = None
) -> Scene:
    """Encode a silent H.264 film of scene `seed` and return the scene, whose events are the ground truth."""
    scene = make_scene(seed, duration_s, kind)
    width = 2 * round(height * scene.aspect / 2)
    frames = draw(scene, np.arange(round(duration_s * fps)) / fps, height, width)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "28", "preset": "medium"}
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return scene
