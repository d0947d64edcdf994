"""MMDiT: the flow transformer with joint audio-visual attention and AdaLN modulation (spec B4).

One set of weights, two views: `Conditioner` makes everything that depends on the clip and on time (run once
per window), `Denoiser` maps latents to velocity (run once per step). The spec's null row is the conditioner's
`null_modulation` with zero tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.blocks import JointBlock, modulate
from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.engines.nets.tables import (
    FREQUENCIES,
    onset_windows,
    position_table,
    sincos,
    timestep_features,
)


class PatchEmbed(nn.Module):
    """Latents [b, c, h, w] to tokens [b, n, d], time-major.

    A convolution that moves by its own size is one product of matrices, and is computed as that: as a
    bfloat16 convolution of 8 or 16 channels with a wide kernel it comes out wrong on processors with AMX
    (oneDNN 3.12, which PyTorch and OpenVINO both use).
    """

    def __init__(self, channels: int, width: int, patch: tuple[int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, latents: Tensor) -> Tensor:
        b, c, h, w = latents.shape
        p, q = self.proj.weight.shape[2:]
        grid = latents.reshape(b, c, h // p, p, w // q, q)
        patches = grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # [b, n, c p q]
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


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
        c, t, tokens = self.embed(times, onset, features)
        return self._vectors(c), self._vectors(t), tokens

    def embed(self, times: Tensor, onset: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What modulation is made of: [s, b, n_t, d], the null row's [s, 1, 1, d]; and context tokens."""
        t = self.t_embedder(timestep_features(times))[:, None, None]
        y, tokens = self._embed(onset, features)
        return t + y, t, tokens

    def velocity(self, latents: Tensor, tokens: Tensor, modulation: Tensor) -> Tensor:
        """Velocity of `latents` [b, c, h, w], with `tokens` [b, n, d] and `modulation` [b, n_t, V, d]."""
        x = self.x_embedder(latents) + self.pos_embed
        context, n_blocks = tokens, len(self.joint_blocks)
        # taken in their order: context's and x's of each block, then the final layer's; each [b, n_t, d]
        vectors = iter(modulation.unbind(2))
        for i, block in enumerate(self.joint_blocks):
            context_mod = self._rows(islice(vectors, 6 if i < n_blocks - 1 else 2), context.shape[1])
            x_mod = self._rows(islice(vectors, 6), x.shape[1])
            context, x = block(context, x, context_mod, x_mod)
        shift, scale = self._rows(vectors, x.shape[1])
        return self.unpatchify(self.final_layer.linear(modulate(x, shift, scale)))

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
        vectors = torch.cat([layer(active) for layer in self.modulation_layers()], -1)
        return vectors.unflatten(-1, (self.config.modulation_vectors, self.config.width))

    def modulation_layers(self) -> list[nn.Linear]:
        """Context's and x's of each block, then the final layer's: in the order of the vectors."""
        layers = []
        for name, module in self.named_modules():
            if name.endswith("adaLN_modulation.1") and isinstance(module, nn.Linear):
                layers.append(module)
        return layers

    def _rows(self, vectors: Iterable[Tensor], n_tokens: int) -> list[Tensor]:
        """Vectors [b, n_t, d] as `Modulation` has them: if rows do not go into tokens, each token's own."""
        n_t = self.config.time_positions
        if n_t == 1 or n_tokens % n_t == 0:
            return list(vectors)
        at = (torch.arange(n_tokens, device=self.pos_embed.device) * n_t) // n_tokens
        return [vector.index_select(1, at) for vector in vectors]

    def unpatchify(self, values: Tensor) -> Tensor:
        """Values of patches [b, m, p q c] to latents [b, c, h, w]."""
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
        for layer in self.modulation_layers():
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
