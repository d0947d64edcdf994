"""A step of the denoiser from fused kernels (spec B4), both streams in every launch.

A block is seven launches: qkv, attention, output projection, gate with norm and modulation, MLP with GELU,
its second layer, gate with norm and the next modulation. The last launch of a step makes the next latents.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.blocks import JointBlock
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.kernels.attention import joint_attention
from taro_rt.kernels.linear import linear_streams, linear_streams_reference
from taro_rt.kernels.rows import Vectors, gate_modulate_streams, modulate_streams
from taro_rt.kernels.step import Update, finish_step

BLOCK, REDUCED = 12, 8
"""Vectors of a block in a step's modulation: six of each stream, or of the last block's context two."""


class FusedDenoiser:
    """`MMDiT.velocity` and the sampler's update in one.

    Weights are those of `net`, in its type and on its device at construction. With `grouped` the layers of
    both streams are one launch of ours, else two products of cuBLAS, 5 % slower on an H200 (before
    the copy engine brought tiles).
    """

    def __init__(self, net: MMDiT, grouped: bool = True) -> None:
        self._net = net
        self._linear = linear_streams if grouped else linear_streams_reference
        self._blocks = [block for block in net.joint_blocks if isinstance(block, JointBlock)]
        self._places = [self._places_of(i) for i in range(len(self._blocks))]
        proj = net.x_embedder.proj
        assert proj.bias is not None
        self._patch_weight = proj.weight.flatten(1)  # [d, c p q]
        self._patch_table = (net.pos_embed[0] + proj.bias.float()).to(proj.weight.dtype).detach()  # [m, d]

    def step(
        self, latents: Tensor, tokens: Tensor, modulation: Tensor, noise: Tensor, update: Update
    ) -> Tensor:
        """The latents after a step [b, c, h, w], float32.

        `tokens` [b, n, d] and `modulation` [b, n_t, V, d] are the conditions in the weights' type; with
        guidance they are twice as many, the conditional rows first.
        """
        final = self._net.final_layer.linear
        x = self._embedded(latents).repeat(len(tokens) // len(latents), 1, 1)
        made = self._last_tokens(x, tokens, modulation)
        patch = list(self._net.config.patch)
        return finish_step(made, final.weight, final.bias, latents, noise, patch, update)

    def _embedded(self, latents: Tensor) -> Tensor:
        """The patches of `latents` as tokens with their positions [b, m, d]."""
        (batch, channels, _, _), (h, w), (p, q) = latents.shape, self._net.grid, self._net.config.patch
        patches = latents.view(batch, channels, h, p, w, q).permute(0, 2, 4, 1, 3, 5)
        flat = patches.to(self._patch_weight.dtype).reshape(batch, h * w, -1)
        return F.linear(flat, self._patch_weight) + self._patch_table

    def _last_tokens(self, x: Tensor, context: Tensor, modulation: Tensor) -> Tensor:
        """x after all blocks [b, m, d], modulated for the final linear."""
        heads = self._net.config.heads
        context_in, x_in = modulate_streams(context, x, modulation, self._places[0])
        for i, block in enumerate(self._blocks):
            ours, last = block.x_block, block.last
            theirs = ours if last else block.context_block  # no context, no weights of it are read
            qkv_context = _keys_values(block.context_block.attn.qkv) if last else _layer(theirs.attn.qkv)
            qkv, qkv_x = self._linear(context_in, x_in, qkv_context, _layer(ours.attn.qkv))
            attended, attended_x = joint_attention(qkv, qkv_x, heads)
            if last:  # nothing reads the context any more
                context = context[:, :0]
            update, update_x = self._linear(
                attended, attended_x, _layer(theirs.attn.proj), _layer(ours.attn.proj)
            )
            context, x, context_in, x_in = gate_modulate_streams(
                context, x, update, update_x, modulation, self._halfway(i)
            )
            hidden, hidden_x = self._linear(
                context_in, x_in, _layer(theirs.mlp.fc1), _layer(ours.mlp.fc1), gelu=True
            )
            update, update_x = self._linear(hidden, hidden_x, _layer(theirs.mlp.fc2), _layer(ours.mlp.fc2))
            context, x, context_in, x_in = gate_modulate_streams(
                context, x, update, update_x, modulation, self._after(i)
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


def _layer(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    return layer.weight, layer.bias


def _keys_values(qkv: nn.Linear) -> tuple[Tensor, Tensor]:
    """The part of a projection that makes keys and values."""
    width = qkv.in_features
    return qkv.weight[width:], qkv.bias[width:]


def update_of(t: float, t_next: float, spread: float, guidance: float = 1.0) -> Update:
    """The Euler-Maruyama step of the linear path (spec D1): drift (2 - t) v + x, and noise of `spread`."""
    dt = t_next - t
    return Update(1 + dt, dt * (2 - t), spread, guidance)
