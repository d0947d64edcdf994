"""The geometry of a bundle and the six contracts that follow from it.

`Geometry` is the one object that derives lengths from seconds. Time starts at the first displayed frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from taro_rt.engines.contract import Array, Contract, TensorSpec

Shape = tuple[int | str, ...]
GRAPHS = ("onset", "visual", "conditioner", "denoiser", "decoder", "vocoder")
RANGES = {
    ("visual", "frames"): (0.5, 0.25),
    ("conditioner", "times"): (0.5, 0.25),
    ("conditioner", "features"): (0.0, 0.05),
    ("vocoder", "mel"): (-1.0, 2.0),
}
"""Mean and deviation of inputs that are not standard normal: what the pipeline feeds looks like this."""
FULL = np.float32(255)
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
"""What the onset network's frames are normalised with, after / 255 (spec B2)."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of one window of sound; the defaults are the published system's (spec B1, B2)."""

    rate_hz: int = 16000
    """Samples per second of the sound."""
    hop: int = 160
    """Samples per mel frame."""
    mel_frames: int = 816
    mel_bins: int = 64
    wave_tail: int = 32
    """Samples the vocoder gives beyond mel_frames * hop."""
    latent_channels: int = 8
    latent_stride: int = 4
    """Mel frames per latent frame, and mel bins per latent bin."""
    latent_scale: float = 0.18215
    """Latents are divided by this before decoding."""
    onset_fps: int = 15
    onset_values: int = 120
    onset_segment: int = 30
    """Onset logits that the onset network gives at once, one a frame."""
    onset_margin: int = 0
    """Frames that it sees besides on either side of those. Without any, the first logit of a segment is given
    without a look at what came before, the last without one at what follows."""
    onset_resize: int = 128
    onset_crop: int = 112
    visual_fps: int = 4
    visual_frames: int = 32
    """Features the transformer reads; `visual_encode` frames are encoded to get them."""
    visual_encode: int = 40
    visual_size: int = 224
    visual_dim: int = 512
    width: int = 768
    """Token width of the transformer."""
    time_positions: int = 1
    """Rows of the modulation tensor: 1 is the published, global form; more is the frame-wise form."""
    modulation_vectors: int = 142
    """AdaLN vectors per row: 12 per block, 8 in the last one, 2 in the final layer."""
    resize: Literal["released", "fast"] = "released"
    """Arithmetic that shrinks frames: "released" is that of spec B2 and gives onset frames as float32; "fast"
    leaves it to libswscale (mean error 0.4 to 1.1 grey levels) and gives bytes."""

    @property
    def onset_seen(self) -> int:
        """Frames the onset network sees at once."""
        return self.onset_segment + 2 * self.onset_margin

    @property
    def latent_frames(self) -> int:
        """Latent frames of a window."""
        return self.mel_frames // self.latent_stride

    @property
    def latent_bins(self) -> int:
        """Latent frequency bins."""
        return self.mel_bins // self.latent_stride

    @property
    def latent_fps(self) -> float:
        """Latent frames per second (25 as published)."""
        return self.rate_hz / (self.hop * self.latent_stride)

    @property
    def window_s(self) -> float:
        """Seconds of sound in a window, without the vocoder's tail."""
        return self.mel_frames * self.hop / self.rate_hz


def contracts(geometry: Geometry) -> dict[str, Contract]:
    """The six graphs in the order they run.

    `b` is the batch, `s` the number of sampler times; `t` frames are encoded where a bundle looks ahead
    (visual_frames to visual_encode of them, spec B2); `n` context tokens: the global form takes any number.
    """
    every = (*_watching(geometry), *_transforming(geometry), *_sounding(geometry))
    return {contract.graph: contract for contract in every}


def typical_inputs(contract: Contract, seed: int, **free: int) -> dict[str, Array]:
    """Random inputs of the size that the pipeline's have; free axes as for `Contract.example`."""
    made = {}
    for name, array in contract.example(seed=seed, **free).items():
        mean, deviation = RANGES.get((contract.graph, name), (0.0, 1.0))
        made[name] = (mean + deviation * array).astype(np.float32)
    return made


def _watching(g: Geometry) -> tuple[Contract, Contract]:
    t: int | str = "t" if g.visual_encode > g.visual_frames else g.visual_encode
    segment = ("b", 3, g.onset_seen, g.onset_crop, g.onset_crop)
    frames = ("b", 3, t, g.visual_size, g.visual_size)
    return (
        _contract("onset", [("frames", segment)], [("logits", ("b", g.onset_segment))]),
        _contract("visual", [("frames", frames)], [("features", ("b", t, g.visual_dim))]),
    )


def _transforming(g: Geometry) -> tuple[Contract, Contract]:
    n: int | str = "n" if g.time_positions == 1 else g.visual_frames
    modulation = (g.time_positions, g.modulation_vectors, g.width)
    tokens = ("b", n, g.width)
    return (
        _contract(
            "conditioner",
            [("times", ("s",)), ("onset", ("b", g.onset_values)), ("features", ("b", n, g.visual_dim))],
            [
                ("modulation", ("s", "b", *modulation)),
                ("null_modulation", ("s", 1, 1, *modulation[1:])),
                ("tokens", tokens),
            ],
        ),
        _contract(
            "denoiser",
            [("latents", _latents(g)), ("tokens", tokens), ("modulation", ("b", *modulation))],
            [("velocity", _latents(g))],
        ),
    )


def _sounding(g: Geometry) -> tuple[Contract, Contract]:
    mel = ("b", g.mel_frames, g.mel_bins)
    wave = ("b", g.mel_frames * g.hop + g.wave_tail)
    return (
        _contract("decoder", [("latents", _latents(g))], [("mel", mel)]),
        _contract("vocoder", [("mel", mel)], [("wave", wave)]),
    )


def _latents(g: Geometry) -> Shape:
    return ("b", g.latent_channels, g.latent_frames, g.latent_bins)


def _contract(graph: str, inputs: list[tuple[str, Shape]], outputs: list[tuple[str, Shape]]) -> Contract:
    return Contract(graph, *(tuple(TensorSpec(*spec) for spec in side) for side in (inputs, outputs)))
