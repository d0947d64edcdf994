"""What a camera and a codec do to pictures: exposure, grain, vignette, bars, and lossy coding."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext

from taro_rt.training.looks import Look
from taro_rt.training.sounds import Floats

Frames = npt.NDArray[np.uint8]


def develop(pictures: Floats, look: Look, seed: int) -> Frames:
    """Bytes [n, h, w, 3] from pictures [n, h, w, 3] in 0..1, which are overwritten."""
    rng = np.random.default_rng([seed, 4])
    n, height, width, _ = pictures.shape
    if look.focus:
        for axis in (1, 2):
            _soften(pictures, look.focus * height, axis)
    gain: Floats = np.full(n, look.gain, np.float32)
    if look.flicker:
        gain = gain * (1 + look.flicker * rng.standard_normal(n, dtype=np.float32))
    weight = gain[:, None, None, None]
    if look.vignette:
        y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
        dark = (1 - look.vignette * 0.5 * (x * x + y * y)).astype(np.float32)
        weight = weight * dark[None, :, :, None]
    pictures *= weight
    if look.grain:
        # Six grounds of grain, taken in turn: as good as fresh noise to anything that looks at single frames.
        ground = look.grain * rng.standard_normal((6, height, width, 1), dtype=np.float32)
        for i in range(n):
            pictures[i] += ground[rng.integers(0, 6)]
    bar_y, bar_x = round(look.bars[0] * height), round(look.bars[1] * width)
    if bar_y:
        pictures[:, :bar_y] = pictures[:, -bar_y:] = 0
    if bar_x:
        pictures[:, :, :bar_x] = pictures[:, :, -bar_x:] = 0
    np.clip(pictures, 0, 1, out=pictures)
    pictures *= 255
    curve = 255 * (np.arange(256) / 255) ** look.gamma + 0.5
    return np.asarray(curve.astype(np.uint8)[pictures.astype(np.uint8)])


def _soften(pictures: Floats, width: float, axis: int) -> None:
    """Blur [n, h, w, 3] in place along one axis by a triangle of about `width` pixels."""
    side = np.float32(min(0.25 * width, 0.33))
    for _ in range(max(1, round(width))):
        middle = np.moveaxis(pictures, axis, 0)
        ends = middle[:-2] + middle[2:] - 2 * middle[1:-1]
        middle[1:-1] += side * ends


def compressed(frames: Frames, codec: str, quality: int) -> Frames:
    """`frames` [n, h, w, 3], sizes even, after one trip through `codec` at constant quality."""
    n, height, width, _ = frames.shape
    encoder = cast(VideoCodecContext, av.CodecContext.create(codec, "w"))
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1  # several threads would gain nothing on pictures this small
    if codec == "libx264":
        encoder.options = {"crf": str(quality), "preset": "ultrafast"}
    else:  # its quantisers run from 1 to 31; 118 is the unit of the option
        encoder.options = {"flags": "+qscale", "global_quality": str(118 * max(2, (quality - 14) // 2))}
    coded = "h264" if codec == "libx264" else codec
    decoder = cast(VideoCodecContext, av.CodecContext.create(coded, "r"))
    decoder.thread_count = 1
    pictures: list[Frames] = []
    for i in range(n + 1):
        frame = None
        if i < n:
            frame = av.VideoFrame.from_ndarray(frames[i], format="rgb24")
            frame.pts = i
        for packet in encoder.encode(frame):
            pictures += [_bytes(f) for f in decoder.decode(packet)]
    pictures += [_bytes(f) for f in decoder.decode(None)]
    return np.stack(pictures)


def _bytes(frame: av.VideoFrame) -> Frames:
    return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def shrunk(frames: Frames, size: int) -> Frames:
    """`frames` [n, h, w, 3] averaged down to [n, size, size, 3], each pixel by the area it covers."""
    down, across = (_areas(old, size) for old in frames.shape[1:3])
    narrow = np.einsum("nhwc,vw->nhvc", frames.astype(np.float32), across, optimize=True)
    small = np.einsum("nhvc,uh->nuvc", narrow, down, optimize=True)
    return np.asarray((small + 0.5).astype(np.uint8))


def _areas(old: int, new: int) -> Floats:
    """Share [new, old] of each old pixel in each new one."""
    edges = np.arange(new + 1) * (old / new)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(old)
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return (overlap / (old / new)).astype(np.float32)
