"""The sampler (spec B5, D1): from noise at t = 1 to latents at t = 0, along the predicted velocity.

Pure functions over float32 NumPy arrays of any shape. State, time grid and step arithmetic are float32.
The velocity is a callable and so is the noise: the loop knows neither backend nor seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from taro_rt.engines.bundle import SamplerDefaults
from taro_rt.engines.contract import Array
from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.options import METHODS

PATHS = ("linear", "vp")
Noise = Callable[[int], Array]
"""`noise(i)`: standard normal values for SDE step i, shaped like the latents."""


class Velocity(Protocol):
    """The velocity at (x, t); with `guided`, pushed away from the null condition by `guide`."""

    def __call__(self, latents: Array, t: float, guided: bool) -> Array: ...


@dataclass(frozen=True)
class Request:
    """The sampler waits for the velocity at these latents and this time."""

    latents: Array
    t: float
    guided: bool


def sample(
    velocity: Velocity,
    latents: Array,
    noise: Noise,
    settings: SamplerDefaults,
    times: Array | None = None,
) -> Array:
    """Integrate from `latents` (pure noise, t = 1) to t = 0; `times` replaces the grid of the settings.

    Raises `OptionsError` for another method or path.
    """
    run = steps(latents, noise, settings, times)
    try:
        request = next(run)
        while True:
            request = run.send(velocity(request.latents, request.t, request.guided))
    except StopIteration as stop:
        final: Array = stop.value
        return final


def steps(
    latents: Array, noise: Noise, settings: SamplerDefaults, times: Array | None = None
) -> Generator[Request, Array, Array]:
    """`sample` as a generator: yields what it must know, is sent the velocity, returns the latents at t = 0.

    All arithmetic is element by element, so any piece of a canvas can have a run of its own.
    Euler–Maruyama ("sde"), Euler ("ode") or "heun", whose corrector keeps the guidance decision of its step
    and is left out of the last one.
    """
    if settings.method not in METHODS or settings.path not in PATHS:
        raise OptionsError(
            f"sampler: expected a method of {METHODS} and a path of {PATHS}, "
            f"got {settings.method!r} and {settings.path!r}"
        )
    x = latents
    grid = [float(t) for t in (time_grid(settings.method, settings.steps) if times is None else times)]
    for i, (t, t_next) in enumerate(pairwise(grid)):
        dt, last = t_next - t, i == len(grid) - 2
        guided = is_guided(t, settings)
        v = yield Request(x, t, guided)
        if settings.method == "sde":
            x = x + dt * drift(x, v, t, settings.path)
            if not last:
                x = x + math.sqrt(2 * t * -dt) * noise(i)
        elif settings.method == "heun" and not last:
            ahead = yield Request(x + dt * v, t_next, guided)
            x = x + 0.5 * dt * (v + ahead)
        else:
            x = x + dt * v
    return x


def evaluations(settings: SamplerDefaults) -> int:
    """How often the velocity is asked for."""
    return 2 * settings.steps - 1 if settings.method == "heun" else settings.steps


def time_grid(method: str, steps: int) -> Array:
    """The steps + 1 times, falling from 1 to 0. SDE: 1 .. 1/steps evenly, then 0 (spec B5)."""
    if method == "sde":
        return np.append(np.linspace(1, 1 / steps, steps), 0).astype(np.float32)
    return np.linspace(1, 0, steps + 1).astype(np.float32)


def is_guided(t: float, settings: SamplerDefaults) -> bool:
    """Whether guidance acts at time t: its scale is above 1, and t lies in its interval, ends included."""
    low, high = np.float32(settings.guidance_low), np.float32(settings.guidance_high)
    return settings.guidance > 1 and bool(low <= np.float32(t) <= high)


def guide(conditional: Array, null: Array, scale: float) -> Array:
    """null + scale (conditional - null). On v this equals guidance on the drift (spec D1)."""
    return null + scale * (conditional - null)


def drift(x: Array, v: Array, t: float, path: str) -> Array:
    """Drift of the reverse SDE with diffusion coefficient 2t, free of the division by t (spec D1)."""
    if path == "linear":
        return (2 - t) * v + x
    return (1 + t * (2 / math.pi) / math.tan(math.pi * t / 2)) * v + t * x
