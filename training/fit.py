"""The one training loop: AdamW, EMA, bf16, resume, progress, a log that can be plotted. Knows no network.

Every step draws from generators seeded by its own number, so a run that was cut off goes on as if it had not
been (on a CPU; a GPU, which `device` may name, has not been tried).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

STATE = "state.safetensors"
"""Network, EMA, moments of the optimiser and the step, in one file that is renamed into place."""
SAVE_S = 120.0
LOG_STEPS = 50


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train, and where."""

    steps: int
    minutes: float = 1e9
    """Stop early, cleanly, after this much time in this run; a later run resumes."""
    rate: float = 1e-3
    warm_up: int = 100
    ema: float = 0.999
    clip: float = 1.0
    decay_to: float = 0.05
    """The rate falls along a cosine to this share at the last step."""
    device: str = "cpu"
    bf16: bool = False
    """Matrix products in bfloat16; weights, moments and sums stay float32."""
    seed: int = 0


Figures = dict[str, float]
Loss = Callable[[int, np.random.Generator], tuple[Tensor, Figures]]
"""`loss(step, rng)` draws a batch with `rng` (and torch's own generator) and gives the loss and figures."""


class Ema:
    """Exponential moving average of a network's parameters and floating-point buffers; others are copied."""

    def __init__(self, net: nn.Module) -> None:
        self.state = {key: value.detach().clone() for key, value in net.state_dict().items()}

    def update(self, net: nn.Module, decay: float) -> None:
        for key, value in net.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[key].lerp_(value.detach(), 1.0 - decay)
            else:
                self.state[key].copy_(value)


def fit(net: nn.Module, loss: Loss, recipe: Recipe, folder: Path) -> dict[str, Tensor]:
    """Train `net` and return its EMA state, which `averaged(folder)` reads again.

    `folder` holds the state and `log.jsonl`; a run that was cut off goes on there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    net.to(recipe.device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.0)
    ema = Ema(net)
    step = _resume(net, optimiser, ema, folder)
    display = Display(folder.name, recipe.steps, folder / "log.jsonl")
    started = saved = time.monotonic()
    is_whole = True
    try:
        while step < recipe.steps and time.monotonic() - started < 60 * recipe.minutes:
            figures = _gradients(net, loss, optimiser, recipe, step)
            is_whole = False
            optimiser.step()
            step += 1
            ema.update(net, min(recipe.ema, (1 + step) / (10 + step)))
            is_whole = True
            display(step - 1, figures)
            if time.monotonic() - saved > SAVE_S:
                _save(net, optimiser, ema, step, folder)
                saved = time.monotonic()
    finally:
        if is_whole:  # else interrupted amid an update: the state that was saved last stays
            _save(net, optimiser, ema, step, folder)
        display.close()
    return ema.state


def averaged(folder: Path) -> dict[str, Tensor]:
    """The EMA state of a training folder."""
    prefix = "ema."
    with safe_open(folder / STATE, "pt") as file:
        keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 - not a dict
        return {key.removeprefix(prefix): file.get_tensor(key) for key in keys}


def _gradients(
    net: nn.Module, loss: Loss, optimiser: torch.optim.Optimizer, recipe: Recipe, step: int
) -> Figures:
    """Leave the gradients of a step, clipped, in `net`, and its rate in `optimiser`."""
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate * _schedule(step, recipe)
    net.train()
    torch.manual_seed(recipe.seed * 1_000_003 + step)
    with torch.autocast(torch.device(recipe.device).type, torch.bfloat16, enabled=recipe.bf16):
        value, figures = loss(step, np.random.default_rng([recipe.seed, step]))
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
    return {"loss": value.item(), **figures}


def _schedule(step: int, recipe: Recipe) -> float:
    warm = min(1.0, (step + 1) / recipe.warm_up)
    cosine = 0.5 * (1 + np.cos(np.pi * step / recipe.steps))
    return float(warm * (recipe.decay_to + (1 - recipe.decay_to) * cosine))


class Display:
    """Running means to the log and to whoever watches: one line in place on a terminal, else a line a row."""

    def __init__(self, name: str, steps: int, log: Path) -> None:
        self._name, self._steps, self._log = name, steps, log
        self._started = time.monotonic()
        self._first: int | None = None
        self._done = 0
        self._means: Figures = {}
        self._end = "\r" if sys.stderr.isatty() else "\n"

    def __call__(self, step: int, figures: Figures) -> None:
        """Take the figures of step number `step`, counted from 0."""
        self._first = step if self._first is None else self._first
        for key, number in figures.items():
            self._means[key] = 0.98 * self._means.get(key, number) + 0.02 * number
        self._done = step + 1
        if self._done % LOG_STEPS == 0:
            self._show()

    def _show(self) -> None:
        step, seconds = self._done, time.monotonic() - self._started
        done = step - (self._first or 0)
        row = {"step": step, "seconds": round(seconds, 1), **{k: round(v, 5) for k, v in self._means.items()}}
        with self._log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        left = (self._steps - step) * seconds / done / 60
        text = "  ".join(f"{k} {v:.4f}" for k, v in self._means.items())
        line = f"{self._name} {step}/{self._steps}  {text}  {seconds / done:.2f} s/step, {left:.0f} min left"
        print(line, end=self._end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Show the last steps, too."""
        if self._done % LOG_STEPS:
            self._show()
        if self._end == "\r":
            print(file=sys.stderr)


def write_state(folder: Path, step: int, **parts: dict[str, Tensor]) -> None:
    """Write a checkpoint of `net`, `ema` and, if known, `optimiser`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{part}.{key}": value.detach().cpu().contiguous().clone()
        for part, state in parts.items()
        for key, value in state.items()
    }
    save_file(tensors, folder / f"{STATE}.part", metadata={"step": str(step)})
    os.replace(folder / f"{STATE}.part", folder / STATE)


def steps_of(folder: Path) -> int:
    """Steps of a training folder's checkpoint."""
    with safe_open(folder / STATE, "pt") as file:
        return int(file.metadata()["step"])


def _save(net: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema, step: int, folder: Path) -> None:
    moments = {
        f"{i}.{key}": value
        for i, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }
    write_state(folder, step, net=net.state_dict(), ema=ema.state, optimiser=moments)


def _resume(net: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema, folder: Path) -> int:
    path = folder / STATE
    if not path.exists():
        return 0
    parts: dict[str, dict[str, Tensor]] = {"net": {}, "ema": {}, "optimiser": {}}
    for key, value in load_file(path).items():
        part, _, name = key.partition(".")
        parts[part][name] = value
    net.load_state_dict(parts["net"])
    for key, value in parts["ema"].items():
        ema.state[key].copy_(value)
    state = optimiser.state_dict()
    for name, value in parts["optimiser"].items():
        i, _, key = name.partition(".")
        state["state"].setdefault(int(i), {})[key] = value
    optimiser.load_state_dict(state)
    return steps_of(folder)
