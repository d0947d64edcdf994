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
from taro_rt.engines.window import Step
from taro_rt.runtime.options import METHODS

PATHS = ("linear", "vp")
EXPONENTIAL = ("dpm++", "dpm++2m")
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
    and is left out of the last one; "dpm++" and "dpm++2m" are `exponential_step` of first and second order.
    """
    if settings.method not in METHODS or settings.path not in PATHS:
        raise OptionsError(
            f"sampler: expected a method of {METHODS} and a path of {PATHS}, "
            f"got {settings.method!r} and {settings.path!r}"
        )
    if settings.method in EXPONENTIAL and settings.path != "linear":
        raise OptionsError(
            f"method: {settings.method} is for the linear path, got {settings.path!r}; use sde"
        )
    x, before = latents, None
    grid = [float(t) for t in (time_grid(settings.method, settings.steps) if times is None else times)]
    for i, (t, t_next) in enumerate(pairwise(grid)):
        dt, last = t_next - t, i == len(grid) - 2
        guided = is_guided(t, settings)
        v = yield Request(x, t, guided)
        if settings.method in EXPONENTIAL:
            data = Prediction(x - t * v, t)
            second = before if settings.method == "dpm++2m" and not last else None
            x, before = exponential_step(x, data, t_next, second), data
            if not last:
                x = x + t_next * math.sqrt(1 - (t_next / t) ** 2) * noise(i)
        elif settings.method == "sde":
            x = x + dt * drift(x, v, t, settings.path)
            if not last:
                x = x + math.sqrt(2 * t * -dt) * noise(i)
        elif settings.method == "heun" and not last:
            ahead = yield Request(x + dt * v, t_next, guided)
            x = x + 0.5 * dt * (v + ahead)
        else:
            x = x + dt * v
    return x


@dataclass(frozen=True)
class Prediction:
    """What the network takes for the data at time t: x - t v on the linear path."""

    data: Array
    t: float


def exponential_step(x: Array, now: Prediction, s: float, before: Prediction | None) -> Array:
    """From `now.t` to s: the mean of the reverse SDE of "sde", solved for a given prediction of the data.

    In the data x0 the SDE reads d(x / t^2) = -(2 - t) / t^3 x0 dt + noise. With x0 held still

        x_s = (s/t)^2 x_t + ((1 - s) - (s/t)^2 (1 - t)) x0,

    stable for steps of any size; with `before` x0 changes linearly in t, which makes it second order. These
    are SDE-DPM-Solver++(1) and (2M) (arXiv 2211.01095), for the amount of noise of the released sampler.
    """
    t, kept = now.t, (s / now.t) ** 2
    x = kept * x + ((1 - s) - kept * (1 - t)) * now.data
    if before is None or s <= 0:
        return x
    slope = (now.data - before.data) / (t - before.t)
    # s^2 times the integral of (2 - u) (u - t) / u^3 from s to t
    weight = s * s * math.log(s / t) + (2 + t) * s - t - kept * t * (1 + t)
    return x + weight * slope


def linear_steps(settings: SamplerDefaults, times: Array) -> tuple[Step, ...] | None:
    """`steps` as numbers, for a device that runs the loop by itself; None where a step looks at others too.

    Every step of "sde", "ode" and "dpm++" is linear in x, v and noise.
    """
    if settings.method not in ("sde", "ode", "dpm++") or settings.path not in PATHS:
        return None
    made, grid = [], [float(t) for t in times]
    for i, (t, t_next) in enumerate(pairwise(grid)):
        dt, is_last = t_next - t, i == len(grid) - 2
        keep, push, spread = 1.0, dt, 0.0
        if settings.method == "sde":
            of_v, of_x = drift_terms(t, settings.path)
            keep, push, spread = 1 + dt * of_x, dt * of_v, math.sqrt(2 * t * -dt)
        elif settings.method == "dpm++":
            kept = (t_next / t) ** 2
            of_data = (1 - t_next) - kept * (1 - t)
            keep, push, spread = kept + of_data, -t * of_data, t_next * math.sqrt(1 - (t_next / t) ** 2)
        guidance = settings.guidance if is_guided(t, settings) else 1.0
        made.append(Step(t, keep, push, 0.0 if is_last else spread, guidance))
    return tuple(made)


def evaluations(settings: SamplerDefaults) -> int:
    """How often the velocity is asked for."""
    return 2 * settings.steps - 1 if settings.method == "heun" else settings.steps


def time_grid(method: str, steps: int) -> Array:
    """The steps + 1 times, falling from 1 to 0. SDE: 1 .. 1/steps evenly, then 0 (spec B5)."""
    if method in ("sde", *EXPONENTIAL):
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
    of_v, of_x = drift_terms(t, path)
    return of_v * v + x if of_x == 1 else of_v * v + of_x * x


def drift_terms(t: float, path: str) -> tuple[float, float]:
    """What the drift holds of v and of x."""
    if path == "linear":
        return 2 - t, 1.0
    return 1 + t * (2 / math.pi) / math.tan(math.pi * t / 2), t
