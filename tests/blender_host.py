"""Runs inside Blender or with bpy: installs the add-on, makes sounds and mixes them down.

Settings come as one JSON object in TARO_BLENDER; the last line printed is what came of it, as JSON.
"""

import json
import os
import sys
from pathlib import Path

import bpy

ASKED = json.loads(os.environ["TARO_BLENDER"])
FOLDER = Path(ASKED["folder"])
MODULE = "taro_rt_blender"
RATE_HZ = 48000


def install() -> None:
    """From the zip, as a user does."""
    bpy.ops.preferences.addon_install(filepath=ASKED["zip"], overwrite=True)
    bpy.ops.preferences.addon_enable(module=MODULE)
    asked = bpy.context.preferences.addons[MODULE].preferences
    asked.program, asked.options = ASKED["program"], ASKED["options"]
    asked.url, asked.token = ASKED.get("url", ""), ASKED.get("token", "")


def sequence(rate: tuple[int, float], start: int, trimmed: int):
    """A fresh scene with the movie, its first frames cut off; the strip is active."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    install()
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = rate
    scene.render.ffmpeg.audio_mixrate = RATE_HZ
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    movie = strips.new_movie("clip", ASKED["video"], 1, start)
    movie.frame_final_start = start + trimmed
    movie.select = True
    editor.active_strip = movie
    scene.frame_start, scene.frame_end = 1, int(movie.frame_final_end) + 10
    return scene, strips, movie


def facts(scene, strips, movie) -> dict:
    """Run the operator and tell what came of it."""
    answer = bpy.ops.sequencer.taro_rt_generate(seed=3, takes=ASKED["takes"], markers=True)
    sounds = [strip for strip in strips if strip.type == "SOUND"]
    mix = FOLDER / f"mix-{movie.frame_final_start}.wav"
    bpy.ops.sound.mixdown(filepath=str(mix), container="WAV", codec="PCM", format="S16")
    return {
        "answer": sorted(answer),
        "start": [int(strip.frame_final_start) for strip in sounds],
        "end": [int(strip.frame_final_end) for strip in sounds],
        "channel": [strip.channel for strip in sounds],
        "mute": [bool(strip.mute) for strip in sounds],
        "movie": [int(movie.frame_final_start), int(movie.frame_final_end)],
        "markers": [marker.frame for marker in scene.timeline_markers],
        "files": [Path(bpy.path.abspath(strip.sound.filepath)).name for strip in sounds],
        "mix": str(mix),
        "expected_s": (movie.frame_final_start - scene.frame_start)
        * scene.render.fps_base
        / scene.render.fps,
    }


def refusal() -> str:
    """What the operator says when it cannot."""
    try:
        bpy.ops.sequencer.taro_rt_generate()
    except RuntimeError as error:
        return str(error)
    return "nothing"


def main() -> None:
    measured = {"version": bpy.app.version_string}
    rate = tuple(ASKED["rate"])
    for name, start, trimmed in (("whole", 1, 0), ("trimmed", 20, 7)):
        scene, strips, movie = sequence(rate, start, trimmed)
        measured[name] = facts(scene, strips, movie)
    scene, strips, movie = sequence(rate, 1, 0)
    scene.render.fps, scene.render.fps_base = 60, 1
    measured["other_rate"] = refusal()
    scene, strips, movie = sequence(rate, 1, 0)
    bpy.context.preferences.addons[MODULE].preferences.options = "--steps 0"
    measured["refused"] = refusal()
    bpy.context.preferences.addons[MODULE].preferences.program = "/nowhere/taro-rt"
    measured["missing"] = refusal()
    if hasattr(movie, "speed_factor"):
        movie.speed_factor = 2.0
        measured["retimed"] = refusal()
    measured["sounds_after_refusals"] = sum(strip.type == "SOUND" for strip in strips)
    bpy.ops.preferences.addon_disable(module=MODULE)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
