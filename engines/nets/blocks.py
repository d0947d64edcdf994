"""The joint block of the transformer (spec B4): two streams of their own weights, one attention over both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6


class Modulation(NamedTuple):
    """AdaLN vectors of one half block, each [b, r, d]: a row for every n / r of n tokens, in their order."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


class Attention(nn.Module):
    """Projections of one stream; the attention itself is joint (see `JointBlock`)."""

    def __init__(self, width: int, output: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        if output:
            self.proj = nn.Linear(width, width)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [b, n, d] alone: the queries of the last context feed nothing (spec D5)."""
        width = x.shape[-1]
        k, v = F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:]).chunk(2, -1)
        return k, v


class Mlp(nn.Module):
    """Linear, GELU (tanh form), linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class StreamBlock(nn.Module):
    """Weights of one stream in one block. A reduced one only provides keys and values."""

    def __init__(self, width: int, reduced: bool = False) -> None:
        super().__init__()
        self.n_vectors = 2 if reduced else 6
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, self.n_vectors * width))
        self.attn = Attention(width, output=not reduced)
        if not reduced:
            self.mlp = Mlp(width)


class JointBlock(nn.Module):
    """Both streams attend over [context, x] together (spec B4)."""

    def __init__(self, width: int, heads: int, last: bool) -> None:
        super().__init__()
        self.context_block = StreamBlock(width, reduced=last)
        self.x_block = StreamBlock(width)
        self.heads, self.last = heads, last

    def forward(
        self, context: Tensor, x: Tensor, context_mod: Sequence[Tensor], x_mod: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """`context` [b, n, d], `x` [b, m, d]; modulations are 2 or 6, and 6 vectors, see `Modulation`."""
        n = context.shape[1]
        shift, scale = context_mod[:2]
        context_in = modulate(context, shift, scale)
        first, second = halves(x_mod)
        qkv_x = self.x_block.attn.qkv(modulate(x, first.shift, first.scale))
        if self.last:
            k_c, v_c = self.context_block.attn.keys_values(context_in)
            q, k_x, v_x = qkv_x.chunk(3, -1)
            attended = self.attend(q, torch.cat([k_c, k_x], 1), torch.cat([v_c, v_x], 1))
            return context, self._finish(self.x_block, x, attended, first.gate, second)
        qkv_c = self.context_block.attn.qkv(context_in)
        q, k, v = torch.cat([qkv_c, qkv_x], 1).chunk(3, -1)
        attended = self.attend(q, k, v)
        first_c, second_c = halves(context_mod)
        context = self._finish(self.context_block, context, attended[:, :n], first_c.gate, second_c)
        return context, self._finish(self.x_block, x, attended[:, n:], first.gate, second)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of `heads` heads over tokens [b, n, d]."""
        q, k, v = (s.unflatten(2, (self.heads, -1)).transpose(1, 2) for s in (q, k, v))  # [b, h, n, 64]
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    @staticmethod
    def _finish(block: StreamBlock, x: Tensor, attended: Tensor, gate: Tensor, second: Modulation) -> Tensor:
        x = x + gated(block.attn.proj(attended), gate)
        return x + gated(block.mlp(modulate(x, second.shift, second.scale)), second.gate)


def halves(vectors: Sequence[Tensor]) -> tuple[Modulation, Modulation]:
    """The six vectors of a block as two shift-scale-gate triples."""
    return Modulation(*vectors[:3]), Modulation(*vectors[3:])


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN(x)(1 + scale) + shift, equations (4) and (5), for `Modulation` of x [b, n, d]."""
    normed = F.layer_norm(x, x.shape[-1:], eps=EPS)
    if is_plain(x, scale):
        return normed * (1 + scale) + shift
    return (by_row(normed, scale) * (1 + scale.unsqueeze(2)) + shift.unsqueeze(2)).flatten(1, 2)


def gated(x: Tensor, gate: Tensor) -> Tensor:
    """gate x, for a `Modulation` of x [b, n, d]."""
    return gate * x if is_plain(x, gate) else (gate.unsqueeze(2) * by_row(x, gate)).flatten(1, 2)


def is_plain(x: Tensor, rows: Tensor) -> bool:
    """Whether there is one row for all tokens or one for each, as broadcasting has it."""
    return rows.shape[1] == 1 or rows.shape[1] == x.shape[1]


def by_row(x: Tensor, rows: Tensor) -> Tensor:
    """Tokens [b, n, d] by the row that is theirs [b, r, n / r, d]: rows are never written out per token."""
    return x.unflatten(1, (rows.shape[1], -1))
