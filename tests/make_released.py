"""Checkpoint files of tiny networks in the layouts of the published ones."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from make_tiny_bundle import GLOBAL, tiny_config, tiny_networks
from released import write_released

from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.engines.nets.vae import Vae
from taro_rt.export.checkpoints import State
from taro_rt.export.layouts import Released

SIZES = "sizes.json"


def tiny_released_config() -> NetworkConfig:
    """As the published networks are built, but tiny: global modulation, attention in the VAE."""
    config = tiny_config(GLOBAL)
    return replace(config, vae=replace(config.vae, mid_attention=True), resize="released")


def tiny_states(seed: int = 0) -> dict[str, State]:
    """Canonical state dicts, with what only training needs."""
    config = tiny_released_config()
    states: dict[str, State] = {
        name: dict(net.state_dict()) for name, net in tiny_networks(config, seed).by_name().items()
    }
    states["vae"] = {**Vae(config.vae, config.latent_scale).state_dict(), **states.pop("decoder")}
    states["vocoder"] |= {"mean": torch.zeros(64), "scale": torch.ones(64)}
    states["transformer"]["projectors.0.0.weight"] = torch.ones(5, 6, 1)
    return states


def make_released(folder: Path, seed: int = 0) -> Released:
    """Write all files, and beside them the sizes of the networks for --networks."""
    config = tiny_released_config()
    files = write_released(folder, tiny_states(seed), config)
    (folder / SIZES).write_text(json.dumps(asdict(config)))
    return files
