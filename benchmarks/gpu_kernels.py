"""The kernel table of gpu.py: what each launch of a step takes, beside what the device can do at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from gpu_work import Record, Work, attempted, kernel_seconds
from torch import nn

from taro_rt.engines.cuda_nets import rewrite
from taro_rt.engines.flops import flops
from taro_rt.engines.nets.config import HifiGanConfig
from taro_rt.engines.nets.hifigan import HifiGan

Call = Callable[[], Any]


def ceilings(work: Work) -> Record:
    """TFLOP/s of a large product in bfloat16, GB/s of a large copy (read plus written)."""
    plan, side = work.plan, work.plan.gemm_side
    a, b = (torch.randn(side, side, device=plan.device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    product = kernel_seconds(lambda: torch.mm(a, b, out=out), plan.device, calls=4)
    source = torch.ones(plan.copy_bytes // 4, device=plan.device)
    target = torch.empty_like(source)
    copy = kernel_seconds(lambda: target.copy_(source), plan.device, calls=4)
    return {
        "gemm_tflops": float(f"{2e-12 * side**3 / product:.4g}"),  # not 0.00 where bfloat16 is emulated
        "gemm_side": side,
        "copy_gb_s": round(2e-9 * plan.copy_bytes / copy, 1),
        "copied_bytes": plan.copy_bytes,
    }


def table(work: Work, most: Record) -> Iterator[Record]:
    """Every kind of launch, unguided (one row) and guided (two), then the choices there were for some."""
    if not find_spec("triton"):
        yield {"name": "all kernels", "missing": "triton is not installed"}
        return
    for rows in (1, 2):
        for name, *cost, call in chain(_calls(work, rows), _choices(work, rows)):
            made = attempted(lambda cost=cost, call=call: _measured(work, most, *cost, call))
            yield {"name": name, "rows": rows, **made}


def _measured(work: Work, most: Record, flop: float, n_bytes: float, call: Call) -> Record:
    seconds = kernel_seconds(call, work.plan.device)
    bandwidth = 1e-9 * n_bytes / seconds
    row: Record = {"us": round(1e6 * seconds, 2), **(_rate(flop, seconds, most) if flop else {})}
    return {**row, "gb_s": round(bandwidth, 1), "of_copy": round(bandwidth / most["copy_gb_s"], 3)}


def _rate(flop: float, seconds: float, most: Record) -> Record:
    rate = 1e-12 * flop / seconds
    return {"tflops": round(rate, 2), "of_gemm": round(rate / most["gemm_tflops"], 3)}


def vocoders(work: Work, most: Record) -> Iterator[Record]:
    """The vocoder of one window: by cuDNN alone, with our kernels between its convolutions as the engine has
    it, and with our convolutions."""
    if not isinstance(work.config.vocoder, HifiGanConfig):
        yield {"name": "vocoder", "missing": "only HiFi-GAN has a kernel"}
        return
    g, half = work.geometry, torch.float16
    mel = torch.randn(1, g.mel_frames, g.mel_bins, device=work.plan.device, dtype=half)
    flop = flops(work.config, "vocoder", b=1)
    for name, make in (("cuDNN", _by_cudnn), ("cuDNN, ours between", _between), ("our kernel", _by_kernel)):
        if name != "cuDNN" and not find_spec("triton"):
            yield {"name": f"vocoder by {name}", "missing": "triton is not installed"}
            continue

        def measured(make: Callable[..., Any] = make) -> Record:
            run = make(work.networks().vocoder, half)
            seconds = kernel_seconds(lambda: run(mel), work.plan.device, calls=2)
            return {"us": round(1e6 * seconds, 1), **_rate(flop, seconds, most)}

        with torch.inference_mode():
            yield {"name": f"vocoder by {name}", **attempted(measured)}


def _by_cudnn(net: nn.Module, half: torch.dtype) -> Callable[[torch.Tensor], Any]:
    return rewrite(net, half, fused=False)


def _between(net: nn.Module, half: torch.dtype) -> Callable[[torch.Tensor], Any]:
    return rewrite(net, half, fused=True)


def _by_kernel(net: nn.Module, half: torch.dtype) -> Callable[[torch.Tensor], Any]:
    from taro_rt.engines.fused_vocoder import FusedVocoder

    assert isinstance(net, HifiGan)
    return FusedVocoder(net.to(half))


def _calls(work: Work, rows: int) -> Iterator[tuple[str, float, float, Call]]:
    """Name, operations, bytes read and written at least once, and the launch itself."""
    from taro_rt.kernels.attention import joint_attention
    from taro_rt.kernels.linear import linear_streams
    from taro_rt.kernels.rows import Vectors, gate_modulate_streams, modulate_streams
    from taro_rt.kernels.step import Update, finish_step

    c, g, device = work.config.transformer, work.geometry, work.plan.device
    (p, q), d, n = c.patch, c.width, g.visual_frames
    m = g.latent_frames // p * (g.latent_bins // q)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device).bfloat16()

    tokens, both = rows * (n + m), values(rows, c.time_positions, c.modulation_vectors, d)
    context, x, update, update_x = (
        values(rows, n, d),
        values(rows, m, d),
        values(rows, n, d),
        values(rows, m, d),
    )
    at = Vectors(0, 6, 2, 8)
    yield "norm and modulate", 0, 4.0 * tokens * d, lambda: modulate_streams(context, x, both, at)
    yield (
        "gate, norm and modulate", 0, 8.0 * tokens * d,
        lambda: gate_modulate_streams(context, x, update, update_x, both, at),
    )  # fmt: skip
    qkv, qkv_x = values(rows, n, 3 * d), values(rows, m, 3 * d)
    yield (
        "joint attention", 4.0 * rows * (n + m) ** 2 * d, 8.0 * tokens * d,
        lambda: joint_attention(qkv, qkv_x, c.heads),
    )  # fmt: skip
    for name, i, o, gelu in (("qkv", d, 3 * d, False), ("proj", d, d, False), ("fc1, GELU", d, 4 * d, True),
                             ("fc2", 4 * d, d, False)):  # fmt: skip
        wide, wide_x = values(rows, n, i), values(rows, m, i)
        layers = [(values(o, i), values(o)) for _ in range(2)]
        flop, n_bytes = 2.0 * tokens * i * o, 2.0 * (tokens * (i + o) + 2 * i * o)
        yield (
            f"linear {name}, both streams, ours", flop, n_bytes,
            lambda a=wide, b=wide_x, w=layers, gelu=gelu: linear_streams(a, b, *w, gelu),
        )  # fmt: skip
        yield (
            f"linear {name}, x alone, cuBLAS", 2.0 * rows * m * i * o, 2.0 * (rows * m * (i + o) + i * o),
            lambda b=wide_x, w=layers: F.linear(b, *w[1]),
        )  # fmt: skip
    latents, noise = torch.randn(2, 1, g.latent_channels, g.latent_frames, g.latent_bins, device=device)
    final = values(p * q * g.latent_channels, d), values(p * q * g.latent_channels)
    step = Update(0.96, -0.05, 0.2, 8.0 if rows == 2 else 1.0)
    yield (
        "final linear, guidance and update", 2.0 * rows * m * d * len(final[0]),
        2.0 * rows * m * d + 12.0 * latents.numel(),
        lambda: finish_step(x, *final, latents, noise, [p, q], step),
    )  # fmt: skip


def _choices(work: Work, rows: int) -> Iterator[tuple[str, float, float, Call]]:
    """What might be taken instead: attention and a linear layer by all their tiles, PyTorch's attention with
    the streams joined for it; and the vocoder's longest convolution, which the engine leaves to cuDNN."""
    from taro_rt.kernels.attention import TILES, joint_attention, joint_attention_reference
    from taro_rt.kernels.conv import leaky_conv
    from taro_rt.kernels.linear import COPIED_TILES, LINEAR_TILES, is_copied, linear_streams

    c, g = work.config.transformer, work.geometry
    d, n = c.width, g.visual_frames
    m = g.latent_frames // c.patch[0] * (g.latent_bins // c.patch[1])

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=work.plan.device).bfloat16()

    tokens, qkv, qkv_x = rows * (n + m), values(rows, n, 3 * d), values(rows, m, 3 * d)
    flop, n_bytes = 4.0 * rows * (n + m) ** 2 * d, 8.0 * tokens * d
    for tiles in TILES:
        yield (
            f"joint attention, {tiles.queries} queries by {tiles.keys} keys", flop, n_bytes,
            lambda t=tiles: joint_attention(qkv, qkv_x, c.heads, None, t),
        )  # fmt: skip
    yield (
        "attention by PyTorch, streams joined", flop, n_bytes,
        lambda: joint_attention_reference(qkv, qkv_x, c.heads),
    )  # fmt: skip
    context, x = values(rows, n, d), values(rows, m, d)
    layers = [(values(4 * d, d), values(4 * d)) for _ in range(2)]
    for cut in COPIED_TILES if is_copied(x) else LINEAR_TILES:
        yield (
            f"linear fc1, GELU, both streams, tiles of {cut.rows} by {cut.columns} by {cut.depth}",
            8.0 * tokens * d * d, 2.0 * (5 * tokens * d + 8 * d * d),
            lambda t=cut: linear_streams(context, x, *layers, True, t),
        )  # fmt: skip
    if rows == 1 and isinstance(work.config.vocoder, HifiGanConfig):
        config = work.config.vocoder
        size, channels = max(config.resblock_kernels), config.channels >> len(config.strides)
        wave, weight = values(1, g.mel_frames * g.hop, channels), values(size, channels, channels)
        yield (
            f"convolution of {channels} channels, {size} taps, ours",
            2.0 * size * channels**2 * g.mel_frames * g.hop, 6.0 * channels * g.mel_frames * g.hop,
            lambda: leaky_conv(wave, weight, weight[0, 0], -(size // 2) * 5, 5, wave),
        )  # fmt: skip
