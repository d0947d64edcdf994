"""The released script's own way of computing, in plain PyTorch: row one of every benchmark.

Transformer in bfloat16 and everything else in float32, modulation made anew at every step, the alignment head
run and thrown away, five onset segments and forty visual frames whatever is kept. What is ours is in its
favour: convolutions with their norms folded, no queries of the last block's context, one pass of decoding,
when it is timed a sampler in float32, and float32 throughout where bfloat16 would be hundreds of times
slower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from taro_rt.engines.backends import Choice, Engine, Engines
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array, Contract
from taro_rt.engines.eager import EagerEngine, load_networks
from taro_rt.engines.errors import OptionsError
from taro_rt.engines.machine import usable_cores
from taro_rt.engines.nets.config import PUBLISHED, NetworkConfig
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.engines.watch import Watch


@dataclass(frozen=True)
class Head:
    """Sizes of the alignment head that a transformer was trained with."""

    block: int
    """It sits on top of this one, counted from 1."""
    tokens: int
    """Of the audio encoder that training aligns to."""
    hidden: int
    width: int
    """Of one of those tokens."""


PUBLISHED_HEAD = Head(block=4, tokens=416, hidden=2048, width=768)
"""Spec B8."""
SMALL_HEAD = Head(block=2, tokens=204, hidden=384, width=128)
"""That of the embedded bundle's training."""


def head_of(config: NetworkConfig) -> Head:
    """The head that goes with a transformer of this size."""
    published = config.transformer.width >= PUBLISHED.transformer.width
    return PUBLISHED_HEAD if published else SMALL_HEAD


@dataclass(frozen=True)
class Recipe:
    """What the released script computes beyond need; each part can be left out, and nothing else changes.

    Raises `OptionsError` for the head without modulation at every step: it sits in the whole transformer.
    """

    alignment_head: bool = True
    modulation_every_step: bool = True
    surplus: bool = True
    """The fifth onset segment, and visual frames beyond those that are kept."""

    def __post_init__(self) -> None:
        if self.alignment_head and not self.modulation_every_step:
            raise OptionsError(
                "recipe: expected no alignment head where modulation is made once, got both; leave it out"
            )


class ReleasedTransformer(nn.Module):
    """`net` as the released script calls it: everything in every call, and the head on top of its block."""

    def __init__(self, net: MMDiT, head: Head | None) -> None:
        super().__init__()
        self.net, self._hidden = net, torch.zeros(0)
        self.projectors = nn.Sequential()
        if head:
            self.projectors = nn.Sequential(
                nn.Conv1d(net.grid[0] * net.grid[1], head.tokens, 1),
                nn.SiLU(),
                nn.Linear(net.config.width, head.hidden),
                nn.SiLU(),
                nn.Linear(head.hidden, head.hidden),
                nn.SiLU(),
                nn.Linear(head.hidden, head.width),
            )
            block = net.joint_blocks[min(head.block, net.config.depth) - 1]
            block.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, outputs: tuple[Tensor, Tensor]) -> None:
        self._hidden = outputs[1]

    def forward(
        self, latents: Tensor, times: Tensor, onset: Tensor, features: Tensor, keep: Tensor
    ) -> Tensor:
        """As `MMDiT.forward`."""
        velocity: Tensor = self.net(latents, times, onset, features, keep)
        if len(self.projectors):
            self.projectors(self._hidden)
        return velocity


class PassingConditioner:
    """Hands times and conditions on to `EveryStepDenoiser` within the tensors of its contract."""

    backend = "eager"

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Modulation holds time, 1 and onset; null modulation time, 0 and nothing; tokens the features."""
        self.contract.check(inputs)
        times, onset, features = inputs["times"], inputs["onset"], inputs["features"]
        n_t, *vectors = (int(n) for n in self.contract.outputs[0].shape[2:])
        width = int(self.contract.outputs[2].shape[2])
        handed = np.zeros((len(times), len(onset), n_t, int(np.prod(vectors))), np.float32)
        null = np.zeros((len(times), 1, 1, handed.shape[3]), np.float32)
        handed[..., 0] = null[..., 0] = times[:, None, None]
        handed[..., 1] = 1
        handed[..., 2 : 2 + onset.shape[1]] = onset[None, :, None]
        tokens = np.zeros((*features.shape[:2], width), np.float32)
        tokens[..., : features.shape[2]] = features
        return {
            "modulation": handed.reshape(*handed.shape[:3], *vectors),
            "null_modulation": null.reshape(*null.shape[:3], *vectors),
            "tokens": tokens,
        }

    def close(self) -> None:
        """Nothing to give back."""


class EveryStepDenoiser:
    """The whole transformer at every step, modulation included."""

    backend = "eager"

    def __init__(self, module: ReleasedTransformer, contract: Contract) -> None:
        self.contract = contract
        self._module: ReleasedTransformer | None = module

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """The velocity, for what `PassingConditioner` made."""
        self.contract.check(inputs)
        assert self._module is not None
        g, handed = self._module.net.geometry, inputs["modulation"][:, 0].reshape(len(inputs["latents"]), -1)
        parts = (
            inputs["latents"],
            handed[:, 0],
            handed[:, 2 : 2 + g.onset_values],
            inputs["tokens"][..., : g.visual_dim],
            handed[:, 1],
        )
        dtype = self._module.net.pos_embed.dtype
        with torch.inference_mode():
            feed = [torch.from_numpy(np.ascontiguousarray(part)).to(dtype) for part in parts]
            return {"velocity": self._module(*feed).float().numpy()}

    def close(self) -> None:
        """Let the weights go."""
        self._module = None


class SurplusOnset(nn.Module):
    """Runs one segment more for every window's worth of them."""

    def __init__(self, net: nn.Module, n_kept: int) -> None:
        super().__init__()
        self.net, self._n_kept, self._n_calls = net, n_kept, 0

    def forward(self, frames: Tensor) -> Tensor:
        self._n_calls += 1
        if self._n_calls % self._n_kept == 0:
            self.net(frames)
        logits: Tensor = self.net(frames)
        return logits


class SurplusVisual(nn.Module):
    """Encodes as many frames as a clip of ten seconds has; the last one is repeated."""

    def __init__(self, net: nn.Module, n_encoded: int) -> None:
        super().__init__()
        self.net, self._n_encoded = net, n_encoded

    def forward(self, frames: Tensor) -> Tensor:
        t = frames.shape[2]
        last = frames[:, :, -1:].expand(-1, -1, max(0, self._n_encoded - t), -1, -1)
        features: Tensor = self.net(torch.cat([frames, last], 2))
        return features[:, :t]


def load_released(
    bundle: Bundle, recipe: Recipe | None = None, threads: int | None = None, precision: str = "bfloat16"
) -> Engines:
    """The bundle's networks computed as `recipe` says, through the same contracts as every backend.

    `precision` is the transformer's, "bfloat16" or "float32". Raises `BundleError` for weights that do not
    fit.
    """
    recipe = recipe or Recipe()
    if n_threads := threads or usable_cores():
        torch.set_num_threads(n_threads)
    networks, contracts, g = load_networks(bundle), bundle.contracts(), bundle.manifest.geometry
    dtype: torch.dtype = getattr(torch, precision)
    transformer = _in(dtype, networks.transformer)
    modules = networks.graphs()
    if recipe.surplus:
        modules["onset"] = SurplusOnset(modules["onset"], g.onset_values // g.onset_segment)
        modules["visual"] = SurplusVisual(modules["visual"], g.visual_encode)
    engines: dict[str, Engine] = {
        name: EagerEngine(module, contracts[name]) for name, module in modules.items()
    }
    if recipe.modulation_every_step:
        head = head_of(bundle.manifest.networks) if recipe.alignment_head else None
        whole = ReleasedTransformer(transformer, head).to(dtype)
        engines["conditioner"] = PassingConditioner(contracts["conditioner"])
        engines["denoiser"] = EveryStepDenoiser(whole, contracts["denoiser"])
    return Engines(**engines, window=None, choice=Choice("eager", precision, "as released"), watch=Watch())


def _in(dtype: torch.dtype, net: MMDiT) -> MMDiT:
    net.to(dtype)
    # the features of a time are float32 whatever the network is
    net.t_embedder.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
    return net
