"""Sound for the selected movie strip of Blender's video sequencer, made by taro-rt.

A thin client: taro-rt itself is a program of its own, reached by its command or its local service.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, IntProperty, PointerProperty, StringProperty

from taro_rt_blender import strips
from taro_rt_blender.client import CommandJob, Job, Refused, Request, ServiceJob, State, free_name, wait

bl_info = {
    "name": "taro-rt: sound for movie strips",
    "author": "taro-rt",
    "version": (0, 1, 0),
    "blender": (3, 4, 0),
    "location": "Video Sequencer > Sidebar > taro-rt",
    "description": "Gives the selected movie strip a generated sound",
    "category": "Sequencer",
}


class TaroPreferences(bpy.types.AddonPreferences):
    """Where taro-rt is."""

    bl_idname = __package__

    program: StringProperty(  # type: ignore[valid-type]
        name="Command", default="taro-rt", description="The taro-rt command: its name on PATH, or its path"
    )
    options: StringProperty(  # type: ignore[valid-type]
        name="Further options", description="Added to the command, for instance --bundle DIR --loudness -16"
    )
    url: StringProperty(  # type: ignore[valid-type]
        name="Service", description="Of taro-rt serve, http://127.0.0.1:8765 for instance; empty: the command"
    )
    token: StringProperty(name="Token", subtype="PASSWORD")  # type: ignore[valid-type]
    folder: StringProperty(  # type: ignore[valid-type]
        name="Folder for sounds", subtype="DIR_PATH", description="Empty: beside the movie"
    )

    def draw(self, context: bpy.types.Context) -> None:
        for name in ("program", "options", "url", "token", "folder"):
            self.layout.prop(self, name)


class TaroSettings(bpy.types.PropertyGroup):
    """What the sidebar asks for."""

    seed: IntProperty(name="Seed", min=0, description="Another seed, another sound")  # type: ignore[valid-type]
    takes: IntProperty(  # type: ignore[valid-type]
        name="Takes", default=1, min=1, max=16, description="All but the first are muted"
    )
    markers: BoolProperty(  # type: ignore[valid-type]
        name="Onset Markers", description="A timeline marker wherever something is struck"
    )


class TaroGenerate(bpy.types.Operator):
    """Make a sound for the active movie strip"""

    bl_idname = "sequencer.taro_rt_generate"
    bl_label = "Generate Sound"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012

    EVERY_S = 0.1

    seed: IntProperty(name="Seed", min=0)  # type: ignore[valid-type]
    takes: IntProperty(name="Takes", default=1, min=1, max=16)  # type: ignore[valid-type]
    markers: BoolProperty(name="Onset Markers")  # type: ignore[valid-type]

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return strips.active_movie(context.scene) is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        """For scripts: waits until the sound is there."""
        try:
            self._begin(context)
        except Refused as error:
            return self._refuse(str(error))
        return self._end(context, wait(self._job))

    def invoke(self, context: bpy.types.Context, event: Any) -> set[str]:
        """For users: Blender stays usable, Esc cancels."""
        if bpy.app.background or context.window is None:
            return self.execute(context)
        try:
            self._begin(context)
        except Refused as error:
            return self._refuse(str(error))
        manager = context.window_manager
        self._timer = manager.event_timer_add(self.EVERY_S, window=context.window)
        manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: Any) -> set[str]:
        if event.type == "ESC":
            self._job.cancel()
            self._clear(context)
            self.report({"INFO"}, "Cancelled")
            return {"CANCELLED"}
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        state = self._job.poll()
        if not state.done:
            context.workspace.status_text_set(f"taro-rt: {state.stage} {state.progress:.0%}   Esc: cancel")
            return {"PASS_THROUGH"}
        self._clear(context)
        return self._end(context, state)

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender closes, or the file is left."""
        self._job.cancel()
        self._clear(context)

    def _begin(self, context: bpy.types.Context) -> None:
        self._scene = context.scene.name
        self._where = where = strips.placement(context.scene)
        asked = preferences(context)
        folder = Path(bpy.path.abspath(asked.folder)) if asked.folder else where.video.parent
        output = free_name(folder, where.video.stem, self.takes)
        request = Request(where.video, output, *where.span_s, self.seed, self.takes)
        self._job = start(asked, request)

    def _end(self, context: bpy.types.Context, state: State) -> set[str]:
        scene = bpy.data.scenes.get(self._scene)
        if state.error or scene is None:
            return self._refuse(state.error or "The scene is gone")
        strip = strips.all_strips(scene).get(self._where.strip)
        if strip is not None:  # it may have been moved meanwhile
            moved = round(strip.frame_start) - self._where.origin
            start, end = self._where.start + moved, self._where.end + moved
            self._where = replace(self._where, start=start, end=end, channel=strip.channel)
        try:
            strips.place(scene, self._where, state.files, state.onsets_s if self.markers else None)
        except Refused as error:
            return self._refuse(str(error))
        self.report({"INFO"}, f"{len(state.files)} sound(s) for {self._where.video.name}")
        return {"FINISHED"}

    def _clear(self, context: bpy.types.Context) -> None:
        context.window_manager.event_timer_remove(self._timer)
        context.workspace.status_text_set(None)

    def _refuse(self, reason: str) -> set[str]:
        self.report({"ERROR"}, reason)
        return {"CANCELLED"}


class TaroPanel(bpy.types.Panel):
    """In the sequencer's sidebar."""

    bl_label = "Generate Sound"
    bl_idname = "SEQUENCER_PT_taro_rt"
    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "taro-rt"

    def draw(self, context: bpy.types.Context) -> None:
        layout, settings = self.layout, context.scene.taro_rt
        layout.use_property_split = True
        for name in ("seed", "takes", "markers"):
            layout.prop(settings, name)
        button = layout.operator(TaroGenerate.bl_idname, icon="SOUND")
        button.seed, button.takes, button.markers = settings.seed, settings.takes, settings.markers


def preferences(context: bpy.types.Context) -> Any:
    """The add-on's preferences."""
    return context.preferences.addons[__package__].preferences


def start(asked: Any, request: Request) -> Job:
    """Begin by the service if one is set, else by the command. Raises `Refused`."""
    if asked.url:
        return ServiceJob(asked.url, asked.token, request)
    return CommandJob(shutil.which(asked.program) or asked.program, asked.options, request)


CLASSES = (TaroPreferences, TaroSettings, TaroGenerate, TaroPanel)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.taro_rt = PointerProperty(type=TaroSettings)


def unregister() -> None:
    del bpy.types.Scene.taro_rt
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
