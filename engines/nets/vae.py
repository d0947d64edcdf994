"""AutoencoderKL of AudioLDM2: log-mel to latents and back (spec B7). H is time, W is the mel bin."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.nets.config import VaeConfig

EPS = 1e-6


class ResidualBlock(nn.Module):
    """GN, SiLU, 3x3 twice, plus the input (through a 1x1 when the width changes)."""

    def __init__(self, width_in: int, width_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width_in, EPS)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width_out, EPS)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """Single-head attention over all positions, plus its input."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, EPS)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x).flatten(2).transpose(1, 2).unsqueeze(1)  # [b, 1, h*w, c]
        h = F.scaled_dot_product_attention(self.to_q(h), self.to_k(h), self.to_v(h))
        return x + self.to_out[0](h.squeeze(1)).transpose(1, 2).reshape(x.shape)


class MidBlock(nn.Module):
    """Residual, attention (if any), residual."""

    def __init__(self, width: int, config: VaeConfig) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(width, width, config.groups) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(width, config.groups)] if config.mid_attention else [])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class Downsample(nn.Module):
    """Zero row at the bottom, zero column at the right, then a 3x3 of stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest x2 in both axes, then a 3x3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, with `downsamplers` or `upsamplers` behind them."""

    def __init__(self, widths: list[int], groups: int, down: int, up: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(a, b, groups) for a, b in pairwise(widths))
        if down:
            self.downsamplers = nn.ModuleList([Downsample(widths[-1])])
        if up:
            self.upsamplers = nn.ModuleList([Upsample(widths[-1])])
        self.resamplers = [name for name, on in (("downsamplers", down), ("upsamplers", up)) if on]

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        for name in self.resamplers:
            x = getattr(self, name)[0](x)
        return x


class Encoder(nn.Module):
    """Log-mel [b, 1, m, bins] to moments [b, 2 * latent channels, m / 4, bins / 4]."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.base * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(1, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        before = widths[0]
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            self.down_blocks.append(
                Level([before] + [width] * config.layers, config.groups, down=not last, up=False)
            )
            before = width
        self.mid_block = MidBlock(before, config)
        self.conv_norm_out = nn.GroupNorm(config.groups, before, EPS)
        self.conv_out = nn.Conv2d(before, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents [b, c, h, w] to log-mel [b, 1, 4h, 4w]."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.base * m for m in reversed(config.multipliers)]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], config)
        self.up_blocks = nn.ModuleList()
        before = widths[0]
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            self.up_blocks.append(
                Level([before] + [width] * (config.layers + 1), config.groups, down=False, up=not last)
            )
            before = width
        self.conv_norm_out = nn.GroupNorm(config.groups, before, EPS)
        self.conv_out = nn.Conv2d(before, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class VaeDecoder(nn.Module):
    """The half that inference needs: sampler latents [b, c, h, w] to log-mel [b, 4h, 4w].

    Holds `post_quant_conv` and `decoder`; divides by the latent scale itself.
    """

    def __init__(self, config: VaeConfig, latent_scale: float) -> None:
        super().__init__()
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)
        self.decoder = Decoder(config)
        self.latent_scale = latent_scale

    def forward(self, latents: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latents / self.latent_scale)).squeeze(1)


class Vae(VaeDecoder):
    """Adds the encoder, which only training needs."""

    def __init__(self, config: VaeConfig, latent_scale: float) -> None:
        super().__init__(config, latent_scale)
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)

    def moments(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the unscaled latents, each [b, c, h, w], of log-mel [b, m, bins]."""
        mean, log_variance = self.quant_conv(self.encoder(mel.unsqueeze(1))).chunk(2, dim=1)
        return mean, torch.clamp(log_variance, -30.0, 20.0)

    def encode(self, mel: Tensor) -> Tensor:
        """Scaled posterior sample, the transformer's target (spec B8)."""
        mean, log_variance = self.moments(mel)
        return self.latent_scale * (mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean))
