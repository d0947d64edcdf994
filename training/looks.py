"""How a scene is filmed, drawn apart from what happens in it; some whole families are never trained on.

Every family (backgrounds, shading styles, object models) has a training part and a held-out part that share
no member. A held-out look takes all of them from the held-out part. NumPy only.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from taro_rt.training.sounds import Floats

STEPS_HZ = 240
"""Steps per second of everything that moves."""
Split = tuple[tuple[str, ...], tuple[str, ...]]
"""Members for training, members held out."""
BACKGROUNDS: Split = (
    ("flat", "gradient", "checker", "stripes", "noise", "bricks", "spots", "skyline"),
    ("grain", "polygons", "waves"),
)
SHADINGS: Split = (
    ("flat", "lambert", "outline", "textured", "glossy", "silhouette"),
    ("hatched", "rim"),
)
MODELS: dict[str, Split] = {
    "bounce": (("ball", "beachball", "cube"), ("hexball", "egg")),
    "hammer": (("hammer", "sledge", "pick"), ("mallet",)),
    "footsteps": (("shoe", "boot"), ("boxtoe",)),
    "drumstick": (("snare", "cymbal", "tom"), ("bongo",)),
    "drop": (("box", "bottle", "disc"), ("ring", "pyramid")),
    "door": (("plain", "panelled", "plain-knock"), ("window", "window-knock")),
    "glasses": (("wine", "tumbler"), ("coupe", "flute")),
    "clap": (("hand", "mitten"), ("paddle",)),
    "marbles": (("glassy", "steel"), ("faceted",)),
    "ratchet": (("saw", "fine"), ("cog",)),
    "rain": (("streaks", "drops"), ("beads",)),
    "wind": (("grass", "flag", "laundry", "palm", "mill"), ("tree",)),
    "fire": (("campfire", "hearth", "bonfire", "bowl", "candles", "burner"), ("torch",)),
    "water": (("sea", "fall"), ("shore",)),
}
KINDS = tuple(MODELS)
"""Class labels, in this order: ten kinds of event, then four textures."""
TEXTURES = KINDS[10:]


@dataclass(frozen=True)
class Look:
    """Appearance of one clip; drawn from its seed by `random_look`."""

    background: str
    shading: str
    colours: Floats
    """Three background colours [3, 3]."""
    scale: float
    """Size of the background's pattern, in picture heights."""
    contrast: float
    """Level of the background's pattern."""
    view: Floats
    """Picture to world without shift [2, 2]: zoom, mirror, roll, shear and the squash of camera pitch."""
    shake: Floats
    """Camera offset [n, 2] at `STEPS_HZ`, in picture heights."""
    light: float
    """Direction the light comes from, radians."""
    shadow: float
    """Level of shadows on the ground; 0 none."""
    pattern: float
    """Level of the stripes that make rotation visible."""
    shutter: float
    """Share of a frame's time the shutter is open; 0 leaves no motion blur."""
    gain: float
    gamma: float
    flicker: float
    grain: float
    vignette: float
    focus: float
    """Width of the blur of a lens out of focus, in picture heights; 0 is sharp."""
    bars: tuple[float, float]
    """Share of the height, and of the width, hidden behind black bars at either end."""
    codec: str
    """libx264 or mpeg4."""
    quality: int | None
    """Quantiser scale of the encoding (18 good .. 36 poor); None leaves the clip unencoded."""
    texture_seed: int


def member(split: Split, held_out: bool, rng: np.random.Generator) -> str:
    """One member of the side of the split that the look may use."""
    return str(rng.choice(split[int(held_out)]))


def random_look(seed: int, n: int, held_out: bool, subject: float, still: bool = False) -> Look:
    """Appearance for a clip of `n` steps whose moving things have the mean luma `subject` (0..1).

    `still` keeps the camera upright, for scenes whose picture is a field (water, fire)."""
    rng = np.random.default_rng([seed, 3])
    fancy = rng.random(9) < (0.5, 0.45, 0.4, 0.35, 0.4, 0.3, 0.15, 0.6, 0.2)
    return Look(
        background=member(BACKGROUNDS, held_out, rng),
        shading=member(SHADINGS, held_out, rng),
        colours=_palette(rng, subject),
        scale=float(np.exp(rng.uniform(np.log(0.06), np.log(0.4)))),
        contrast=float(rng.uniform(0.1, 1.0)),
        view=_view(rng, still),
        shake=_shake(rng, n) if fancy[0] else np.zeros((n, 2)),
        light=float(rng.uniform(np.pi, 2 * np.pi)),
        shadow=float(rng.uniform(0.2, 0.7)) if fancy[1] else 0.0,
        pattern=float(rng.uniform(0.1, 0.4)) if fancy[2] else 0.0,
        shutter=float(rng.uniform(0.3, 1.0)) if fancy[3] else 0.0,
        gain=float(rng.uniform(0.75, 1.2)),
        gamma=float(rng.uniform(0.75, 1.35)),
        flicker=float(rng.uniform(0.0, 0.05)) if fancy[5] else 0.0,
        grain=float(rng.uniform(0.005, 0.04)) if fancy[4] else 0.0,
        vignette=float(rng.uniform(0.1, 0.5)) if fancy[5] else 0.0,
        focus=float(rng.uniform(0.005, 0.025)) if fancy[8] else 0.0,
        bars=_bars(rng) if fancy[6] else (0.0, 0.0),
        codec=str(rng.choice(["libx264", "libx264", "mpeg4"])),
        quality=int(rng.integers(18, 35)) if fancy[7] else None,
        texture_seed=int(rng.integers(1 << 30)),
    )


def _palette(rng: np.random.Generator, subject: float) -> Floats:
    """Three colours whose brightness keeps off the subject's, so that what moves can mostly be told apart."""
    values = rng.uniform(0.08, 0.95, 16)
    clear = values[np.abs(values - subject) > (0.22 if rng.random() < 0.85 else 0.0)]
    value = float(clear[0]) if len(clear) else (0.1 if subject > 0.5 else 0.9)
    hue, spread = rng.random(), rng.uniform(0.0, 0.25)
    return np.array(
        [
            colorsys.hsv_to_rgb(
                (hue + spread * rng.standard_normal()) % 1.0,
                float(rng.uniform(0.0, 0.6)),
                float(np.clip(value + rng.uniform(-0.1, 0.1), 0.03, 0.98)),
            )
            for _ in range(3)
        ]
    )


def _view(rng: np.random.Generator, still: bool) -> Floats:
    zoom = 1.0 if rng.random() < 0.2 else float(np.exp(np.log(0.6) + np.log(1.5 / 0.6) * rng.beta(2.5, 1.7)))
    roll = 0.0 if still or rng.random() < 0.4 else float(rng.normal(0, 0.06))
    shear = 0.0 if rng.random() < 0.6 else float(rng.normal(0, 0.08))
    squash = 1.0 if rng.random() < 0.5 else float(rng.uniform(0.75, 1.1))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    if still:
        zoom = float(np.clip(zoom, 0.85, 1.35))
    return turn @ np.array([[mirror, shear], [0.0, 1.0 / squash]]) / zoom


def _shake(rng: np.random.Generator, n: int) -> Floats:
    time = np.arange(n) / STEPS_HZ
    shake = np.zeros((n, 2))
    for axis in range(2):
        for frequency in rng.uniform(0.1, 3.0, 3):
            level = rng.uniform(0, 0.008) / frequency**0.5
            shake[:, axis] += level * np.sin(2 * np.pi * (frequency * time + rng.random()))
    if rng.random() < 0.3:
        shake[:, 0] += rng.uniform(-0.02, 0.02) * (time - time.mean())
    return shake


def _bars(rng: np.random.Generator) -> tuple[float, float]:
    width = float(rng.uniform(0.04, 0.12))
    return (width, 0.0) if rng.random() < 0.7 else (0.0, width)
