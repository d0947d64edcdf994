"""What a caller may ask of one generation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal

from taro_rt.engines.bundle import SamplerDefaults
from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.onsets import Onset

Method = Literal["sde", "ode", "heun", "dpm++", "dpm++2m"]
METHODS: tuple[Method, ...] = ("sde", "ode", "heun", "dpm++", "dpm++2m")


@dataclass(frozen=True)
class Options:
    """Options of `Pipeline.generate`; None means the bundle's own default. Raises `OptionsError`."""

    steps: int | None = None
    """Sampler steps."""
    guidance: float | None = None
    """Scale of classifier-free guidance; 1 or less switches it off."""
    guidance_low: float | None = None
    """Guidance acts on times from here ..."""
    guidance_high: float | None = None
    """... to here; 1 is noise, 0 is sound."""
    method: Method | None = None
    """"sde" (Euler–Maruyama, as released), "ode" (Euler), "heun"; for fewer steps "dpm++" or "dpm++2m"."""
    guidance_every: int = 1
    """Evaluate the null condition on every k-th guided step only, and between them push as far as the last
    time. 1 is exact; more is faster and sounds different."""
    seed: int = 0
    """Take k uses seed + k, so any take can be made again alone."""
    takes: int = 1
    """Different sounds made of one clip."""
    onsets: tuple[Onset, ...] | None = None
    """Takes the place of what the onset network hears in the picture."""

    def __post_init__(self) -> None:
        if self.onsets is not None:
            object.__setattr__(self, "onsets", tuple(self.onsets))
        faults = [
            *number_faults("steps", self.steps, 1, 10_000, whole=True),
            *number_faults("guidance", self.guidance, 0, 1_000),
            *number_faults("guidance_low", self.guidance_low, 0, 1),
            *number_faults("guidance_high", self.guidance_high, 0, 1),
            *number_faults("guidance_every", self.guidance_every, 1, 1_000, whole=True, required=True),
            *number_faults("seed", self.seed, 0, whole=True, required=True),
            *number_faults("takes", self.takes, 1, 100, whole=True, required=True),
        ]
        if self.method is not None and self.method not in METHODS:
            faults.append(f"method: expected {', '.join(METHODS)}, got {self.method!r}")
        if self.onsets is not None and not all(isinstance(onset, Onset) for onset in self.onsets):
            faults.append(
                "onsets: expected Onset(time_s, strength) objects; read_onsets makes them from a file"
            )
        if not faults and self.guidance_low is not None and self.guidance_high is not None:
            faults += _interval(self.guidance_low, self.guidance_high)
        if faults:
            raise OptionsError("; ".join(faults))

    def resolve(self, defaults: SamplerDefaults) -> SamplerDefaults:
        """The bundle's sampler settings with what was asked put over them. Raises `OptionsError`."""
        names = ("steps", "guidance", "guidance_low", "guidance_high", "method")
        asked: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        settings = replace(defaults, **asked)
        if faults := _interval(settings.guidance_low, settings.guidance_high):
            raise OptionsError("; ".join(faults))
        return settings


def number_faults(
    name: str, value: Any, low: float, high: float = math.inf, whole: bool = False, required: bool = False
) -> list[str]:
    """What is wrong with a number, if anything: one sentence."""
    if value is None and not required:
        return []
    kind = "a whole number" if whole else "a number"
    limits = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    # integers have no bound, and those beyond floats cannot be asked whether they are finite
    if fits and low <= value <= high and (isinstance(value, Integral) or math.isfinite(value)):
        return []
    return [f"{name}: expected {kind}, {limits}, got {value!r}"]


def _interval(low: float, high: float) -> list[str]:
    if low <= high:
        return []
    return [f"guidance_low: expected at most guidance_high ({high:g}), got {low:g}"]
