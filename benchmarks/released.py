"""Writes checkpoint files in the layouts of the published ones (spec: checkpoints), with any weights.

Stands in for the released files, which cannot be shipped, in parity.py, published.py and the tests.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from taro_rt.engines.nets.config import PUBLISHED, NetworkConfig
from taro_rt.export.checkpoints import State
from taro_rt.export.layouts import Released, vae_config, vocoder_config

STORED_VAE_SCALE = 0.4110932946205139
"""What the VAE's own config says; the transformer was trained with another (spec B1)."""


def released_in(folder: Path) -> Released:
    """Where `write_released` puts the files."""
    return Released(
        taro=folder / "taro_ckpt.pt",
        visual=folder / "cavp_epoch66.ckpt",
        onset=folder / "onset_model.ckpt",
        audioldm2=folder / "audioldm2",
    )


def export_command(files: Released, bundle: Path) -> list[str]:
    """Arguments of `taro-rt` that turn `files` into `bundle`."""
    named = {
        "--taro": files.taro,
        "--visual": files.visual,
        "--onset": files.onset,
        "--audioldm2": files.audioldm2,
        "--output": bundle,
    }
    return ["export", *(str(part) for pair in named.items() for part in pair)]


def write_released(
    folder: Path, states: Mapping[str, State], config: NetworkConfig = PUBLISHED, full: bool = False
) -> Released:
    """Write `states` (canonical keys of transformer, visual, onset, vae and vocoder) as released files.

    `full` writes the whole state of the transformer's training too, four times the weights.
    """
    files = released_in(folder)
    write_transformer(files.taro, states["transformer"], full)
    write_visual(files.visual, states["visual"])
    write_onset(files.onset, states["onset"])
    write_diffusers(
        files.audioldm2 / "vae" / "diffusion_pytorch_model.safetensors",
        states["vae"],
        {"_class_name": "AutoencoderKL", "scaling_factor": STORED_VAE_SCALE, **vae_config(config)},
    )
    write_diffusers(
        files.audioldm2 / "vocoder" / "model.safetensors", states["vocoder"], vocoder_config(config)
    )
    return files


def write_transformer(path: Path, state: State, full: bool = False) -> None:
    """As trained: raw weights, EMA, optimiser and arguments in one pickle."""

    def beside(value: Tensor) -> Tensor:
        return torch.zeros_like(value) if full else torch.zeros(1)

    moments = {
        i: {"step": torch.tensor(7.0), "exp_avg": beside(value), "exp_avg_sq": beside(value)}
        for i, value in enumerate(state.values())
    }
    save(
        path,
        {
            "model": {key: beside(value) for key, value in state.items()},
            "ema": dict(state),
            "opt": {"state": moments, "param_groups": [{"lr": 1e-4, "params": list(moments)}]},
            "args": argparse.Namespace(batch_size=64, cfg_prob=0.1, resume_step=0, output_dir="exps"),
            "steps": 500_000,
        },
    )


def write_visual(path: Path, state: State, prefix: str = "module.") -> None:
    """As saved under distributed data parallel, with the audio tower that inference does not need."""
    tower = {"spec_encoder.fc1.weight": torch.ones(4, 4), "logit_scale": torch.tensor(2.6)}
    save(
        path,
        {"state_dict": {f"{prefix}{key}": value for key, value in {**tower, **state}.items()}, "epoch": 66},
    )


def write_onset(path: Path, state: State, prefix: str = "model.") -> None:
    """As a Lightning module with the network in its attribute `model`."""
    save(
        path,
        {
            "epoch": 30,
            "global_step": 100,
            "state_dict": {f"{prefix}{key}": value for key, value in state.items()},
            "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-4}]}],
            "callbacks": {},
        },
    )


def write_diffusers(path: Path, state: State, config: Mapping[str, object]) -> None:
    """A folder with `config.json` and weights as safetensors or as a pickle, by the suffix of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "config.json").write_text(json.dumps(config))
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        save(path, dict(state))


def save(path: Path, content: Mapping[str, object]) -> None:
    """A pickle as PyTorch writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(content), path)


def split_weight_norm(state: State, length: str, direction: str) -> State:
    """Every convolution's weight as length and direction under the given names of weight norm."""
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(".weight") and value.ndim == 3:
            norm = torch.linalg.vector_norm(value, dim=(1, 2), keepdim=True)
            split[key.removesuffix(".weight") + length] = norm
            split[key.removesuffix(".weight") + direction] = 3.0 * value  # only its direction counts
        else:
            split[key] = value
    return split
