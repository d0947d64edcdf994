"""Whole scenes: little worlds with known contact times, or with an intensity that is seen and heard.

`make_scene(seed)` draws the kind, what happens in it and, apart from that, how it looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from taro_rt.training import gestures, impacts, textures
from taro_rt.training.looks import KINDS, STEPS_HZ, TEXTURES, Look, random_look
from taro_rt.training.sounds import Event, Floats
from taro_rt.training.world import Body, Field, World

__all__ = ["HELD_OUT", "KINDS", "STEPS_HZ", "TEXTURES", "Scene", "make_scene"]

HELD_OUT = 1_000_000
"""Seeds from here on are never trained on, and look like nothing that is."""
MAKERS: dict[str, Callable[[World], None]] = {
    "bounce": impacts.bounce,
    "hammer": impacts.hammer,
    "footsteps": impacts.footsteps,
    "drumstick": impacts.drumstick,
    "drop": impacts.drop,
    "door": gestures.door,
    "glasses": gestures.glasses,
    "clap": gestures.clap,
    "marbles": gestures.marbles,
    "ratchet": gestures.ratchet,
    "rain": textures.rain,
    "wind": textures.wind,
    "fire": textures.fire,
    "water": textures.water,
}


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything a clip shows and sounds like."""

    seed: int
    kind: str
    duration_s: float
    aspect: float
    model: str
    """Which object model the kind is shown with."""
    held_out: bool
    look: Look
    fields: tuple[Field, ...]
    bodies: tuple[Body, ...]
    """From the farthest to the nearest."""
    events: tuple[Event, ...]
    """Audible contacts in order; textures have none."""
    intensity: Floats | None
    """What drives a lasting sound [n] at `STEPS_HZ`; None where there is none."""
    floor: float | None
    focus: tuple[float, float]
    """Where it happens: what the camera keeps in the picture."""


def make_scene(seed: int, duration_s: float = 8.16, kind: str | None = None, held_out: bool = False) -> Scene:
    """A scene from a seed; the same seed gives the same scene. `kind` is one of `KINDS` (random if None).

    `held_out` takes every part of the look from the families that training never sees; seeds from `HELD_OUT`
    on always do.
    """
    rng = np.random.default_rng([seed, 0])
    drawn = str(rng.choice(KINDS))
    kind = kind or drawn
    held_out = held_out or seed >= HELD_OUT
    aspect = float(rng.choice([9 / 16, 1.0, 4 / 3, 16 / 9, 2.0], p=[0.05, 0.15, 0.3, 0.42, 0.08]))
    world = World(seed, kind, duration_s, aspect, held_out)
    MAKERS[kind](world)
    moving = [body.colour for body in world.bodies if not body.still]
    subject = float(np.mean(moving or [body.colour for body in world.bodies] or [(0.5, 0.5, 0.5)]))
    world.clutter()
    world.distract()
    inside = [e for e in world.events if 0.02 < e.time_s < duration_s - 0.02]
    return Scene(
        seed,
        kind,
        duration_s,
        aspect,
        world.model,
        held_out,
        random_look(seed, world.n, held_out, subject, still=bool(world.fields)),
        tuple(world.fields),
        tuple(world.bodies),
        tuple(sorted(inside, key=lambda e: e.time_s)),
        world.intensity,
        world.floor,
        world.focus,
    )
