"""Reads the published checkpoints in the layouts they were released in.

The only place that unpickles anything, and only tensors, plain containers and `argparse.Namespace`.
Everything that does not fit is listed at once; nothing loads partly.
"""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from taro_rt.engines.bundle import file_entry
from taro_rt.engines.errors import CheckpointError
from taro_rt.engines.nets.config import PUBLISHED, NetworkConfig
from taro_rt.engines.nets.networks import Networks, load_weights
from taro_rt.export.progress import Tell, silent

State = dict[str, Tensor]
DIFFUSERS_FILES = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
)
"""Names of the weights in a diffusers folder, best first."""
ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What older conversions of the VAE call the parts of its attention, and what they are called here."""
WEIGHT_NORM = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)
"""Length and direction of a weight under weight norm, in its two spellings."""


@dataclass(frozen=True)
class Released:
    """Where the released files lie."""

    taro: Path
    """taro_ckpt.pt"""
    visual: Path
    """cavp_epoch66.ckpt"""
    onset: Path
    """onset_model.ckpt"""
    audioldm2: Path
    """Folder with vae/ and vocoder/, each a config.json and its weights."""


@dataclass(frozen=True)
class Layout:
    """How one network lies in its file."""

    what: str
    landmark: str
    """A key that this network has and no other."""
    entry: str = ""
    """Entry of the file's dict that holds the tensors; a file may also hold them at its root."""
    prefixes: tuple[str, ...] = ()
    """What wrappers put in front of every key, outermost first."""
    training_only: tuple[str, ...] = ()
    """Starts of keys that inference does not need."""


LAYOUTS = {
    "onset": Layout(
        "SyncFusion onset network", "net.model.stem.0.weight", "state_dict", ("module.", "model.")
    ),
    "visual": Layout(
        "CAVP visual encoder",
        "video_encoder.conv1.conv.weight",
        "state_dict",
        ("module.",),
        ("spec_", "logit_scale"),
    ),
    "transformer": Layout(
        "TARO transformer", "x_embedder.proj.weight", "ema", ("module.",), ("projectors.",)
    ),
    "decoder": Layout("AudioLDM2 VAE", "decoder.conv_in.weight", training_only=("encoder.", "quant_conv.")),
    "vocoder": Layout("AudioLDM2 vocoder", "conv_pre.weight"),
}


@dataclass(frozen=True)
class Checkpoints:
    """What the released files hold."""

    networks: Networks
    skipped: dict[str, tuple[str, ...]]
    """By file: the entries and groups of tensors that inference does not need."""
    sha256: dict[str, str]
    """By file."""


def read_released(files: Released, config: NetworkConfig = PUBLISHED, tell: Tell = silent) -> Checkpoints:
    """The networks of `config` with the released weights, as float32.

    Raises `CheckpointError` naming every file that cannot be read and every missing, unexpected or misshapen
    tensor of every file.
    """
    paths, faults = _locate(files, config)
    networks = Networks.build(config)
    skipped, sha256 = dict[str, tuple[str, ...]](), dict[str, str]()
    for i, (name, path) in enumerate(paths.items()):
        tell("checkpoints", i / len(paths))
        label = str(path.relative_to(files.audioldm2)) if path.is_relative_to(files.audioldm2) else path.name
        try:
            state, skipped[label] = _read_state(path, LAYOUTS[name])
            sha256[label] = file_entry(path).sha256
        except CheckpointError as error:
            faults.append(str(error))
        else:
            faults += _unfit(path, load_weights(networks.by_name()[name], state))
    if faults:
        raise CheckpointError("; ".join(faults))
    tell("checkpoints", 1.0)
    return Checkpoints(networks, skipped, sha256)


def _unfit(path: Path, faults: list[str]) -> list[str]:
    """All faults of one file as one text that begins with their number."""
    if not faults:
        return []
    n = [sum(fault.startswith(word) for fault in faults) for word in ("missing ", "unexpected ")]
    return [
        f"{path}: {len(faults)} tensors do not fit ({n[0]} missing, {n[1]} unexpected, "
        f"{len(faults) - sum(n)} of another shape; for networks of other sizes than the published ones, "
        f"name those sizes): {', '.join(faults)}"
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


def vae_config(config: NetworkConfig) -> dict[str, Any]:
    """What a VAE's config.json says that decides how it computes."""
    vae = config.vae
    return {
        "in_channels": 1,
        "out_channels": 1,
        "latent_channels": vae.latent_channels,
        "block_out_channels": [vae.base * m for m in vae.multipliers],
        "layers_per_block": vae.layers,
        "norm_num_groups": vae.groups,
    }


def vocoder_config(config: NetworkConfig) -> dict[str, Any]:
    """What a vocoder's config.json says that decides how it computes."""
    vocoder = config.vocoder
    return {
        "model_in_dim": vocoder.mel_bins,
        "sampling_rate": config.geometry().rate_hz,
        "upsample_initial_channel": vocoder.channels,
        "upsample_rates": list(vocoder.strides),
        "upsample_kernel_sizes": list(vocoder.kernels),
        "resblock_kernel_sizes": list(vocoder.resblock_kernels),
        "resblock_dilation_sizes": [list(vocoder.dilations)] * len(vocoder.resblock_kernels),
        "leaky_relu_slope": 0.1,
        "normalize_before": False,
    }


def _config_faults(path: Path, promised: dict[str, Any]) -> list[str]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        return [f"{path}: expected the config of these weights, got {error.strerror}; copy the whole folder"]
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return [f"{path}: expected a JSON object, got something else; copy the folder again"]
    return [
        f"{path}: {key}: expected {want}, got {found[key]}"
        for key, want in promised.items()
        if key in found and found[key] != want
    ]


def _read_state(path: Path, layout: Layout) -> tuple[State, tuple[str, ...]]:
    """The tensors inference needs, by canonical key, and the names of what was left."""
    content = _read_file(path)
    tensors, beside = content, list[str]()
    if isinstance(content.get(layout.entry), dict):
        tensors = content[layout.entry]
        beside = [key for key in content if key != layout.entry]
    elif layout.entry and not any(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{path}: expected the {layout.what} in the entry {layout.entry!r}, got {', '.join(content)}"
        )
    state, unused = dict[str, Tensor](), Counter[str]()
    for released_key, value in tensors.items():
        key = canonical_key(str(released_key), layout)
        if key.startswith(layout.training_only):
            unused[f"{key.split('.')[0]}.*"] += 1
        elif not isinstance(value, Tensor) or key in state:
            raise CheckpointError(f"{path}: {released_key}: expected one tensor, got {type(value).__name__}")
        else:
            state[key] = value
    if layout.landmark not in state:
        _refuse_swapped(path, state, layout)
    groups = [f"{key} ({count} tensors)" for key, count in unused.items()]
    return _fold_weight_norm(state), (*beside, *groups)


def canonical_key(key: str, layout: Layout) -> str:
    """The name the spec and our networks use for a released key."""
    for prefix in layout.prefixes:
        key = key.removeprefix(prefix)
    parts = key.split(".")
    if "attentions" in parts and parts[-2] in ATTENTION_NAMES:
        parts[-2] = ATTENTION_NAMES[parts[-2]]
    return ".".join(parts)


def _refuse_swapped(path: Path, state: State, layout: Layout) -> None:
    for other in LAYOUTS.values():
        if any(canonical_key(key, other) == other.landmark for key in state):
            raise CheckpointError(
                f"{path}: expected the {layout.what}, got the {other.what}; were two files swapped?"
            )


def _read_file(path: Path) -> dict[str, Any]:
    """The dict in a checkpoint; tensors stay on disk until they are read where the format allows."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint, got {error.strerror}; check the path"
        ) from None
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals([argparse.Namespace]):
            zipped = zipfile.is_zipfile(path)
            content = torch.load(path, "cpu", weights_only=True, mmap=zipped)  # noqa: TID251
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path}: {_why_refused(path)}") from None
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: expected a whole checkpoint, got a file that ends early or is none ({why}); "
            "copy or download it again"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dict of tensors, got {type(content).__name__}")
    return content


def _why_refused(path: Path) -> str:
    """Which objects a pickle would have made; none of them was."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, pickle.UnpicklingError, EOFError):
        return (
            "expected a checkpoint, got a file that is none, or one of a very old PyTorch; download it again"
        )
    allowed = {f"{argparse.Namespace.__module__}.{argparse.Namespace.__qualname__}"}
    return (
        f"expected tensors, plain containers and argparse.Namespace, got also "
        f"{', '.join(sorted({*found} - allowed))}: refused, as unpickling them could run code; "
        "save the tensors alone as a safetensors file and name that"
    )


def _fold_weight_norm(state: State) -> State:
    """Length times direction in place of the two: w = g v / |v|, the norm over all axes but the first."""
    folded = dict(state)
    for length, direction in WEIGHT_NORM:
        for key in [key for key in state if key.endswith(direction)]:
            stem = key.removesuffix(direction)
            if stem + length in folded:
                v, g = folded.pop(key).double(), folded.pop(stem + length).double()
                norm = torch.linalg.vector_norm(v, dim=tuple(range(1, v.ndim)), keepdim=True)
                folded[f"{stem}.weight"] = (g * v / norm).float()
    return folded
