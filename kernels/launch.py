"""A kernel with the arguments of a launch: what runs on a GPU is what `offline` compiles without one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Launch:
    """`arguments` in the kernel's order (tensors, numbers), then its compile-time `constants`."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    warps: int
    stages: int = 1

    def run(self) -> None:
        """Launch on the current device and stream."""
        options = {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}
        self.kernel[self.grid](*self.arguments, **self.constants, **options)
