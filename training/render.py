"""Draws scenes: antialiased shapes over a background, seen by a moving camera. NumPy only.

Everything is computed per pixel from signed distances, so any size and any times can be drawn directly. A
body is only evaluated on a patch of each frame just large enough for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from taro_rt.training.backgrounds import backdrop
from taro_rt.training.camera import Camera
from taro_rt.training.fields import Steps, overlay
from taro_rt.training.looks import STEPS_HZ, Look
from taro_rt.training.scenes import Scene
from taro_rt.training.shading import colours
from taro_rt.training.shapes import PROFILES, distance
from taro_rt.training.sounds import Floats
from taro_rt.training.world import Body, Field

BLOCK_PIXELS = 400_000
"""Pixels drawn at a time: few enough to stay in the processor's cache, enough to keep NumPy busy."""


def draw(scene: Scene, times_s: Floats, height: int, width: int, frame_s: float = 0.0) -> Floats:
    """Pictures [n, height, width, 3] in 0..1 of `scene` at `times_s` [n], before the film's own faults.

    Pixels need not be square: the picture is always `scene.aspect` wide, as when a film is squeezed into a
    square. With `frame_s`, the time between frames, motion is blurred as the look's shutter does.
    """
    steps = np.clip(np.round(times_s * STEPS_HZ).astype(int), 0, len(scene.look.shake) - 1)
    painter = Painter(scene, height, width, round(scene.look.shutter * frame_s * STEPS_HZ))
    frames = np.empty((len(steps), height, width, 3), np.float32)
    size = max(1, BLOCK_PIXELS // (height * width))
    for start in range(0, len(steps), size):
        painter.fill(frames[start : start + size], steps[start : start + size])
    return frames


class Painter:
    """Draws any frames of one scene at one size; what stands still is drawn once."""

    def __init__(self, scene: Scene, height: int, width: int, open_steps: int) -> None:
        self.scene, self.look = scene, scene.look
        self.camera = Camera.of(scene, height, width)
        self.open_steps = open_steps
        n_still = next((i for i, b in enumerate(scene.bodies) if not b.still), len(scene.bodies))
        self.acting = [*_shadows(scene), *scene.bodies[n_still:]]
        self.shaken = bool(np.any(self.look.shake))
        shift = np.linalg.solve(self.camera.pixels, self.look.shake.T).T if self.shaken else np.zeros((1, 2))
        self.margin = int(np.ceil(np.abs(shift).max())) + 1 if self.shaken else 0
        self.scale = 1 if height * width > 40_000 else 4 if self.shaken else 2
        self.stage = self._stage(scene.bodies[:n_still])

    def _stage(self, still: Sequence[Body]) -> Floats:
        """Background and the still bodies before all others, `scale` times as fine, each pixel already the
        mean over a whole one, so that any shift of the camera is a slice."""
        camera = self.camera.enlarged(self.scale, self.margin)
        x, y = camera.world()
        stage = backdrop(self.look, x, y, self.scene.aspect)[None]
        for body in still:
            paint(stage, body, np.zeros(1, int), camera, self.look, 0)
        total = np.pad(stage[0].astype(np.float64), ((1, 0), (1, 0), (0, 0))).cumsum(0).cumsum(1)
        s = self.scale
        mean = (total[s:, s:] - total[:-s, s:] - total[s:, :-s] + total[:-s, :-s]) / s**2
        return np.asarray(mean, dtype=np.float32)

    def fill(self, frames: Floats, steps: Steps) -> None:
        """Draw into frames [n, h, w, 3] what is seen at `steps` [n]."""
        s, h, w = self.scale, self.camera.height, self.camera.width
        if not self.shaken:
            frames[:] = self.stage[::s, ::s][:h, :w]
        else:
            shift = np.linalg.solve(self.camera.pixels, self.look.shake[steps].T).T
            for frame, (column, row) in zip(
                frames, np.round((shift + self.margin) * s).astype(int), strict=True
            ):
                frame[:] = self.stage[row::s, column::s][:h, :w]
        for field in self.scene.fields:
            self._flow(frames, steps, field)
        for body in self.acting:
            paint(frames, body, steps, self.camera, self.look, self.open_steps)

    def _flow(self, frames: Floats, steps: Steps, field: Field) -> None:
        x, y = self.camera.world()
        left, top, right, bottom = field.box
        inside = (x > left - 0.15) & (x < right + 0.15) & (y > top - 0.2) & (y < bottom + 0.15)
        if not inside.any():
            return
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        shake = self.look.shake[steps].astype(np.float32)[:, :, None, None]
        colour, cover = overlay(field, steps, x[box] + shake[:, 0], y[box] + shake[:, 1])
        part = frames[:, box[0], box[1]]
        part += cover * (colour - part)


def _shadows(scene: Scene) -> list[Body]:
    """Flat dark ellipses on the floor, smaller the higher the body above."""
    if not scene.look.shadow or scene.floor is None:
        return []
    shadows = []
    for body in scene.bodies:
        if body.shadow:
            height = np.clip(scene.floor - body.path[:, 1], 0.05, 1.0)
            size = 1 / (0.9 + 1.5 * height)
            path = np.stack([body.path[:, 0], np.full(len(height), scene.floor + 0.012)], 1)
            wide = 1.2 * max(body.extent) if body.shape in ("disc", "round") else 1.1 * body.extent[0]
            black = (0.02, 0.02, 0.03)
            angle = np.zeros(len(height))
            shadows.append(
                Body(
                    "ellipse",
                    (wide, 0.022),
                    black,
                    path,
                    angle,
                    np.stack([size, size], 1),
                    glowing=True,
                    opacity=scene.look.shadow,
                )
            )
    return shadows


def paint(frames: Floats, body: Body, steps: Steps, camera: Camera, look: Look, open_steps: int) -> None:
    """Paint one body over frames [n, h, w, 3]; an open shutter averages its cover over its places."""
    centre, jacobian, offset = _placed(body, steps, camera, look)
    half = _reach(body, steps, jacobian, camera.softness)
    blur, corners = _blurred(body, centre, steps, open_steps, camera, look)
    low, high = corners.min(0) - half, corners.max(0) + half
    limit = np.array([camera.width, camera.height])
    seen = np.flatnonzero(((high > 0) & (low < limit)).all(1))
    if not len(seen):
        return
    size = np.minimum(np.ceil((high - low)[seen].max(0)).astype(int) + 1, limit)
    first = np.clip(np.floor(low[seen]).astype(int), 0, limit - size)
    columns = first[:, :1] + np.arange(size[0])  # [n, w']
    rows = first[:, 1:] + np.arange(size[1])  # [n, h']
    where = seen[:, None, None], rows[:, :, None], columns[:, None, :]
    x, y, gap = _measured(body, steps[seen], jacobian[seen], offset[seen], rows, columns)
    cover = np.clip(0.5 - gap / (2 * camera.softness), 0, 1)
    if len(blur) > 1:
        for at in blur[:-1]:
            _, other, shift = _placed(body, at[seen], camera, look)
            _, _, apart = _measured(body, at[seen], other, shift, rows, columns)
            cover += np.clip(0.5 - apart / (2 * camera.softness), 0, 1)
        cover /= len(blur)
    if body.opacity < 1:
        cover *= np.float32(body.opacity)
    colour = colours(body, look, x, y, gap, body.angle[steps[seen]], camera.softness)
    under = frames[where]
    frames[where] = under + cover[..., None] * (colour - under)


def _blurred(
    body: Body, centre: Floats, steps: Steps, open_steps: int, camera: Camera, look: Look
) -> tuple[list[Steps], Floats]:
    """The moments that are averaged, the last being `steps`, and the body's places then [moments, n, 2]."""
    blur: list[Steps] = []
    places: list[Floats] = []
    for k in (3, 2, 1) if open_steps > 1 else ():
        at = np.maximum(steps - round(open_steps * k / 3), 0)
        place = _placed(body, at, camera, look)[0]
        # What jumps that far has not moved there but starts anew.
        jumps = np.abs(place - centre).max(1) > 0.3 * camera.height
        place = np.where(jumps[:, None], centre, place)
        if k == 3 and np.abs(place - centre).max() < 0.7:
            break  # too slow for a blur to show
        blur.append(np.where(jumps, steps, at))
        places.append(place)
    return [*blur, steps], np.stack([*places, centre])


def _placed(body: Body, steps: Steps, camera: Camera, look: Look) -> tuple[Floats, Floats, Floats]:
    """Per frame: centre in pixels [n, 2], and the map from column, row to the body's coordinates: [n, 2, 2]
    and [n, 2]."""
    angle = body.angle[steps]
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)
    away = camera.corner + look.shake[steps] - body.path[steps]
    jacobian = turn @ camera.pixels
    offset = (turn @ away[..., None])[..., 0]
    centre = -np.linalg.solve(camera.pixels, away.T).T
    return centre, jacobian.astype(np.float32), offset.astype(np.float32)


def _reach(body: Body, steps: Steps, jacobian: Floats, softness: float) -> Floats:
    """Half the size in pixels [n, 2] of the patch that holds the body."""
    a, b = body.extent
    if body.shape in PROFILES:
        b *= max(max(PROFILES[body.shape][1]), max(PROFILES[body.shape][2]))
    extent = np.array([[a, b]]) * (body.stretch[steps] if body.stretch is not None else 1.0)
    if body.bend is not None:
        extent = extent + [[0.0, 2 * a]] * np.abs(body.bend[steps])[:, None]
    pixels = np.abs(np.linalg.inv(jacobian))
    return np.asarray((pixels @ (extent + 1.5 * softness)[..., None])[..., 0])


def _measured(
    body: Body,
    steps: Steps,
    jacobian: Floats,
    offset: Floats,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> tuple[Floats, Floats, Floats]:
    """The body's own coordinates of the patch's pixels and their gap to its outline, each [n, h', w']."""
    j = jacobian[:, :, :, None, None]
    o = offset[:, :, None, None]
    across, down = columns[:, None, :].astype(np.float32), rows[:, :, None].astype(np.float32)
    x = j[:, 0, 0] * across + (j[:, 0, 1] * down + o[:, 0])
    y = j[:, 1, 0] * across + (j[:, 1, 1] * down + o[:, 1])
    a, b = (np.full((1, 1, 1), extent, np.float32) for extent in body.extent)
    if body.stretch is not None:
        size = body.stretch[steps].astype(np.float32)[:, :, None, None]
        a, b = a * size[:, 0], b * size[:, 1]
    if body.bend is not None:
        far = np.clip((x / a + 1) * 0.5, 0, 1)
        y = y - body.bend[steps].astype(np.float32)[:, None, None] * a * far * far
    return x, y, distance(body.shape, x, y, a, b)
