"""The six graphs in the form that TensorRT deploys: static shapes, half precision but where it would hurt.

Inputs and outputs are float32 (`engines.static`). In half precision these stay float32:

- the conditioner, whole: time enters there, and it runs once a window;
- the sampler's state, step and guidance, and what AdaLN and the gates compute within;
- the visual features from the pooling on: the square of a norm is beyond half precision's range.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.blocks import JointBlock
from taro_rt.engines.nets.mmdit import Conditioner, MMDiT
from taro_rt.engines.nets.networks import Networks
from taro_rt.engines.nets.visual import VisualNet
from taro_rt.export.custom import (
    attend,
    attend_streams,
    gate_modulate,
    gate_modulate_streams,
    modulate_streams,
)

BLOCK, REDUCED = 12, 8
"""Vectors of a block in the modulation: six of each stream, or of the last block's context two."""


def deployed(networks: Networks, graph: str, dtype: torch.dtype, attention: bool = False) -> nn.Module:
    """The module of a graph, computing in `dtype`: a copy; `networks` are left as they are.

    With `attention` the denoiser's is a custom operator, too.
    """
    if graph == "visual":
        return Visual(networks.visual, dtype)
    if graph == "conditioner":
        return Conditioner(copy.deepcopy(networks.transformer).float())
    if graph == "denoiser":
        return Stepped(networks.transformer, dtype, attention)
    kinds = {"onset": Onset, "decoder": Decoder, "vocoder": Vocoder}
    return kinds[graph](networks.by_name()[graph], dtype)


class Plain(nn.Module):
    """A network of one input and one output, computing in `dtype`; subclasses name the input."""

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = copy.deepcopy(net).to(dtype), dtype

    def _run(self, given: Tensor) -> Tensor:
        made: Tensor = self.net(given.to(self.dtype))
        return made.float()


class Onset(Plain):
    """The onset network."""

    def forward(self, frames: Tensor) -> Tensor:
        return self._run(frames)


class Decoder(Plain):
    """The VAE decoder."""

    def forward(self, latents: Tensor) -> Tensor:
        return self._run(latents)


class Vocoder(Plain):
    """Either vocoder."""

    def forward(self, mel: Tensor) -> Tensor:
        return self._run(mel)


class Visual(nn.Module):
    """The visual network with float32 from the pooling on."""

    def __init__(self, net: VisualNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(net.video_encoder).to(dtype)
        self.head, self.dtype = copy.deepcopy(net.video_project_head).float(), dtype

    def forward(self, frames: Tensor) -> Tensor:
        maps = self.encoder(frames.to(self.dtype)).float().mean(dim=(3, 4))  # [b, c, t]
        return F.normalize(self.head(maps.transpose(1, 2)), dim=2, eps=1e-12)


class Stepped(nn.Module):
    """The denoiser to the end of a step; AdaLN, gates, residuals, on demand attention are custom operators.

    Called in PyTorch these give zeros: this module is for export only.
    """

    def __init__(self, net: MMDiT, dtype: torch.dtype, attention: bool = False) -> None:
        super().__init__()
        self.net, self.dtype = copy.deepcopy(net).to(dtype), dtype
        self.attention = attention

    def forward(
        self, latents: Tensor, tokens: Tensor, modulation: Tensor, noise: Tensor, update: Tensor, mix: Tensor
    ) -> Tensor:
        """Shapes as in `static_contracts`."""
        half = (part.to(self.dtype) for part in (latents, tokens, modulation))
        made = self.net.final_layer.linear(self._tokens(*half)).float()
        v = self.net.unpatchify(made)
        v = (mix[:, :, None, None, None] * v[None]).sum(1)
        keep, push, spread = update.unbind()
        return keep * latents + push * v + spread * noise

    def _tokens(self, latents: Tensor, context: Tensor, modulation: Tensor) -> Tensor:
        """x after all blocks [b, m, d], modulated for the final linear."""
        net, blocks = self.net, cast(list[JointBlock], list(self.net.joint_blocks))
        x = net.x_embedder(latents) + net.pos_embed
        shifts = _shifts(0, blocks[0].last)
        context_in, x_in = modulate_streams(context, x, modulation, list(shifts))
        for i, block in enumerate(blocks):
            of_context, of_x = _shifts(i, block.last)
            ours, theirs = block.x_block, block.context_block
            qkv_x = ours.attn.qkv(x_in)
            if block.last:  # nothing reads the context any more
                attended = self._attend(block, *theirs.attn.keys_values(context_in), qkv_x)
                x, x_in = gate_modulate(x, ours.attn.proj(attended), modulation, [of_x + 2, of_x + 3])
                after = [of_x + 5, BLOCK * i + REDUCED]
                return gate_modulate(x, ours.mlp(x_in), modulation, after)[1]
            of_both = self._attend_streams(block, theirs.attn.qkv(context_in), qkv_x)
            updates = [theirs.attn.proj(of_both[0]), ours.attn.proj(of_both[1])]
            at = [of_context + 2, of_context + 3, of_x + 2, of_x + 3]
            context, x, context_in, x_in = gate_modulate_streams([context, x, *updates], modulation, at)
            following = _shifts(i + 1, blocks[i + 1].last)
            at = [of_context + 5, following[0], of_x + 5, following[1]]
            updates = [theirs.mlp(context_in), ours.mlp(x_in)]
            context, x, context_in, x_in = gate_modulate_streams([context, x, *updates], modulation, at)
        raise AssertionError("the last block is marked as such")

    def _attend_streams(self, block: JointBlock, context: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """What both streams attend to [b, n, d] and [b, m, d], from their projections."""
        if self.attention:
            return attend_streams(context, x, block.heads)
        attended, n = block.attend(*torch.cat([context, x], 1).chunk(3, -1)), context.shape[1]
        return attended[:, :n], attended[:, n:]

    def _attend(self, block: JointBlock, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
        """What x attends to [b, m, d]; `k` and `v` are the context's."""
        if self.attention:
            return attend(torch.cat([k, v], -1), x, block.heads)
        q, k_x, v_x = x.chunk(3, -1)
        return block.attend(q, torch.cat([k, k_x], 1), torch.cat([v, v_x], 1))


def _shifts(i: int, last: bool) -> tuple[int, int]:
    """The first shifts of block i, context's and x's."""
    return BLOCK * i, BLOCK * i + (2 if last else 6)
