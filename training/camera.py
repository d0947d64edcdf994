"""Where the world lies in a picture: zoom, roll, shear and pitch of a camera. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from taro_rt.training.scenes import Scene
from taro_rt.training.sounds import Floats


@dataclass(frozen=True)
class Camera:
    """Where the world lies in a picture of `height` by `width` pixels, which need not be square."""

    centre: Floats
    view: Floats
    """Picture (heights from its centre) to world [2, 2]."""
    per_pixel: Floats
    """Picture heights per column and per row [2]."""
    height: int
    width: int

    @staticmethod
    def of(scene: Scene, height: int, width: int) -> Camera:
        middle, focus = np.array([scene.aspect / 2, 0.5]), np.array(scene.focus)
        zoom = abs(np.linalg.det(scene.look.view)) ** -0.5
        pull = np.clip(2.5 * abs(1 - 1 / zoom), 0, 1)  # what happens stays in the picture when it is enlarged
        per_pixel = np.array([scene.aspect / width, 1 / height])
        return Camera(middle + pull * (focus - middle), scene.look.view, per_pixel, height, width)

    @property
    def pixels(self) -> Floats:
        """Column and row to world, without shift [2, 2]."""
        return self.view * self.per_pixel

    @property
    def corner(self) -> Floats:
        """World coordinates [2] of the centre of the first pixel."""
        half = 0.5 * np.array([self.width - 1, self.height - 1])
        return self.centre - self.pixels @ half

    @property
    def softness(self) -> float:
        """Half the width of an antialiased edge, in picture heights."""
        return 0.7 * abs(float(np.linalg.det(self.pixels))) ** 0.5

    def world(self) -> tuple[Floats, Floats]:
        """World coordinates x, y [h, w] of all pixels for an unshaken camera."""
        columns = np.arange(self.width, dtype=np.float32)
        rows = np.arange(self.height, dtype=np.float32)[:, None]
        m, c = self.pixels.astype(np.float32), self.corner.astype(np.float32)
        return m[0, 0] * columns + m[0, 1] * rows + c[0], m[1, 0] * columns + m[1, 1] * rows + c[1]

    def enlarged(self, scale: int, margin: int) -> Camera:
        """`scale` times as many pixels, after `margin` more of the old ones on each side."""
        height, width = self.height + 2 * margin, self.width + 2 * margin
        return replace(self, per_pixel=self.per_pixel / scale, height=scale * height, width=scale * width)
