"""Weights that outlive the folder of checkpoints: a compact file beside the sources, to go on and judge by.

`python -m taro_rt.training keep` writes it from `runs`; a part that has no checkpoint yet starts from it.
Weights that the embedded bundle holds unchanged (the transformer's, the vocoder's) are read from there, not
stored twice.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from taro_rt.engines.bundle import DEFAULT
from taro_rt.training.fit import STATE, averaged, steps_of, write_state

State = dict[str, Tensor]
KEPT = Path(__file__).parent / "kept.safetensors"
BUNDLED = {"transformer": "net.", "vocoder": ""}
"""Prefix, in a training folder, of the weights that the bundle's file of the same name holds."""


def keep(runs: Path, path: Path = KEPT) -> dict[str, int]:
    """Store the averaged weights of every part in `runs`, matrices as half floats; other parts stay as they
    were. Returns the steps of each part."""
    tensors, steps = State(), dict[str, int]()
    if path.exists():
        tensors, steps = load_file(path), kept_steps(path)
    for folder in sorted(part.parent for part in runs.glob(f"*/{STATE}")):
        part, prefix = folder.name, BUNDLED.get(folder.name)
        tensors = {key: value for key, value in tensors.items() if not key.startswith(f"{part}.")}
        steps[part] = steps_of(folder)
        for key, value in averaged(folder).items():
            if prefix is None or not key.startswith(prefix):
                tensors[f"{part}.{key}"] = value.half() if value.ndim > 1 else value
    save_file(tensors, path, metadata={part: str(n) for part, n in steps.items()})
    return steps


def kept_steps(path: Path = KEPT) -> dict[str, int]:
    """How long each part was trained."""
    with safe_open(path, "pt") as file:
        return {part: int(n) for part, n in (file.metadata() or {}).items()}


def kept(part: str, path: Path = KEPT) -> State:
    """The stored weights of one part, as float32."""
    own = {key: value for key, value in load_file(path).items() if key.startswith(f"{part}.")}
    return {key.removeprefix(f"{part}."): widened(value) for key, value in own.items()}


def start_from_kept(part: str, folder: Path, path: Path = KEPT) -> None:
    """Give a training folder that has no checkpoint the stored weights, if there are any."""
    steps = kept_steps(path) if path.exists() else {}
    if (folder / STATE).exists() or part not in steps:
        return
    state = kept(part, path)
    if part in BUNDLED:
        bundled = load_file(DEFAULT / f"{part}.safetensors")
        state |= {f"{BUNDLED[part]}{key}": widened(value) for key, value in bundled.items()}
    write_state(folder, steps[part], net=state, ema=state)


def widened(value: Tensor) -> Tensor:
    return value.float() if value.dtype is torch.float16 else value
