"""A whole window at once: what a backend is asked that keeps everything on its device, and what it answers.

Between the frames and the sound nothing comes back to the host. Knows NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from taro_rt.engines.contract import Array

Pixels = npt.NDArray[Any]
"""RGB in 0 .. 255: bytes, or float32 where frames were resized as released."""


@dataclass(frozen=True)
class Step:
    """A step of the sampler that is linear in the velocity: x becomes keep x + push v + spread noise."""

    t: float
    """When the velocity is evaluated."""
    keep: float
    push: float
    spread: float
    guidance: float = 1.0
    """v is null + guidance (conditional - null); at 1 the null condition is not evaluated."""

    @property
    def guided(self) -> bool:
        """Whether the null condition is evaluated too."""
        return self.guidance > 1


@dataclass(frozen=True)
class Scene:
    """One window of a clip, and how it is to be sampled."""

    onset_frames: Pixels | None
    """[segments, onset_seen, onset_crop, onset_crop, 3]; None where `onset` is given."""
    onset: Array | None
    """Onset logits [onset_values]; None where they are seen in `onset_frames`."""
    visual_frames: Pixels
    """[t, visual_size, visual_size, 3]."""
    steps: tuple[Step, ...]
    takes: int
    noise: Callable[[int, int, int], Array]
    """`noise(k, first, n)`: standard normal latents [n, channels, time, bins] of n takes from `first` on;
    number 0 to start from, i + 1 for step i.

    Called after the networks that see were launched, so that drawing costs no time of the device.
    """


@dataclass(frozen=True)
class Sound:
    """What a scene sounds like."""

    logits: Array | None
    """Onset logits [segments * onset_segment], where they were seen."""
    wave: Array
    """[takes, samples]."""
    seconds: Mapping[str, float]
    """What the device took, by stage: "watch" (both encoders), "sampler", "sound" (decoder and vocoder)."""


class Window(Protocol):
    """All networks chained on a device. Not to be used from two threads at once."""

    def __call__(self, scene: Scene) -> Sound:
        """Raises `EngineError`, also for too little memory."""
        ...

    @property
    def memory_mb(self) -> float:
        """Of the device: weights, buffers and what recorded programs hold."""
        ...

    def close(self) -> None:
        """Give its memory back; it must not be called afterwards."""
        ...
