"""A step of the denoiser from fused kernels: of the plain transformer only the products of matrices stay.

A block is two products and a launch for attention, two launches for gates, residuals, norms and modulation of
both streams, and the products of the two MLPs; the last launch of a step ends in the next latents.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from taro_rt.engines.nets.blocks import StreamBlock
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.kernels.attention import joint_attention
from taro_rt.kernels.rows import Vectors, gate_modulate_streams, modulate_streams
from taro_rt.kernels.step import Update, finish_step

BLOCK, REDUCED = 12, 8
"""Vectors of a block in a step's modulation: six of each stream, or of the last block's context two."""


class FusedDenoiser:
    """`MMDiT.velocity` and the sampler's update in one. Weights are those of `net`, in its type."""

    def __init__(self, net: MMDiT) -> None:
        self._net = net
        self._blocks = list(net.joint_blocks)
        self._places = [self._places_of(i) for i in range(len(self._blocks))]

    def step(
        self, latents: Tensor, tokens: Tensor, modulation: Tensor, noise: Tensor, update: Update
    ) -> Tensor:
        """The latents after a step [b, c, h, w], float32.

        `tokens` [b, n, d] and `modulation` [b, n_t, V, d] are the conditions in the weights' type; with
        guidance they are twice as many, the conditional rows first.
        """
        final = self._net.final_layer.linear
        made = self._last_tokens(latents.repeat(len(tokens) // len(latents), 1, 1, 1), tokens, modulation)
        patch = list(self._net.config.patch)
        return finish_step(made, final.weight, final.bias, latents, noise, patch, update)

    def _last_tokens(self, latents: Tensor, context: Tensor, modulation: Tensor) -> Tensor:
        """x after all blocks [b, m, d], modulated for the final linear."""
        net, heads = self._net, self._net.config.heads
        x = net.x_embedder(latents.to(context.dtype)) + net.pos_embed.to(context.dtype)
        context_in, x_in = modulate_streams(context, x, modulation, self._places[0])
        for i, block in enumerate(self._blocks):
            ours, theirs = block.x_block, block.context_block
            keys = _keys_values(theirs, context_in) if block.last else theirs.attn.qkv(context_in)
            attended, attended_x = joint_attention(keys, ours.attn.qkv(x_in), heads)
            if block.last:  # nothing reads the context any more
                context = context[:, :0]
                update = context
            else:
                update = theirs.attn.proj(attended)
            context, x, context_in, x_in = gate_modulate_streams(
                context, x, update, ours.attn.proj(attended_x), modulation, self._halfway(i)
            )
            update = context if block.last else theirs.mlp(context_in)
            context, x, context_in, x_in = gate_modulate_streams(
                context, x, update, ours.mlp(x_in), modulation, self._after(i)
            )
        return x_in

    def _places_of(self, i: int) -> Vectors:
        """The first shifts of block i, context's and x's."""
        return Vectors(BLOCK * i, BLOCK * i + (2 if self._blocks[i].last else 6))

    def _halfway(self, i: int) -> Vectors:
        """The gates after attention, and the shifts before the MLPs."""
        context, x = self._places[i][:2]
        if self._blocks[i].last:
            return Vectors(0, x + 3, 0, x + 2)
        return Vectors(context + 3, x + 3, context + 2, x + 2)

    def _after(self, i: int) -> Vectors:
        """The gates after the MLPs, and the first shifts of what follows."""
        context, x = self._places[i][:2]
        if self._blocks[i].last:
            return Vectors(0, BLOCK * i + REDUCED, 0, x + 5)
        return Vectors(*self._places[i + 1][:2], context + 5, x + 5)


def _keys_values(block: StreamBlock, x: Tensor) -> Tensor:
    """Keys and values side by side [b, n, 2 d]."""
    qkv, width = block.attn.qkv, x.shape[-1]
    return F.linear(x, qkv.weight[width:], qkv.bias[width:])


def update_of(t: float, t_next: float, spread: float, guidance: float = 1.0) -> Update:
    """The Euler-Maruyama step of the linear path (spec D1): drift (2 - t) v + x, and noise of `spread`."""
    dt = t_next - t
    return Update(1 + dt, dt * (2 - t), spread, guidance)
