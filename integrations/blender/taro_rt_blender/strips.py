"""Strips of Blender's sequencer, whose names changed in 4.4: what to make a sound of, and where to put it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from taro_rt_blender.client import Refused

RATE_TOLERANCE = 0.001
HIGHEST_CHANNEL = 128
"""Blender refuses higher ones."""
INTO_FRAME = 0.25
"""Part of a frame to ask ahead: the frame meant is the first one from there on, however times are rounded."""


@dataclass(frozen=True)
class Placement:
    """What is visible of a movie strip, in frames of the scene."""

    strip: str
    video: Path
    start: int
    """Its first visible frame."""
    end: int
    """The frame after its last one."""
    channel: int
    origin: int
    """Where the strip would begin if nothing were cut off."""
    skipped: int
    """Frames of the movie before the first visible one."""
    fps: float

    @property
    def span_s(self) -> tuple[float, float]:
        """The visible part of the movie in seconds."""
        first = max(0.0, self.skipped - INTO_FRAME) / self.fps
        return first, (self.skipped + self.end - self.start) / self.fps


def frame_rate(scene: bpy.types.Scene) -> float:
    """Frames per second."""
    return float(scene.render.fps / scene.render.fps_base)


def all_strips(scene: bpy.types.Scene) -> Any:
    """The collection of the scene's strips."""
    editor = scene.sequence_editor
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def active_movie(scene: bpy.types.Scene) -> Any | None:
    """The active strip, if it is a movie."""
    editor = scene.sequence_editor
    strip = editor.active_strip if editor else None
    return strip if strip is not None and strip.type == "MOVIE" else None


def placement(scene: bpy.types.Scene) -> Placement:
    """Of the active movie strip. Raises `Refused` for one that cannot be followed."""
    strip = active_movie(scene)
    if strip is None:
        raise Refused("Select a movie strip first")
    fps = frame_rate(scene)
    if abs(strip.fps / fps - 1) > RATE_TOLERANCE:
        raise Refused(
            f"The movie has {strip.fps:g} frames per second, the scene {fps:g}: set the scene's rate first"
        )
    if strip.use_reverse_frames:
        raise Refused("The strip plays backwards; its sound cannot be made")
    if getattr(strip, "speed_factor", 1.0) != 1.0 or len(getattr(strip, "retiming_keys", ())):
        raise Refused("The strip is retimed; make its sound before you change its speed")
    start, end = round(strip.frame_final_start), round(strip.frame_final_end)
    skipped = round(strip.frame_final_start - strip.frame_start) + int(strip.animation_offset_start)
    if skipped < 0:
        raise Refused("The strip begins with a still frame; trim it first")
    path = Path(bpy.path.abspath(strip.filepath))
    origin = round(strip.frame_start)
    return Placement(strip.name, path, start, end, strip.channel, origin, skipped, fps)


def place(
    scene: bpy.types.Scene, where: Placement, files: Sequence[Path], onsets_s: Sequence[float] | None
) -> list[Any]:
    """Sound strips on the next free channels, the first to be heard and the others muted, and markers."""
    made = []
    for number, path in enumerate(files, 1):
        channel = free_channel(scene, where)
        name = path.name
        strip = all_strips(scene).new_sound(name, str(path), channel, where.start)
        if strip.frame_final_end > where.end:
            strip.frame_final_end = where.end
        strip.mute = number > 1
        made.append(strip)
    for time_s in onsets_s or ():
        scene.timeline_markers.new("onset", frame=where.start + round(time_s * where.fps))
    return made


def free_channel(scene: bpy.types.Scene, where: Placement) -> int:
    """The lowest channel above the movie that is empty as long as it lasts. Raises `Refused` if none is."""
    taken = {
        strip.channel
        for strip in all_strips(scene)
        if strip.frame_final_start < where.end and strip.frame_final_end > where.start
    }
    free = (channel for channel in range(where.channel + 1, HIGHEST_CHANNEL + 1) if channel not in taken)
    channel = next(free, None)
    if channel is None:
        raise Refused("No channel above the movie is free")
    return channel
