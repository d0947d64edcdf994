"""How far an export is, told to whoever watches."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str, float], object]
"""Told the stage and how far it is, 0 to 1; may raise to stop."""


def silent(stage: str, fraction: float) -> None:
    """For exports that nobody watches."""
