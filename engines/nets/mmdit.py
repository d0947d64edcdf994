"""MMDiT: the flow transformer with joint audio-visual attention and AdaLN modulation (spec B4).

One set of weights, two views: `Conditioner` makes everything that depends on the clip and on time (run once
per window), `Denoiser` maps latents to velocity (run once per step). The spec's null row is the conditioner's
`null_modulation` with zero tokens.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.config import NetworkConfig

EPS = 1e-6
FREQUENCIES = 256


class Modulation(NamedTuple):
    """AdaLN vectors of one half block, each [b, n, d] with a row per token (or one for all)."""

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
        self, context: Tensor, x: Tensor, context_mod: Tensor, x_mod: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`context` [b, n, d], `x` [b, m, d]; modulations [b, 1 | n, 2 | 6, d] and [b, 1 | m, 6, d]."""
        n = context.shape[1]
        shift, scale = context_mod.unbind(2)[:2]
        context_in = modulate(context, shift, scale)
        first, second = halves(x_mod)
        qkv_x = self.x_block.attn.qkv(modulate(x, first.shift, first.scale))
        if self.last:
            k_c, v_c = self.context_block.attn.keys_values(context_in)
            q, k_x, v_x = qkv_x.chunk(3, -1)
            attended = self._attend(q, torch.cat([k_c, k_x], 1), torch.cat([v_c, v_x], 1))
            return context, self._finish(self.x_block, x, attended, first.gate, second)
        qkv_c = self.context_block.attn.qkv(context_in)
        q, k, v = torch.cat([qkv_c, qkv_x], 1).chunk(3, -1)
        attended = self._attend(q, k, v)
        first_c, second_c = halves(context_mod)
        context = self._finish(self.context_block, context, attended[:, :n], first_c.gate, second_c)
        return context, self._finish(self.x_block, x, attended[:, n:], first.gate, second)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (s.unflatten(2, (self.heads, -1)).transpose(1, 2) for s in (q, k, v))  # [b, h, n, 64]
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    @staticmethod
    def _finish(block: StreamBlock, x: Tensor, attended: Tensor, gate: Tensor, second: Modulation) -> Tensor:
        x = x + gate * block.attn.proj(attended)
        return x + second.gate * block.mlp(modulate(x, second.shift, second.scale))


def halves(vectors: Tensor) -> tuple[Modulation, Modulation]:
    """The six vectors [b, n, 6, d] of a block as two shift-scale-gate triples."""
    parts = vectors.unbind(2)
    return Modulation(*parts[:3]), Modulation(*parts[3:])


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN(x)(1 + scale) + shift, equations (4) and (5)."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


class PatchEmbed(nn.Module):
    """Latents [b, c, h, w] to tokens [b, n, d], time-major."""

    def __init__(self, channels: int, width: int, patch: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, latents: Tensor) -> Tensor:
        return self.proj(latents).flatten(2).transpose(1, 2)


class Embedder(nn.Module):
    """Linear, SiLU, linear; key `mlp`."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class FinalLayer(nn.Module):
    """AdaLN and a linear to the values of a patch."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))


class MMDiT(nn.Module):
    """All weights of the transformer; `condition` and `velocity` are the two halves of its forward pass."""

    pos_embed: Tensor
    context_table: Tensor
    onset_windows: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        c, g = config.transformer, config.geometry()
        self.config, self.geometry = c, g
        self.grid = (g.latent_frames // c.patch[0], g.latent_bins // c.patch[1])
        self.x_embedder = PatchEmbed(g.latent_channels, c.width, c.patch)
        self.t_embedder = Embedder(FREQUENCIES, c.width)
        self.y_embedder = Embedder(c.onset_window, c.width)
        self.context_embedder = nn.Linear(g.visual_dim, c.width)
        self.joint_blocks = nn.ModuleList(
            JointBlock(c.width, c.heads, last=i == c.depth - 1) for i in range(c.depth)
        )
        self.final_layer = FinalLayer(c.width, g.latent_channels * c.patch[0] * c.patch[1])
        self.register_buffer("pos_embed", position_table(c.width, *self.grid).unsqueeze(0))
        seconds_per_row = g.latent_frames / self.grid[0] / g.latent_fps
        times = torch.arange(g.visual_frames, dtype=torch.float64) / g.visual_fps / seconds_per_row
        table = torch.cat([torch.zeros(len(times), c.width // 2), sincos(times, c.width // 2)], 1)
        self.register_buffer("context_table", table.unsqueeze(0), persistent=False)
        self.register_buffer("onset_windows", onset_windows(config), persistent=False)
        self._initialise()

    def condition(self, times: Tensor, onset: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Modulation [s, b, n_t, V, d] at `times` [s] for `onset` [b, 120]; the null row's [s, 1, 1, V, d];
        context tokens [b, n, d] for `features` [b, n, dim]."""
        t = self.t_embedder(timestep_features(times))[:, None, None]  # [s, 1, 1, d]
        y, tokens = self._embed(onset, features)
        return self._vectors(t + y), self._vectors(t), tokens

    def velocity(self, latents: Tensor, tokens: Tensor, modulation: Tensor) -> Tensor:
        """Velocity of `latents` [b, c, h, w], with `tokens` [b, n, d] and `modulation` [b, n_t, V, d]."""
        x = self.x_embedder(latents) + self.pos_embed
        context, n_blocks = tokens, len(self.joint_blocks)
        sizes = [6, 6] * (n_blocks - 1) + [2, 6, 2]  # context then x of each block, then the final layer
        *parts, final = modulation.split(sizes, dim=2)
        for i, block in enumerate(self.joint_blocks):
            context_mod = self._rows(parts[2 * i], context.shape[1])
            x_mod = self._rows(parts[2 * i + 1], x.shape[1])
            context, x = block(context, x, context_mod, x_mod)
        shift, scale = self._rows(final, x.shape[1]).unbind(2)
        return self._unpatchify(self.final_layer.linear(modulate(x, shift, scale)))

    def forward(
        self, latents: Tensor, times: Tensor, onset: Tensor, features: Tensor, keep: Tensor
    ) -> Tensor:
        """Velocity for training: one time per sample; `keep` [b] is 0 where both conditions are dropped
        (after embedding, spec B4)."""
        y, tokens = self._embed(onset, features)
        keep = keep[:, None, None]
        c = self.t_embedder(timestep_features(times)).unsqueeze(1) + keep * y
        return self.velocity(latents, keep * tokens, self._vectors(c))

    def _embed(self, onset: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded onsets [b, n_t, d] and context tokens [b, n, d]."""
        if self.config.time_positions > 1:
            onset = torch.matmul(onset, self.onset_windows).unflatten(1, (self.config.time_positions, -1))
        else:
            onset = onset.unsqueeze(1)
        tokens = self.context_embedder(features)
        if self.config.context_positions:
            tokens = tokens + self.context_table[:, : tokens.shape[1]]
        return self.y_embedder(onset), tokens

    def _vectors(self, c: Tensor) -> Tensor:
        """All AdaLN vectors [..., V, d] of embeddings c [..., d], in the order the denoiser reads them."""
        active = F.silu(c)
        vectors = torch.cat([layer(active) for layer in self._modulation_layers()], -1)
        return vectors.unflatten(-1, (self.config.modulation_vectors, self.config.width))

    def _modulation_layers(self) -> list[nn.Linear]:
        layers = []
        for (
            name,
            module,
        ) in self.named_modules():  # in order: context then x of each block, then the final layer
            if name.endswith("adaLN_modulation.1") and isinstance(module, nn.Linear):
                layers.append(module)
        return layers

    def _rows(self, vectors: Tensor, n_tokens: int) -> Tensor:
        """Spread [b, n_t, k, d] over tokens in time order; a single row serves all of them."""
        n_t = self.config.time_positions
        if n_t == 1:
            return vectors
        if n_tokens % n_t == 0:
            return vectors.repeat_interleave(n_tokens // n_t, dim=1)
        at = (torch.arange(n_tokens, device=vectors.device) * n_t) // n_tokens
        return vectors.index_select(1, at)

    def _unpatchify(self, values: Tensor) -> Tensor:
        h, w = self.grid
        p, q = self.config.patch
        grid = values.reshape(-1, h, w, p, q, self.geometry.latent_channels)
        return grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # [b, c, h*p, w*q]

    def _initialise(self) -> None:
        """Start values of spec B8."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for embedder in (self.t_embedder, self.y_embedder, self.context_embedder):
            for name, parameter in embedder.named_parameters():
                if name.endswith("weight"):
                    nn.init.normal_(parameter, std=0.02)
        for layer in self._modulation_layers():
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.final_layer.linear.weight)


class Conditioner(nn.Module):
    """The conditioner graph: (times, onset, features) to (modulation, null_modulation, tokens)."""

    def __init__(self, net: MMDiT) -> None:
        super().__init__()
        self.net = net

    def forward(self, times: Tensor, onset: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.net.condition(times, onset, features)


class Denoiser(nn.Module):
    """The denoiser graph: (latents, tokens, modulation) to velocity."""

    def __init__(self, net: MMDiT) -> None:
        super().__init__()
        self.net = net

    def forward(self, latents: Tensor, tokens: Tensor, modulation: Tensor) -> Tensor:
        return self.net.velocity(latents, tokens, modulation)


def timestep_features(times: Tensor) -> Tensor:
    """[cos(t f), sin(t f)] [s, 256] of times [s] in [0, 1], f_i = exp(-ln(10000) i / 128)."""
    half = FREQUENCIES // 2
    f = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=times.device) / half)
    angles = times[:, None] * f
    return torch.cat([torch.cos(angles), torch.sin(angles)], 1)


def sincos(positions: Tensor, width: int) -> Tensor:
    """[sin, cos] table [n, width] of float64 positions [n], omega_i = 10000^(-2 i / width)."""
    omega = 1 / 10000 ** (torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = positions[:, None] * omega
    return torch.cat([torch.sin(angles), torch.cos(angles)], 1).float()


def position_table(width: int, rows: int, columns: int) -> Tensor:
    """pos_embed [rows * columns, width]: the frequency position comes first (spec B4)."""
    h = torch.arange(rows, dtype=torch.float64).repeat_interleave(columns)
    w = torch.arange(columns, dtype=torch.float64).repeat(rows)
    return torch.cat([sincos(w, width // 2), sincos(h, width // 2)], 1)


def onset_windows(config: NetworkConfig) -> Tensor:
    """Interpolation matrix [onset values, n_t * window] of the frame-wise form: row i of the modulation sees
    the onset curve at its own centre and at multiples of `onset_step_s` around it."""
    c, g = config.transformer, config.geometry()
    if c.time_positions == 1:
        return torch.zeros(0)
    centre = (torch.arange(c.time_positions, dtype=torch.float64) + 0.5) * g.window_s / c.time_positions
    offset = (torch.arange(c.onset_window, dtype=torch.float64) - (c.onset_window - 1) / 2) * c.onset_step_s
    at = (centre[:, None] + offset).flatten() * g.onset_fps
    at = at.clamp(0, g.onset_values - 1)
    return torch.clamp(1 - (torch.arange(g.onset_values)[:, None] - at).abs(), min=0).float()
