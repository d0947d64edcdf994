"""The one training loop: AdamW, EMA, resume, a log that can be plotted. Knows nothing of any network."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train."""

    steps: int
    minutes: float = 1e9
    """Stop early, cleanly, after this much time in this run; a later run resumes."""
    rate: float = 3e-4
    warm_up: int = 100
    ema: float = 0.999
    clip: float = 1.0
    decay_to: float = 0.05
    """The rate falls along a cosine to this share at the last step."""


class Ema:
    """Exponential moving average of a network's parameters; buffers are copied."""

    def __init__(self, net: nn.Module) -> None:
        self.state = {key: value.detach().clone() for key, value in net.state_dict().items()}

    def update(self, net: nn.Module, decay: float) -> None:
        for key, value in net.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[key].lerp_(value.detach(), 1.0 - decay)
            else:
                self.state[key].copy_(value)


def fit(
    net: nn.Module,
    loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    recipe: Recipe,
    folder: Path,
) -> dict[str, Tensor]:
    """Train `net` and return its EMA state.

    `loss(step)` draws a batch by itself and gives the loss and figures to log. `folder` holds the state as
    safetensors files (`ema` is what a bundle takes) and `log.jsonl`; a run that was cut off goes on there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.0)
    step = _resume(net, optimiser, folder)
    ema = Ema(net)
    if step:
        ema.state.update(load_file(folder / "ema.safetensors"))
    started = saved = time.monotonic()
    figures: dict[str, float] = {}
    try:
        while step < recipe.steps and time.monotonic() - started < 60 * recipe.minutes:
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * _schedule(step, recipe)
            net.train()
            value, logged = loss(step)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
            optimiser.step()
            step += 1
            ema.update(net, min(recipe.ema, (1 + step) / (10 + step)))
            for key, number in {"loss": value.item(), **logged}.items():
                figures[key] = 0.98 * figures.get(key, number) + 0.02 * number
            if step % 50 == 0:
                _log(folder, step, recipe.steps, figures, time.monotonic() - started)
            if time.monotonic() - saved > 120:
                _save(net, optimiser, ema, step, folder)
                saved = time.monotonic()
    finally:  # also when interrupted
        _save(net, optimiser, ema, step, folder)
    return ema.state


def _schedule(step: int, recipe: Recipe) -> float:
    warm = min(1.0, (step + 1) / recipe.warm_up)
    cosine = 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * step / recipe.steps))))
    return warm * (recipe.decay_to + (1 - recipe.decay_to) * cosine)


def _save(net: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema, step: int, folder: Path) -> None:
    """Each file is written aside and renamed; `step` comes last and says what can be resumed."""
    moments = {
        f"{i}.{key}": value
        for i, state in enumerate(optimiser.state_dict()["state"].values())
        for key, value in state.items()
    }
    parts = {"net": net.state_dict(), "ema": ema.state, "optimiser": moments}
    for name, tensors in parts.items():
        aside = folder / f"{name}.part"
        save_file(
            {k: v.detach().contiguous().clone() for k, v in tensors.items()},
            aside,
            metadata={"step": str(step)},
        )
        os.replace(aside, folder / f"{name}.safetensors")
    (folder / "step").write_text(str(step))


def _resume(net: nn.Module, optimiser: torch.optim.Optimizer, folder: Path) -> int:
    step = int((folder / "step").read_text()) if (folder / "step").exists() else 0
    if step == 0:
        return 0
    net.load_state_dict(load_file(folder / "net.safetensors"))
    moments = load_file(folder / "optimiser.safetensors")
    state = optimiser.state_dict()
    n = len(state["param_groups"][0]["params"])
    state["state"] = {
        i: {key: moments[f"{i}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")} for i in range(n)
    }
    optimiser.load_state_dict(state)
    return step


def _log(folder: Path, step: int, steps: int, figures: dict[str, float], seconds: float) -> None:
    row = {"step": step, "seconds": round(seconds, 1), **{k: round(v, 5) for k, v in figures.items()}}
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    text = "  ".join(f"{k} {v:.4f}" for k, v in figures.items())
    print(f"{folder.name} {step}/{steps}  {text}  {seconds / 60:.1f} min", file=sys.stderr, flush=True)
