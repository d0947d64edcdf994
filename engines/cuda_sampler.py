"""The sampler's whole loop on a device: modulation of all steps in one product, then step after step.

State, noise and step arithmetic are float32, whatever the weights are (spec B5, D1, D2).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.cuda_fp8 import fp8_denoiser, to_fp8
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.engines.window import Step

StepWork = Callable[[Tensor, Tensor, Tensor, Tensor, Step], Tensor]
"""Next latents [b, c, h, w] of latents, tokens [r, n, d], modulation [r, n_t, V, d], noise and a step; where
it is guided r is 2 b, the conditional rows first, else b."""


class Sampler:
    """A transformer with everything that sampling needs. `net` is brought into its form, in place."""

    def __init__(
        self,
        net: MMDiT,
        dtype: torch.dtype,
        fused: bool | None = None,
        in_fp8: bool = False,
        grouped: bool = True,
    ) -> None:
        """`fused` takes our kernels; None, where Triton is installed. `in_fp8` rounds the linear layers of
        blocks to 8 bits, and raises `EngineError` for a width that they do not take. `grouped` as for
        `FusedDenoiser`."""
        self.net, self.dtype = net, dtype
        self._weight, self._bias = one_product(net.modulation_layers(), dtype)
        for part in (net.x_embedder, net.joint_blocks, net.final_layer):
            part.to(dtype)  # the embedders of conditions run once, so they stay as they are
        if in_fp8:
            to_fp8(net)
        is_fused = find_spec("triton") is not None if fused is None else fused
        self.step: StepWork = fused_step(net, in_fp8, grouped) if is_fused else plain_step(net)
        net.pos_embed = net.pos_embed.to(dtype)

    def conditions(self, times: Tensor, onset: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Modulation [s, 2, n_t, V, d] and tokens [2, n, d] at `times` [s] of one window: of its conditions
        `onset` [1, values] and `features` [1, n, dim], then of the null ones."""
        c, null, tokens = self.net.embed(times, onset, features)
        both = torch.cat([c, null.expand(-1, -1, c.shape[2], -1)], 1)  # [s, 2, n_t, d]
        rows = torch.cat([tokens, torch.zeros_like(tokens)]).to(self.dtype)
        return self._vectors(both), rows

    def loop(self, modulation: Tensor, tokens: Tensor, noise: Tensor, steps: tuple[Step, ...]) -> Tensor:
        """Latents [takes, c, h, w] after all steps, given what `conditions` made.

        `noise` [k, takes, c, h, w] holds the start and then, in order, what the steps that spread it need.
        """
        takes, x, used = noise.shape[1], noise[0], 0
        of_rows = {n: tokens[:n].repeat_interleave(takes, 0) for n in (1, 2)}
        for i, step in enumerate(steps):
            n = 2 if step.guided else 1
            vectors = modulation[i, :n]
            vectors = vectors if takes == 1 else vectors.repeat_interleave(takes, 0)
            used += step.spread > 0
            x = self.step(x, of_rows[n], vectors, noise[used], step)
        return x

    def condition(self, times: Tensor, onset: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The conditioner's graph alone, for any number of windows."""
        c, null, tokens = self.net.embed(times, onset, features)
        return self._vectors(c), self._vectors(null), tokens

    def velocity(self, latents: Tensor, tokens: Tensor, modulation: Tensor) -> Tensor:
        """The denoiser's graph alone, for sampling step by step: float32 in and out."""
        conditions = tokens.to(self.dtype), modulation.to(self.dtype)
        return self.step(latents, *conditions, latents, Step(t=0.0, keep=0.0, push=1.0, spread=0.0))

    def _vectors(self, c: Tensor) -> Tensor:
        """All AdaLN vectors [..., V, d] of embeddings c [..., d]."""
        made = F.linear(F.silu(c).to(self.dtype), self._weight, self._bias)
        return made.reshape(*c.shape[:-1], self.net.config.modulation_vectors, self.net.config.width)


def n_noises(steps: tuple[Step, ...]) -> int:
    """Entries of the noise that `steps` need, the start included."""
    return 1 + sum(step.spread > 0 for step in steps)


def plain_step(net: MMDiT) -> StepWork:
    """Of the plain transformer."""

    def step(latents: Tensor, tokens: Tensor, modulation: Tensor, noise: Tensor, at: Step) -> Tensor:
        x = latents.repeat(len(tokens) // len(latents), 1, 1, 1).to(tokens.dtype)
        v = net.velocity(x, tokens, modulation).float()
        if at.guided:
            conditional, null = v.chunk(2)
            v = null + at.guidance * (conditional - null)
        return at.keep * latents + at.push * v + at.spread * noise

    return step


def fused_step(net: MMDiT, in_fp8: bool = False, grouped: bool = True) -> StepWork:
    """Of fused kernels; where they cannot run, of their references."""
    from taro_rt.engines.fused import FusedDenoiser
    from taro_rt.kernels.step import Update

    fused = fp8_denoiser(net) if in_fp8 else FusedDenoiser(net, grouped)

    def step(latents: Tensor, tokens: Tensor, modulation: Tensor, noise: Tensor, at: Step) -> Tensor:
        update = Update(at.keep, at.push, at.spread, at.guidance)
        return fused.step(latents, tokens, modulation, noise, update)

    return step


def one_product(layers: list[nn.Linear], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The weights of all `layers` in one, of which theirs become parts: nothing is stored twice."""
    weight = torch.cat([layer.weight.detach() for layer in layers]).to(dtype)
    bias = torch.cat([layer.bias.detach() for layer in layers]).to(dtype)
    first = 0
    for layer in layers:
        after = first + len(layer.weight)
        layer.weight = nn.Parameter(weight[first:after], requires_grad=False)
        layer.bias = nn.Parameter(bias[first:after], requires_grad=False)
        first = after
    return weight, bias
