"""Pictures for the documentation: PNG files, and spectrograms of generated sounds below the clips' own.

python -m taro_rt.training.pictures --output docs/spectrograms.png [--bundle default]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import numpy.typing as npt

from taro_rt.engines.contract import Array
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.training.clips import HELD_OUT, sound, write_video
from taro_rt.training.data import CLIP_S
from taro_rt.training.evaluate import FIRST_TEST_ROW
from taro_rt.training.scenes import KINDS
from taro_rt.training.scores import mel_of

Pixels = npt.NDArray[np.uint8]
DARK, BRIGHT = -9.5, -0.5
"""Log-mel of black and of white."""
SHADES = 24
"""Of grey: a small file."""
GAP = 3


def write_png(path: Path, picture: Pixels) -> None:
    """Write a picture [h, w, 3]."""
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt = "rgb24"
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))


def spectrogram(mel: Array, events_s: Sequence[float] = ()) -> Pixels:
    """Log-mel [m, bins] as a picture [bins, m, 3], low tones below; contacts are red ticks above."""
    grey = np.clip((mel.T[::-1] - DARK) / (BRIGHT - DARK), 0, 1)
    shades = np.round(grey * SHADES) / SHADES
    picture = (255 * shades).astype(np.uint8)[..., None].repeat(3, 2)
    for time_s in events_s:
        picture[:4, min(len(mel) - 1, round(100 * time_s))] = (255, 64, 64)
    return picture


def spectrograms(pipeline: Pipeline, rows: Sequence[int]) -> Pixels:
    """Of held-out clips: their own sound, and below it the generated one; two clips side by side."""
    pairs = []
    with TemporaryDirectory() as folder:
        for row in rows:
            seed = HELD_OUT + row
            path = Path(folder) / "clip.mp4"
            scene = write_video(path, seed, CLIP_S, height=180, kind=KINDS[seed % len(KINDS)])
            made = mel_of(pipeline.generate(path).audio.samples)
            times = [event.time_s for event in scene.events]
            pair = [spectrogram(mel_of(sound(scene)), times), spectrogram(made, times)]
            pairs.append(np.pad(np.concatenate(pair), ((0, GAP), (0, GAP), (0, 0)), constant_values=255))
    half = len(pairs) // 2
    return np.concatenate([np.concatenate(pairs[:half]), np.concatenate(pairs[half:])], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    with Pipeline.load(args.bundle) as pipeline:
        write_png(args.output, spectrograms(pipeline, range(FIRST_TEST_ROW, FIRST_TEST_ROW + len(KINDS))))


if __name__ == "__main__":
    main()
