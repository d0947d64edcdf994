"""Onsets: the network's curve, the times picked from it, and the way back from edited times to logits.

Value k of a curve or of logits belongs to time k / fps. `render_logits` and `pick_onsets` are inverse to each
other for onsets at least three values apart: an onset is drawn as a plateau one value wide with slopes one
value long, so that a parabola through the peak and its neighbours finds the time between two values.
"""

from __future__ import annotations

import json
import math
import sys
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import OptionsError

FLOOR_LOGIT = -6.0
"""Where nothing happens."""
STRENGTHS = (0.02, 0.98)
"""Strengths are drawn within these, so that logits stay where the network's own are."""
THRESHOLD = 0.4
"""Chosen for the embedded onset network on held-out clips that no figure is reported for."""
MIN_DISTANCE_S = 0.1


@dataclass(frozen=True)
class Onset:
    """One moment at which something is struck: seconds from the first displayed frame, strength 0..1."""

    time_s: float
    strength: float = 0.9

    def __post_init__(self) -> None:
        for name, value, high in (("time_s", self.time_s, math.inf), ("strength", self.strength, 1.0)):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise OptionsError(f"onset: expected a number for {name}, got {value!r}")
            if not (0 <= value <= min(high, sys.float_info.max)):  # integers have no bound, floats do
                limits = "0 or more" if high == math.inf else f"between 0 and {high:g}"
                raise OptionsError(f"onset: expected {name} to be {limits}, got {value!r}")


def curve(logits: Array) -> Array:
    """Probability of an onset at every frame: the sigmoid of the onset network's logits, any shape."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), np.float32)


def pick_onsets(
    curve: Array, fps: float, threshold: float = THRESHOLD, min_distance_s: float = MIN_DISTANCE_S
) -> list[Onset]:
    """Peaks of a curve [n] that reach `threshold`, the strongest first choice within `min_distance_s`.

    Times lie between frames where a parabola through the logits says so.
    """
    safe = np.clip(curve.astype(np.float64), 1e-6, 1 - 1e-6)
    logits = np.log(safe / (1 - safe))
    left = np.concatenate([[-np.inf], logits[:-1]])
    right = np.concatenate([logits[1:], [-np.inf]])
    peaks = np.flatnonzero((curve >= threshold) & (logits > left) & (logits >= right))
    picked: list[Onset] = []
    for k in sorted(peaks, key=lambda k: -curve[k]):
        time_s = max(0.0, float(k + _vertex(left[k], logits[k], right[k])) / fps)
        at = bisect_left(picked, time_s, key=_time)
        if all(abs(time_s - other.time_s) >= min_distance_s for other in picked[max(0, at - 1) : at + 1]):
            picked.insert(at, Onset(round(time_s, 6), round(float(curve[k]), 6)))
    return picked


def render_logits(onsets: Iterable[Onset], n_values: int, fps: float) -> Array:
    """Logits [n_values] that say exactly these onsets: what the transformer is given for edited times."""
    positions = np.arange(n_values)
    logits = np.full(n_values, FLOOR_LOGIT)
    for onset in onsets:
        strength = min(max(onset.strength, STRENGTHS[0]), STRENGTHS[1])
        height = math.log(strength / (1 - strength)) - FLOOR_LOGIT
        middle = min(round(onset.time_s * fps), n_values)
        near = slice(max(0, middle - 2), middle + 3)
        shape = np.clip(1.5 - np.abs(positions[near] - onset.time_s * fps), 0, 1)
        logits[near] = np.maximum(logits[near], FLOOR_LOGIT + height * shape)
    return logits.astype(np.float32)


def check_within(onsets: Sequence[Onset], duration_s: float) -> None:
    """Raise `OptionsError` if an onset lies beyond the end of the clip."""
    late = [onset.time_s for onset in onsets if onset.time_s > duration_s]
    if late:
        times = ", ".join(f"{time_s:g}" for time_s in late)
        raise OptionsError(f"onsets: expected times within the clip's {duration_s:g} s, got {times}")


def as_json(onsets: Sequence[Onset]) -> list[dict[str, float]]:
    """Plain containers, as `read_onsets` takes them back."""
    return [{"time_s": onset.time_s, "strength": onset.strength} for onset in onsets]


def read_onsets(path: Path | str, start_s: float = 0.0) -> tuple[Onset, ...]:
    """The `onsets` of a JSON file made by `taro-rt onsets` or by hand: {"onsets": [{"time_s": 1.2}, ...]}.

    `start_s` is that of the part they are for. Raises `OptionsError`, naming the file and the entry, for
    anything else and for a file that states another start.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OptionsError(f"{path}: no such onset file") from None
    except OSError as error:
        raise OptionsError(f"{path}: the onset file cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number of too many digits
        raise OptionsError(f"{path}: expected a JSON file of onsets ({error})") from None
    entries = document.get("onsets") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise OptionsError(f'{path}: expected {{"onsets": [{{"time_s": 1.2}}, ...]}}')
    if (stated := document.get("start_s", start_s)) != start_s:
        raise OptionsError(
            f"{path}: expected onsets of a part that starts at {start_s:g} s, got {json.dumps(stated)}; "
            "use the same --start, or edit the times and remove start_s"
        )
    return tuple(_entry(path, index, entry) for index, entry in enumerate(entries))


def _time(onset: Onset) -> float:
    return onset.time_s


def _entry(path: Path | str, index: int, entry: Any) -> Onset:
    if not isinstance(entry, dict) or not {"time_s"} <= set(entry) <= {"time_s", "strength"}:
        expected = '{"time_s": seconds, "strength": 0..1}'
        raise OptionsError(f"{path}: onset {index}: expected {expected}, got {json.dumps(entry)}")
    try:
        return Onset(**entry)
    except OptionsError as error:
        raise OptionsError(f"{path}: onset {index}: {error}") from None


def _vertex(left: float, peak: float, right: float) -> float:
    """Where the parabola through three neighbouring logits has its top, in values from the middle one."""
    bend = left - 2 * peak + right
    if not math.isfinite(bend) or bend >= 0:
        return 0.0
    return float(min(0.5, max(-0.5, 0.5 * (left - right) / bend)))
