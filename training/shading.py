"""How a body's surface is coloured in each shading style. NumPy only."""

from __future__ import annotations

import numpy as np

from taro_rt.training.backgrounds import sample, smooth_tile
from taro_rt.training.looks import Look
from taro_rt.training.sounds import Floats
from taro_rt.training.world import Body


def colours(body: Body, look: Look, x: Floats, y: Floats, gap: Floats, angle: Floats, soft: float) -> Floats:
    """Colour [n, h, w, 3], or a shape that broadcasts to it, at the body's coordinates x, y [n, h, w].

    `gap` is the distance to the outline (negative inside), `angle` [n] how far the body is turned, `soft` the
    half width of an edge.
    """
    base = np.asarray(body.colour, np.float32)
    if body.glowing:
        return base
    if look.shading == "silhouette":
        # Greys close together; the palette decides between dark and light.
        luma = base.mean()
        dark = float(look.colours.mean()) > 0.45
        return np.asarray(np.full(3, 0.03 + 0.3 * luma if dark else 0.62 + 0.38 * luma), dtype=np.float32)
    shade = _pattern(body, look, x, y)
    turn = (look.light - angle).astype(np.float32)[:, None, None]
    reach = max(min(body.extent) * 1.5, 0.35 * max(body.extent))
    lit = np.clip((x * np.cos(turn) + y * np.sin(turn)) / np.float32(reach), -1, 1)
    shine: Floats | float = 0.0
    if look.shading == "outline":
        edge = np.clip(1.5 + gap / (2.2 * soft), 0, 1)
        shade = shade * (1 - 0.85 * edge)
    elif look.shading == "textured":
        scale = 0.35 / max(body.extent)
        shade = shade * (0.55 + 0.9 * sample(smooth_tile(look.texture_seed, 4), x * scale, y * scale))
    elif look.shading == "hatched":
        lines = np.sin((x * np.cos(turn + 0.8) + y * np.sin(turn + 0.8)) * np.float32(95.0))
        shade = shade * (1 - 0.55 * (lines > 0.3) * (lit < 0.3))
    elif look.shading == "rim":
        shade = shade * (0.4 + 0.9 * np.clip(1 + gap / (0.45 * min(body.extent)), 0, 1) ** 2)
    elif look.shading in ("lambert", "glossy"):
        shade = shade * (0.85 + 0.4 * lit)
    if look.shading == "glossy" or (body.shiny and look.shading not in ("flat", "outline")):
        spot = (x - 0.4 * reach * np.cos(turn)) ** 2 + (y - 0.4 * reach * np.sin(turn)) ** 2
        shine = 0.7 * np.exp(spot * np.float32(-1 / (0.08 * reach**2)))[..., None]
    return np.asarray(base * np.asarray(shade, np.float32)[..., None] + shine, dtype=np.float32)


def _pattern(body: Body, look: Look, x: Floats, y: Floats) -> Floats:
    """Brightness factor of what is painted on the body."""
    if body.pattern == "wedges":
        return 1.0 - 0.45 * (np.sin(3 * np.arctan2(y, x)) > 0)
    if body.pattern == "panels":
        a, b = body.extent
        u, v = np.abs(x / a), np.abs(np.abs(y / b) - 0.47)
        return 1.0 - 0.4 * ((np.maximum(u / 0.7, v / 0.37) < 1) & (np.maximum(u / 0.6, v / 0.32) > 1))
    if body.pattern == "speckle":
        return 0.75 + 0.5 * sample(
            smooth_tile(look.texture_seed + 1, 5), x / (6 * look.scale), y / (6 * look.scale)
        )
    if body.pattern == "boards":  # seams that run away from the viewer
        depth = y + body.extent[1] + 0.25
        with np.errstate(divide="ignore", invalid="ignore"):  # where they vanish: no seam there
            seam = x / (depth * 4 * look.scale) % 1.0
        return 1.0 - 0.35 * (np.abs(seam - 0.5) > 0.44)
    if body.pattern == "liquid":
        return 0.8 + 0.3 * (np.abs(y) > 0.8 * body.extent[1])
    if look.pattern and body.shape in ("disc", "round", "box") and max(body.extent) < 0.2:
        return 1 + look.pattern * np.sign(np.sin(x * (6.0 / body.extent[0])))
    return np.ones((1, 1, 1), np.float32)
