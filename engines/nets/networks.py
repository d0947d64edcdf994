"""The five networks of a bundle together: built from a config, brought into the form that inference uses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taro_rt.engines.nets.config import HifiGanConfig, NetworkConfig
from taro_rt.engines.nets.frames import fold_norms
from taro_rt.engines.nets.hifigan import HifiGan
from taro_rt.engines.nets.mmdit import Conditioner, Denoiser, MMDiT
from taro_rt.engines.nets.onset import OnsetNet
from taro_rt.engines.nets.oscillators import OscillatorVocoder
from taro_rt.engines.nets.vae import VaeDecoder
from taro_rt.engines.nets.visual import VisualNet

Vocoder = HifiGan | OscillatorVocoder

WEIGHTS_OF = {
    "onset": "onset",
    "visual": "visual",
    "conditioner": "transformer",
    "denoiser": "transformer",
    "decoder": "decoder",
    "vocoder": "vocoder",
}
"""The network whose weights a graph reads."""


@dataclass(frozen=True)
class Networks:
    """All five, and the sizes they were built with. `decoder` may be a whole `Vae`."""

    config: NetworkConfig
    onset: OnsetNet
    visual: VisualNet
    transformer: MMDiT
    decoder: VaeDecoder
    vocoder: Vocoder

    @staticmethod
    def build(config: NetworkConfig) -> Networks:
        """Networks with start values; the caller's random generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            return Networks(
                config,
                OnsetNet(config.onset),
                VisualNet(config.visual),
                MMDiT(config),
                VaeDecoder(config.vae, config.latent_scale),
                make_vocoder(config),
            )

    def by_name(self) -> dict[str, nn.Module]:
        """The networks by the name of their weights file."""
        return {
            "onset": self.onset,
            "visual": self.visual,
            "transformer": self.transformer,
            "decoder": self.decoder,
            "vocoder": self.vocoder,
        }

    def graphs(self) -> dict[str, nn.Module]:
        """The six graphs, called with the names of their contracts."""
        return {
            "onset": self.onset,
            "visual": self.visual,
            "conditioner": Conditioner(self.transformer),
            "denoiser": Denoiser(self.transformer),
            "decoder": self.decoder,
            "vocoder": self.vocoder,
        }

    def fold(self) -> Networks:
        """Fold the batch norms (spec D7) and leave training mode, in place."""
        for net in self.by_name().values():
            fold_norms(net.eval().requires_grad_(False))
        return self


def make_vocoder(config: NetworkConfig) -> Vocoder:
    """The vocoder of a config, with start values."""
    sizes = config.vocoder
    return HifiGan(sizes) if isinstance(sizes, HifiGanConfig) else OscillatorVocoder(sizes)


def load_weights(net: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Copy `state` into `net`, or return every missing, unexpected or misshapen tensor and copy nothing."""
    own = net.state_dict()
    faults = [f"missing {key}" for key in own if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in own]
    faults += [
        f"{key}: expected shape {list(own[key].shape)}, got {list(value.shape)}"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    if not faults:
        net.load_state_dict(state)
    return faults
