"""Makes a bundle of very small networks with random weights: the whole chain in seconds, on any machine.

The window is the published one (816 mel frames, 25 latent frames per second), so that all timing is real.

    python tests/make_tiny_bundle.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from taro_rt.engines.bundle import Manifest
from taro_rt.engines.nets.config import (
    HifiGanConfig,
    NetworkConfig,
    OnsetConfig,
    TransformerConfig,
    VaeConfig,
    VisualConfig,
)
from taro_rt.engines.nets.networks import Networks
from taro_rt.export.package import export_bundle
from taro_rt.export.weights import Storage

FRAME_WISE = TransformerConfig(
    depth=2,
    width=64,
    heads=1,
    patch=(4, 8),
    time_positions=51,
    onset_window=8,
    onset_step_s=0.1,
    context_positions=True,
)
GLOBAL = TransformerConfig(depth=2, width=64, heads=1, patch=(4, 8))
"""One row of modulation, as published."""


def tiny_config(transformer: TransformerConfig = FRAME_WISE) -> NetworkConfig:
    """Sizes of the tiny networks."""
    return NetworkConfig(
        onset=OnsetConfig(
            stem=3, widths=(4, 4, 6, 8), blocks=(1, 1, 1, 1), head=8, margin=2, resize=32, crop=24
        ),
        visual=VisualConfig(stem=4, widths=(2, 2, 4, 4), blocks=(1, 1, 1, 1), expansion=2, dim=16, size=32),
        transformer=transformer,
        vae=VaeConfig(base=4, layers=1, groups=2, mid_attention=False),
        vocoder=HifiGanConfig(
            channels=16, strides=(10, 16), kernels=(21, 32), resblock_kernels=(3,), dilations=(1,)
        ),
        resize="fast",
    )


def tiny_networks(config: NetworkConfig, seed: int = 0) -> Networks:
    """Random networks whose every input matters: no layer left at zero, no norm left at its start values."""
    networks = Networks.build(config)
    generator = torch.Generator().manual_seed(seed)
    for net in networks.by_name().values():
        with torch.no_grad():
            for key, value in net.state_dict().items():
                _draw(key, value, generator)
    with torch.no_grad():
        networks.decoder.decoder.conv_out.bias.fill_(-5.0)  # type: ignore[union-attr]  # a log-mel is low
        networks.vocoder.conv_post.weight.mul_(0.05)  # keeps tanh far from its ends
    return networks


def _draw(key: str, value: torch.Tensor, generator: torch.Generator) -> None:
    noise = torch.randn(value.shape, generator=generator)
    if key.endswith("running_var"):
        value.copy_(0.5 + noise.abs())
    elif key.endswith(("running_mean", "bias")):
        value.copy_(0.1 * noise)
    elif key.endswith("weight") and value.ndim == 1:
        value.copy_(1 + 0.1 * noise)
    elif key.endswith("weight"):
        value.copy_(noise / value[0].numel() ** 0.5)


def make_tiny_bundle(
    folder: Path, seed: int = 0, config: NetworkConfig | None = None, storage: Storage = "float32"
) -> Manifest:
    """Write a tiny bundle into `folder`, through the real exporter."""
    return export_bundle(
        tiny_networks(config or tiny_config(), seed),
        folder,
        name="tiny",
        provenance={"made by": "tests/make_tiny_bundle.py: random weights, not trained", "seed": str(seed)},
        licence="Apache-2.0",
        storage=storage,
    )


if __name__ == "__main__":
    make_tiny_bundle(Path(sys.argv[1]))
