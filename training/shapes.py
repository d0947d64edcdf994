"""Signed distances of the shapes things are drawn with. NumPy only.

Coordinates are the body's own: `x` runs along it and `y` across it, both in picture heights; `a` and `b` are
its half extents. Distances are negative inside. A profile is an outline given along x: how far the body
reaches to either side, in units of b.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from taro_rt.training.sounds import Floats

Knots = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
"""Positions along x in units of a, reach towards -y, reach towards +y."""


def _even(positions: tuple[float, ...], reach: tuple[float, ...]) -> Knots:
    return positions, reach, reach


# What stands upright has x pointing up; shoes and hammer heads have x pointing forwards and -y up.
PROFILES: dict[str, Knots] = {
    "wine": _even((-1, -0.9, -0.86, -0.2, -0.1, 0.2, 0.6, 1), (0.75, 0.7, 0.1, 0.1, 0.35, 0.85, 1.0, 0.8)),
    "tumbler": _even((-1, 1), (0.7, 1.0)),
    "coupe": _even((-1, -0.9, -0.86, 0.3, 0.4, 0.6, 1), (0.6, 0.55, 0.1, 0.1, 0.5, 0.85, 1.0)),
    "flute": _even((-1, -0.92, -0.88, -0.4, -0.2, 0.3, 1), (0.7, 0.65, 0.12, 0.12, 0.6, 0.75, 0.6)),
    "bottle": _even((-1, -0.9, 0.1, 0.4, 0.5, 1), (0.9, 1.0, 1.0, 0.5, 0.35, 0.3)),
    "bongo": _even((-1, 0.0, 1), (0.75, 0.6, 1.0)),
    "cone": _even((-1, 1), (1.0, 0.02)),
    "shoe": ((-1, -0.9, -0.3, 0.1, 0.7, 1), (0.6, 1.0, 0.9, 0.3, 0.15, -0.5), (1, 1, 1, 1, 1, 0.8)),
    "boot": ((-1, -0.95, -0.25, -0.15, 0.6, 1), (1.0, 2.2, 2.2, 0.4, 0.2, -0.6), (1, 1, 1, 1, 1, 0.8)),
    "boxtoe": ((-1, -0.99, 0.1, 0.2, 0.98, 1), (0.9, 1.0, 1.0, 0.2, 0.2, 0.2), (1, 1, 1, 1, 1, 1)),
    "pick": _even((-1, -0.3, 0.3, 1), (0.05, 0.9, 0.9, 0.05)),
    "claw": ((-1, -0.3, 0.3, 0.6, 0.62, 1), (-0.5, 0.6, 0.6, 0.5, 1.0, 1.0), (0.9, 0.6, 0.6, 0.5, 1.0, 1.0)),
    "hand": _even((-1, -0.3, 0.1, 0.5, 0.9, 1), (0.55, 0.9, 1.0, 0.8, 0.6, 0.3)),
    "paddle": _even((-1, -0.3, -0.2, 1), (0.3, 0.3, 1.0, 1.0)),
    "teardrop": _even((-1, -0.4, 0.2, 0.7, 1), (0.03, 0.35, 0.8, 1.0, 0.2)),
    "flame": _even((-1, -0.6, -0.1, 0.4, 1), (0.5, 1.0, 0.8, 0.4, 0.02)),
}


def disc(x: Floats, y: Floats, a: Floats, b: Floats) -> Floats:
    return np.sqrt(x * x + y * y) - a


def box(x: Floats, y: Floats, a: Floats, b: Floats) -> Floats:
    return np.maximum(np.abs(x) - a, np.abs(y) - b)


def rounded(x: Floats, y: Floats, a: Floats, b: Floats) -> Floats:
    radius = 0.5 * np.minimum(a, b)
    u, v = np.abs(x) - a + radius, np.abs(y) - b + radius
    outside = np.sqrt(np.maximum(u, 0) ** 2 + np.maximum(v, 0) ** 2)
    return outside + np.minimum(np.maximum(u, v), 0) - radius


def ellipse(x: Floats, y: Floats, a: Floats, b: Floats) -> Floats:
    return (np.sqrt((x / a) ** 2 + (y / b) ** 2) - 1) * np.minimum(a, b)


def ring(x: Floats, y: Floats, a: Floats, b: Floats) -> Floats:
    return np.abs(disc(x, y, 0.75 * a, b)) - 0.25 * a


def hexagon(x: Floats, y: Floats, a: Floats, b: Floats) -> Floats:
    slanted = 0.5 * np.abs(x) + 0.866 * np.abs(y)
    return np.maximum(slanted, np.abs(x)) - 0.92 * a


def _toothed(teeth: int, square: bool) -> Callable[[Floats, Floats, Floats, Floats], Floats]:
    def gear(x: Floats, y: Floats, a: Floats, b: Floats) -> Floats:
        turn = np.arctan2(y, x) * (teeth / (2 * np.pi)) % 1.0
        edge = 0.82 + 0.22 * (turn > 0.5) if square else 1.04 - 0.26 * turn
        radius = np.sqrt(x * x + y * y)
        return np.maximum(radius - a * edge, 0.16 * a - radius)

    return gear


SHAPES: dict[str, Callable[[Floats, Floats, Floats, Floats], Floats]] = {
    "disc": disc,
    "box": box,
    "round": rounded,
    "ellipse": ellipse,
    "ring": ring,
    "hexagon": hexagon,
    "saw": _toothed(8, False),
    "fine": _toothed(12, False),
    "cog": _toothed(10, True),
}


def distance(shape: str, x: Floats, y: Floats, a: Floats, b: Floats) -> Floats:
    """Signed distance to `shape`, broadcast over all arguments."""
    if shape in SHAPES:
        return SHAPES[shape](x, y, a, b)
    positions, up, down = PROFILES[shape]
    at = x / a
    above = np.interp(at, positions, up).astype(np.float32) * b
    below = np.interp(at, positions, down).astype(np.float32) * b
    return np.maximum(np.maximum(-y - above, y - below), np.abs(x) - a)
