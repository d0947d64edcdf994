"""How the released files lie: entries, prefixes, what only training needs, and what their configs promise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taro_rt.engines.nets.config import HifiGanConfig, NetworkConfig

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

    def canonical(self, key: str) -> str:
        """The name the spec and our networks use for a released key."""
        for prefix in self.prefixes:
            key = key.removeprefix(prefix)
        parts = key.split(".")
        if "attentions" in parts and parts[-2] in ATTENTION_NAMES:
            parts[-2] = ATTENTION_NAMES[parts[-2]]
        return ".".join(parts)


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
    "vocoder": Layout("AudioLDM2 vocoder", "conv_pre.bias", training_only=("mean", "scale")),
}


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
    assert isinstance(vocoder, HifiGanConfig)
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
