"""Runs inside a Blender with a window: Esc stops one sound, another is made, and the window is pictured.

Needs --enable-event-simulate. Settings come as one JSON object in TARO_BLENDER; the last line printed is what
came of it, as JSON.
"""

import json
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

import bpy

ASKED = json.loads(os.environ["TARO_BLENDER"])
FOLDER = Path(ASKED["folder"])
MODULE = "taro_rt_blender"
POLLS = 600


def events(kind: str, x: int = 5, y: int = 5) -> None:
    """Press and release a key or a button over a point of the window."""
    window = bpy.context.window_manager.windows[0]
    window.event_simulate("MOUSEMOVE", "NOTHING", x=x, y=y)
    for value in ("PRESS", "RELEASE"):
        window.event_simulate(kind, value, x=x, y=y)


def timeline():
    """The sequencer, as the window's largest area."""
    window = bpy.context.window_manager.windows[0]
    area = max(window.screen.areas, key=lambda area: area.width * area.height)
    area.type = "SEQUENCE_EDITOR"
    area.spaces.active.view_type = "SEQUENCER"
    area.spaces.active.show_region_ui = True
    region = next(region for region in area.regions if region.type == "WINDOW")
    return {"window": window, "area": area, "region": region}


def course() -> Iterator[float]:
    """What is done, with the seconds that Blender gets for itself in between."""
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = ASKED["rate"]
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    movie = strips.new_movie("drumstick", ASKED["video"], 1, 1)
    scene.frame_end = int(movie.frame_final_end) - 1
    scene.taro_rt.takes, scene.taro_rt.markers = 2, True
    editor.active_strip = movie
    place = timeline()
    yield 1.0

    before = sorted(path.name for path in FOLDER.iterdir())
    with bpy.context.temp_override(**place):
        answer = bpy.ops.sequencer.taro_rt_generate("INVOKE_DEFAULT")
    told = {"version": bpy.app.version_string, "begun": sorted(answer)}
    yield 0.5
    events("ESC")
    yield 3.0
    told["left_by_escape"] = sorted({path.name for path in FOLDER.iterdir()} - set(before))
    told["sounds_after_escape"] = sum(strip.type == "SOUND" for strip in strips)

    with bpy.context.temp_override(**place):
        bpy.ops.sequencer.taro_rt_generate("INVOKE_DEFAULT", takes=2, markers=True)
    for _ in range(POLLS):
        yield 0.2
        if any(strip.type == "SOUND" for strip in strips):
            break
    sounds = [strip for strip in strips if strip.type == "SOUND"]
    told["sounds"] = [[int(strip.frame_final_start), strip.channel, bool(strip.mute)] for strip in sounds]
    if ASKED.get("picture"):
        for strip in sounds:
            strip.show_waveform = True
        scene.frame_set(36)
        with bpy.context.temp_override(**place):
            bpy.ops.sequencer.view_all()
        events("LEFTMOUSE", *ASKED["tab"])
        yield 2.0
        with bpy.context.temp_override(**place):
            bpy.ops.screen.screenshot(filepath=ASKED["picture"])
    print(json.dumps(told), flush=True)


STEPS = course()


def step() -> float | None:
    try:
        return next(STEPS)
    except StopIteration:
        pass
    except Exception:
        traceback.print_exc()
    bpy.ops.wm.quit_blender()
    return None


bpy.context.preferences.view.show_splash = False
bpy.ops.preferences.addon_install(filepath=ASKED["zip"], overwrite=True)
bpy.ops.preferences.addon_enable(module=MODULE)
preferences = bpy.context.preferences.addons[MODULE].preferences
preferences.program, preferences.options = ASKED["program"], ASKED["options"]
bpy.app.timers.register(step, first_interval=1.0)
