"""The published checkpoints as networks: all faults of all files are listed at once; nothing loads partly."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from taro_rt.engines.bundle import file_entry
from taro_rt.engines.errors import CheckpointError
from taro_rt.engines.nets.config import PUBLISHED, NetworkConfig
from taro_rt.engines.nets.networks import Networks, load_weights
from taro_rt.export.layouts import (
    DIFFUSERS_FILES,
    LAYOUTS,
    WEIGHT_NORM,
    Layout,
    Released,
    vae_config,
    vocoder_config,
)
from taro_rt.export.progress import Tell, silent
from taro_rt.export.unpickle import read_file

State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoints:
    """What the released files hold."""

    networks: Networks
    taken: dict[str, str]
    """Which entry of a file the tensors come from, by network and file."""
    skipped: dict[str, tuple[str, ...]]
    """The entries and groups of tensors that inference does not need."""
    sha256: dict[str, str]


@dataclass(frozen=True)
class Found:
    """One file, read."""

    state: State
    entry: str
    skipped: tuple[str, ...]
    faults: list[str]


def read_released(files: Released, config: NetworkConfig = PUBLISHED, tell: Tell = silent) -> Checkpoints:
    """The networks of `config` with the released weights, as float32.

    Raises `CheckpointError` naming every file that cannot be read and every missing, unexpected or unfit
    tensor of every file.
    """
    paths, faults = _locate(files, config)
    networks = Networks.build(config)
    taken, skipped, sha256 = dict[str, str](), dict[str, tuple[str, ...]](), dict[str, str]()
    for i, (name, path) in enumerate(paths.items()):
        tell("checkpoints", i / len(paths))
        net, label = networks.by_name()[name], f"{name} ({path.name})"
        try:
            found = find_tensors(path, read_file(path), LAYOUTS[name])
        except CheckpointError as error:
            faults.append(str(error))
            continue
        state, unfolded = fold_weight_norm(found.state, net)
        faults += _unfit(path, [*found.faults, *unfolded], [] if found.faults else load_weights(net, state))
        taken[label], skipped[label], sha256[label] = found.entry, found.skipped, file_entry(path).sha256
    if faults:
        raise CheckpointError("; ".join(faults))
    tell("checkpoints", 1.0)
    return Checkpoints(networks, taken, skipped, sha256)


def _unfit(path: Path, unusable: list[str], faults: list[str]) -> list[str]:
    """All faults of one file as one text that begins with their number."""
    if unusable:
        return [f"{path}: {len(unusable)} tensors cannot be used: {', '.join(unusable)}"]
    if not faults:
        return []
    n = [sum(fault.startswith(word) for fault in faults) for word in ("missing ", "unexpected ")]
    return [
        f"{path}: {len(faults)} tensors do not fit ({n[0]} missing, {n[1]} unexpected, "
        f"{len(faults) - sum(n)} of another shape; for networks of other sizes than the published ones, "
        f"name those with --networks): {', '.join(faults)}"
    ]


def _locate(files: Released, config: NetworkConfig) -> tuple[dict[str, Path], list[str]]:
    """The weights file of each network, and what is wrong with the folders and their configs."""
    paths, faults = {"transformer": files.taro, "visual": files.visual, "onset": files.onset}, []
    folders = {"decoder": files.audioldm2 / "vae", "vocoder": files.audioldm2 / "vocoder"}
    promises = {"decoder": vae_config(config), "vocoder": vocoder_config(config)}
    for name, folder in folders.items():
        faults += _config_faults(folder / "config.json", promises[name])
        found = [folder / file for file in DIFFUSERS_FILES if (folder / file).is_file()]
        if found:
            paths[name] = found[0]
        else:
            faults.append(f"{folder}: expected the weights as one of {', '.join(DIFFUSERS_FILES)}, got none")
    return paths, faults


def _config_faults(path: Path, promised: dict[str, Any]) -> list[str]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        return [f"{path}: expected the config of these weights, got {error.strerror}; copy the whole folder"]
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return [f"{path}: expected a JSON object, got something else; copy the folder again"]
    return [
        f"{path}: {key}: expected {want}, got {found[key]}"
        for key, want in promised.items()
        if key in found and found[key] != want
    ]


def find_tensors(path: Path, content: dict[str, Any], layout: Layout) -> Found:
    """The tensors inference needs by canonical key, from where the layout says or from the file's root.

    Raises `CheckpointError` for a file that holds another network, or none.
    """
    inner = content.get(layout.entry)
    tensors, entry, beside = content, "the root of the file", list[str]()
    if isinstance(inner, dict):
        tensors, entry = {str(key): value for key, value in inner.items()}, f"entry {layout.entry!r}"
        beside = [key for key in content if key != layout.entry]
    if layout.landmark not in map(layout.canonical, tensors):
        if other := _other_network(content, layout):
            raise CheckpointError(
                f"{path}: expected the {layout.what}, got the {other.what}; were two files swapped?"
            )
        if not any(isinstance(value, Tensor) for value in tensors.values()):
            where = f" in the entry {layout.entry!r}" if layout.entry else ""
            got = ", ".join(content) or "nothing at all"
            raise CheckpointError(f"{path}: expected the {layout.what}{where}, got {got}")
    state, unused, faults = State(), Counter[str](), list[str]()
    for released_key, value in tensors.items():
        key = layout.canonical(released_key)
        if key.startswith(layout.training_only):
            unused[f"{key.split('.')[0]}.*" if "." in key else key] += 1
        elif key in state:
            faults.append(f"{released_key}: is given twice, with and without its prefix")
        elif fault := unusable(key, value):
            faults.append(f"{released_key}: {fault}")
        else:
            state[key] = value
    groups = [f"{key} ({count} tensors)" for key, count in unused.items()]
    return Found(state, entry, (*beside, *groups), faults)


def unusable(key: str, value: object) -> str:
    """Why a value cannot be a weight; "" for one that can."""
    if not isinstance(value, Tensor):
        return f"expected a tensor, got {type(value).__name__}"
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        return f"expected a dense tensor, got one that is {value.layout}, {value.dtype}, {value.device}"
    if key.endswith("num_batches_tracked"):
        return ""
    if not value.dtype.is_floating_point:
        return f"expected floating-point values, got {value.dtype}"
    if 0 in value.stride() and value.numel() > 1:
        return "expected values of its own, got one value repeated"
    return "" if bool(torch.isfinite(value).all()) else "expected finite values, got NaN or infinity"


def _other_network(content: dict[str, Any], layout: Layout) -> Layout | None:
    """The network whose tensors these are, if another than that of `layout`."""
    inner = [value for value in content.values() if isinstance(value, dict)]
    keys = {str(key) for part in [content, *inner] for key in part}
    others = (other for other in LAYOUTS.values() if other is not layout)
    return next((o for o in others if any(o.canonical(key) == o.landmark for key in keys)), None)


def fold_weight_norm(state: State, net: nn.Module) -> tuple[State, list[str]]:
    """Length times direction in place of the two: w = g v / |v|, the norm over all axes but the first.

    Also what cannot be folded, as its shapes are not those that `net` asks for.
    """
    folded, faults, own = dict(state), list[str](), net.state_dict()
    for length, direction in WEIGHT_NORM:
        for key in [key for key in state if key.endswith(direction)]:
            stem = key.removesuffix(direction)
            if stem + length not in folded:
                continue
            v, g = folded.pop(key), folded.pop(stem + length)
            want = own[f"{stem}.weight"].shape if f"{stem}.weight" in own else v.shape
            if v.shape != want or g.shape != (len(v), *[1] * (v.ndim - 1)):
                faults.append(
                    f"{stem}: expected a direction {list(want)} and a length per row, "
                    f"got {list(v.shape)} and {list(g.shape)}"
                )
                continue
            norm = torch.linalg.vector_norm(v.double(), dim=tuple(range(1, v.ndim)), keepdim=True)
            folded[f"{stem}.weight"] = (g.double() * v.double() / norm).float()
    return folded, faults
