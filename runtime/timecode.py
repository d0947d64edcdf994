"""Timecode, the clock that editors cut by: "01:00:59:24", or "01:00:59;29" where numbers are dropped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

PATTERN = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)([:;.])(\d{2,3})")


def all_later(tags: Mapping[str, str], seconds: float, rate: Fraction) -> dict[str, str]:
    """The tags with every timecode `later`, without one that is not understood."""
    moved: dict[str, str | None] = dict(tags)
    for name in tags:
        if name.lower() == "timecode":  # Matroska's tags are in capitals
            moved[name] = later(tags[name], seconds, rate)
    return {name: value for name, value in moved.items() if value is not None}


def later(timecode: str, seconds: float, rate: Fraction) -> str | None:
    """The timecode `seconds` after `timecode`, at `rate` frames per second; None if it is not understood.

    Numbers are dropped (SMPTE ST 12-1) so that the clock keeps time at 29.97: two at the start of every
    minute but each tenth, four at 59.94.
    """
    found = PATTERN.fullmatch(timecode)
    per_second = round(rate)
    if found is None or per_second < 1:
        return None
    dropped = _dropped(found, per_second)
    per_ten = 600 * per_second - 9 * dropped
    count = _count(found, per_second) + round(Fraction(seconds) * rate)
    count %= 144 * per_ten  # midnight is 0 again
    tens, within = divmod(count, per_ten)
    count += dropped * (9 * tens + max(0, within - dropped) // (60 * per_second - dropped))
    rest, frame = divmod(count, per_second)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{clock}{found[4]}{frame:0{len(found[5])}}"


def since_midnight(timecode: str, rate: Fraction) -> Fraction | None:
    """Seconds from 00:00:00:00 to `timecode` as frames of `rate` pass; None if it is not understood.

    Where no numbers are dropped, 01:00:00:00 at 24000/1001 is 3603.6 s: recorders count samples the same way.
    """
    found, per_second = PATTERN.fullmatch(timecode), round(rate)
    return None if found is None or per_second < 1 else _count(found, per_second) / rate


def _dropped(found: re.Match[str], per_second: int) -> int:
    """How many numbers most minutes leave out."""
    return per_second // 15 if found[4] != ":" else 0


def _count(found: re.Match[str], per_second: int) -> int:
    """Frames since midnight."""
    hours, minutes, rest, frame = (int(found[k]) for k in (1, 2, 3, 5))
    minutes += 60 * hours
    dropped = _dropped(found, per_second) * (minutes - minutes // 10)
    return (60 * minutes + rest) * per_second + frame - dropped
