"""Floating-point operations of every graph, counted from the sizes of its networks.

Only products of matrices and convolutions count, a multiplication and its addition as two; what is left,
norms, activations and sums, is a few per cent. No network is built for it.
"""

from __future__ import annotations

from itertools import pairwise

from taro_rt.engines.nets.config import HifiGanConfig, NetworkConfig, OscillatorConfig

FREQUENCIES = 256
"""Of the timestep embedding (spec B4)."""
GRAIN_SAMPLES, GRAINS_A_FRAME = 40, 4
"""Of the oscillator vocoder."""


def flops(config: NetworkConfig, graph: str, b: int = 1, s: int = 1, t: int = 0, n: int = 0) -> int:
    """Of one call of `graph` with `b` rows, `s` times, `t` frames and `n` context tokens.

    `t` and `n` are by default what a window of the bundle has.
    """
    t, n = t or config.visual.frames, n or config.visual.frames
    products = {
        "onset": lambda: b * _onset(config),
        "visual": lambda: b * t * _visual_frame(config),
        "conditioner": lambda: _conditioner(config, b, s, n),
        "denoiser": lambda: b * _denoiser(config, n),
        "decoder": lambda: b * _decoder(config),
        "vocoder": lambda: b * _vocoder(config),
    }[graph]()
    return 2 * products


def _halved(side: int) -> int:
    """After a kernel of stride 2 that is padded by half its width."""
    return (side - 1) // 2 + 1


def _onset(config: NetworkConfig) -> int:
    """Of a segment."""
    c, side = config.onset, _halved(config.onset.crop)
    total = side**2 * c.stem * (3 * 49 + 3 * c.widths[0])
    before = c.widths[0]
    for i, (width, count) in enumerate(zip(c.widths, c.blocks, strict=True)):
        side = side if i == 0 else _halved(side)
        for j in range(count):
            middle = (27 * before * width) // (9 * before + 3 * width)
            skip = before * width if before != width or (i > 0 and j == 0) else 0
            total += side**2 * (middle * (9 * before + 3 * width + 9 * width + 3 * width) + skip)
            before = width
    return (c.segment + 2 * c.margin) * total + c.segment * c.head * (c.widths[-1] + 1)


def _visual_frame(config: NetworkConfig) -> int:
    c = config.visual
    side = _halved(c.size)
    total, before = side**2 * 3 * 49 * c.stem, c.stem
    side = _halved(side)
    for i, (width, count) in enumerate(zip(c.widths, c.blocks, strict=True)):
        after, taps = width * c.expansion, 3 if i >= 2 else 1
        for j in range(count):
            first = side**2 * before * width * taps
            side = _halved(side) if i > 0 and j == 0 else side
            skip = before * after if j == 0 else 0
            total += first + side**2 * (9 * width**2 + width * after + skip)
            before = after
    return total + before * c.dim


def _conditioner(config: NetworkConfig, b: int, s: int, n: int) -> int:
    c = config.transformer
    d, rows = c.width, b * c.time_positions
    spread = b * c.onset_values * c.time_positions * c.onset_window if c.time_positions > 1 else 0
    embedded = s * (FREQUENCIES + d) * d + rows * (c.onset_window + d) * d + b * n * config.visual.dim * d
    return spread + embedded + s * (rows + 1) * c.modulation_vectors * d**2


def _denoiser(config: NetworkConfig, n: int) -> int:
    """Of a row with `n` context tokens; the last block makes only keys and values of the context."""
    c, g = config.transformer, config.geometry()
    d, patch = c.width, c.patch[0] * c.patch[1] * g.latent_channels
    m = (g.latent_frames // c.patch[0]) * (g.latent_bins // c.patch[1])
    block = 12 * d**2 * (m + n) + 2 * (m + n) ** 2 * d
    last = d**2 * (12 * m + 2 * n) + 2 * m * (m + n) * d
    return 2 * m * patch * d + (c.depth - 1) * block + last


def _decoder(config: NetworkConfig) -> int:
    c, g = config.vae, config.geometry()
    widths = [c.base * m for m in reversed(c.multipliers)]
    channels, top, places = c.latent_channels, widths[0], g.latent_frames * g.latent_bins
    total = places * (channels**2 + 9 * channels * top + 4 * 9 * top**2)
    if c.mid_attention:
        total += places * (4 * top**2 + 2 * places * top)
    for i, (before, width) in enumerate(pairwise([top, *widths])):
        for a in [before] + [width] * c.layers:
            total += places * (9 * a * width + 9 * width**2 + (a * width if a != width else 0))
        if i < len(widths) - 1:
            places *= 4
            total += places * 9 * width**2
    return total + places * 9 * widths[-1]


def _vocoder(config: NetworkConfig) -> int:
    c, length = config.vocoder, config.mel_frames
    return _hifigan(c, length) if isinstance(c, HifiGanConfig) else _oscillators(c, length)


def _hifigan(c: HifiGanConfig, length: int) -> int:
    total, width = length * c.mel_bins * c.channels * 7, c.channels
    for kernel, stride in zip(c.kernels, c.strides, strict=True):
        total += length * width * (width // 2) * kernel
        width //= 2
        length = (length - 1) * stride + kernel - 2 * ((kernel - stride) // 2)
        total += length * width**2 * 2 * len(c.dilations) * sum(c.resblock_kernels)
    return total + length * width * 7


def _oscillators(c: OscillatorConfig, frames: int) -> int:
    width, narrow, carriers = c.width, c.width // 2, c.mel_bins * c.per_bin
    grains = frames * GRAINS_A_FRAME
    a_frame = 7 * c.mel_bins * width + len(c.dilations) * 6 * width**2 + width * narrow * 2 * GRAINS_A_FRAME
    a_grain = 2 * 6 * narrow**2 + narrow * 2 * carriers + 2 * carriers * 2 * GRAIN_SAMPLES
    return frames * a_frame + grains * a_grain
