"""Sizes of the five networks: `PUBLISHED` as released, `SMALL` for the embedded bundle.

A `NetworkConfig` is stored in a bundle's manifest, so that the eager backend can rebuild the networks, and
it derives the `Geometry` that all contracts follow from. Pure data: no torch here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from taro_rt.engines.stages import Geometry


@dataclass(frozen=True)
class OnsetConfig:
    """R(2+1)D with the temporal axis kept (spec B3)."""

    stem: int = 45
    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    head: int = 128
    segment: int = 30
    margin: int = 0
    resize: int = 128
    crop: int = 112


@dataclass(frozen=True)
class VisualConfig:
    """SlowOnly ResNet (spec B6); the output of a stage is `expansion` times its width."""

    stem: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    expansion: int = 4
    dim: int = 512
    size: int = 224
    frames: int = 32
    encode: int = 40


@dataclass(frozen=True)
class TransformerConfig:
    """MMDiT (spec B4). `time_positions` 1 is the published global modulation; more rows make it frame-wise,
    each fed by `onset_window` onset values spaced `onset_step_s` around its own time."""

    depth: int = 12
    width: int = 768
    heads: int = 12
    patch: tuple[int, int] = (2, 2)
    onset_values: int = 120
    time_positions: int = 1
    onset_window: int = 120
    onset_step_s: float = 0.0
    context_positions: bool = False

    @property
    def modulation_vectors(self) -> int:
        """AdaLN vectors per modulation row: 12 per block, 8 in the last one, 2 in the final layer."""
        return 12 * self.depth - 4 + 2


@dataclass(frozen=True)
class VaeConfig:
    """AutoencoderKL of AudioLDM2 (spec B7)."""

    base: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4)
    layers: int = 2
    groups: int = 32
    latent_channels: int = 8
    mid_attention: bool = True


@dataclass(frozen=True)
class HifiGanConfig:
    """HiFi-GAN (spec B7)."""

    mel_bins: int = 64
    channels: int = 1024
    strides: tuple[int, ...] = (5, 4, 2, 2, 2)
    kernels: tuple[int, ...] = (16, 16, 8, 4, 4)
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)


@dataclass(frozen=True)
class OscillatorConfig:
    """Vocoder of the embedded bundle: a bank of `per_bin` oscillators a mel bin."""

    mel_bins: int = 64
    per_bin: int = 3
    width: int = 160
    dilations: tuple[int, ...] = (1, 2, 4, 1)


@dataclass(frozen=True)
class NetworkConfig:
    """All five networks and what they share."""

    onset: OnsetConfig = field(default_factory=OnsetConfig)
    visual: VisualConfig = field(default_factory=VisualConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    vocoder: HifiGanConfig | OscillatorConfig = field(default_factory=HifiGanConfig)
    mel_frames: int = 816
    latent_scale: float = 0.18215
    resize: Literal["released", "fast"] = "released"

    def geometry(self) -> Geometry:
        """The window these networks work on."""
        return Geometry(
            mel_frames=self.mel_frames,
            mel_bins=self.vocoder.mel_bins,
            wave_tail=_wave_tail(self.vocoder),
            latent_channels=self.vae.latent_channels,
            latent_stride=2 ** (len(self.vae.multipliers) - 1),
            latent_scale=self.latent_scale,
            onset_values=self.transformer.onset_values,
            onset_segment=self.onset.segment,
            onset_margin=self.onset.margin,
            onset_resize=self.onset.resize,
            onset_crop=self.onset.crop,
            visual_frames=self.visual.frames,
            visual_encode=self.visual.encode,
            visual_size=self.visual.size,
            visual_dim=self.visual.dim,
            width=self.transformer.width,
            time_positions=self.transformer.time_positions,
            modulation_vectors=self.transformer.modulation_vectors,
            resize=self.resize,
        )


def _wave_tail(config: HifiGanConfig | OscillatorConfig) -> int:
    """Samples beyond frames * hop: each transposed convolution adds kernel - stride - 2 padding (spec B7)."""
    tail = 0
    if isinstance(config, OscillatorConfig):
        return tail
    for kernel, stride in zip(config.kernels, config.strides, strict=True):
        tail = tail * stride + (kernel - stride) % 2
    return tail


PUBLISHED = NetworkConfig()

SMALL = NetworkConfig(
    onset=OnsetConfig(
        stem=12, widths=(12, 24, 48, 64), blocks=(1, 1, 1, 1), head=64, margin=5, resize=48, crop=48
    ),
    visual=VisualConfig(
        stem=24, widths=(12, 24, 48, 64), blocks=(1, 2, 2, 1), dim=128, size=64, frames=32, encode=32
    ),
    transformer=TransformerConfig(
        depth=4,
        width=192,
        heads=3,
        patch=(2, 8),
        time_positions=102,
        onset_window=16,
        onset_step_s=0.05,
        context_positions=True,
    ),
    vae=VaeConfig(base=16, layers=1, groups=8, mid_attention=False),
    vocoder=OscillatorConfig(),
    resize="fast",
)
