"""Whole procedural clips: scene, picture and sound from one seed, as arrays or as a video file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from taro_rt.engines.contract import Array
from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.training.ambience import AMBIENCE, at_audio_rate
from taro_rt.training.film import Frames, compressed, develop, shrunk
from taro_rt.training.looks import STEPS_HZ
from taro_rt.training.render import draw
from taro_rt.training.scenes import HELD_OUT, KINDS, Scene, make_scene
from taro_rt.training.sounds import RATE_HZ, VOICES, Floats, fft_size

__all__ = ["HELD_OUT", "KINDS", "Views", "make_scene", "slot_times", "sound", "views", "write_video"]

FRAME_RATES = (12.0, 15.0, 24.0, 24000 / 1001, 25.0, 30.0, 30000 / 1001, 50.0, 60.0)
PEAK = 0.5
"""Level of every soundtrack (spec B8)."""
ROOM = 5e-5
"""Level of the room tone, 80 dB below the peak: no part of a soundtrack is digitally silent."""


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


def frame_rate(scene: Scene) -> float:
    """Frames per second of the film that the networks' frames are taken from."""
    return float(np.random.default_rng([scene.seed, 5]).choice(FRAME_RATES))


def views(scene: Scene, config: NetworkConfig) -> Views:
    """Model-sized frames of a scene as a film of a random frame rate would show them."""
    g = config.geometry()
    fps = frame_rate(scene)
    times = [slot_times(g.onset_fps, g.onset_values, fps), slot_times(g.visual_fps, g.visual_frames, fps)]
    frames = _filmed(scene, np.concatenate(times), fps, config)
    edge = (g.onset_resize - g.onset_crop) // 2
    crop = slice(edge, edge + g.onset_crop)
    return Views(
        shrunk(frames[: g.onset_values], g.onset_resize)[:, crop, crop],
        shrunk(frames[g.onset_values :], g.visual_size),
        np.array([e.time_s for e in scene.events], np.float32),
        np.array([e.strength for e in scene.events], np.float32),
    )


def visual_frames(scene: Scene, config: NetworkConfig) -> Frames:
    """What the visual encoder alone is shown of a scene [32, v, v, 3]; a fifth of the frames of `views`."""
    g = config.geometry()
    fps = frame_rate(scene)
    frames = _filmed(scene, slot_times(g.visual_fps, g.visual_frames, fps), fps, config)
    return shrunk(frames, g.visual_size)


def _filmed(scene: Scene, times: Array, fps: float, config: NetworkConfig) -> Frames:
    """Frames at `times`, drawn at a size larger than either network's, encoded and decoded in order of time
    as one film."""
    g = config.geometry()
    shown, place = np.unique(times, return_inverse=True)
    size = 2 * round(0.75 * max(g.onset_resize, g.visual_size))
    frames = develop(draw(scene, shown, size, size, 1 / fps), scene.look, scene.seed)
    if scene.look.quality is not None:
        frames = compressed(frames, scene.look.codec, scene.look.quality)
    return frames[place]


def sound(scene: Scene) -> Array:
    """The scene's own soundtrack [round(duration_s * 16000)] at 16 kHz, peak 0.5, without DC."""
    rng = np.random.default_rng([scene.seed, 2])
    n = round(scene.duration_s * RATE_HZ)
    track: Floats = np.zeros(n)
    for event in scene.events:
        start = round(event.time_s * RATE_HZ)
        blow = VOICES[scene.kind](event, rng, scene.model)[: n - start]
        track[start : start + len(blow)] += blow
    if scene.intensity is not None:
        track += AMBIENCE[scene.kind](at_audio_rate(scene.intensity, STEPS_HZ, n), rng)
    track = without_dc(track)
    peak = np.abs(track).max()
    room = ROOM * rng.standard_normal(n)
    return np.asarray(track * ((PEAK - 4e-4) / peak if peak else 1.0) + room, dtype=np.float32)


def without_dc(track: Floats) -> Floats:
    """`track` [n] less what lies below 30 Hz."""
    n = len(track)
    size = fft_size(n + RATE_HZ // 4)  # zeros after the end: the filter is circular
    gain = 1 / (1 + (30 / (np.fft.rfftfreq(size, 1 / RATE_HZ) + 1e-6)) ** 4)
    return np.fft.irfft(np.fft.rfft(track, size) * gain, size)[:n]


def film(scene: Scene, height: int, width: int, fps: float) -> Iterator[Frames]:
    """All frames of a film of the scene, some at a time: [n, height, width, 3]."""
    n = round(scene.duration_s * fps)
    size = max(1, 4_000_000 // (height * width))
    for start in range(0, n, size):
        times = np.arange(start, min(start + size, n)) / fps
        yield develop(draw(scene, times, height, width, 1 / fps), scene.look, scene.seed * 1000 + start)


def write_video(
    path: Path,
    seed: int,
    duration_s: float = 8.0,
    height: int = 360,
    fps: int = 30,
    kind: str | None = None,
    held_out: bool = False,
) -> Scene:
    """Encode a silent H.264 film of scene `seed`, the same bytes every time (and, as the encoder promises, on
    every processor); the scene returned holds the ground truth."""
    scene = make_scene(seed, duration_s, kind, held_out)
    height, width = 2 * round(height / 2), 2 * round(height * scene.aspect / 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # By itself the encoder computes as the processor has it, and with AVX-512 not twice the same.
        stream.options = {
            "crf": str(scene.look.quality or 23),
            "preset": "medium",
            "x264-params": "cpu-independent=1",
        }
        stream.thread_count = 1
        i = 0
        for frames in film(scene, height, width, fps):
            for picture in frames:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, fps)
                container.mux(stream.encode(frame))
                i += 1
        container.mux(stream.encode(None))
    return scene


def main() -> None:
    import argparse

    from taro_rt.training.sheet import write_sheet

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheet", type=Path, required=True, help="PNG file of every kind at six times")
    parser.add_argument("--held-out", action="store_true", help="looks that are never trained on")
    parser.add_argument("--first-seed", type=int, default=0)
    args = parser.parse_args()
    write_sheet(args.sheet, args.first_seed, args.held_out)


if __name__ == "__main__":
    main()
