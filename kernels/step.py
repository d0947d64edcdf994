"""The end of a step in one launch: final linear, guidance, SDE update, straight into the latents' layout.

The velocity tokens never reach memory. State and noise stay float32 (spec B4, B5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from taro_rt.kernels.launch import Launch, wait_for_inputs
from taro_rt.kernels.switch import is_used, refuse

MOST_OUTPUTS = 256
"""Of one token: a block holds all of them, and with more it needs more shared memory than every GPU has."""
TOKENS, DEPTH = 32, 64
"""Tokens of a program, and how much of their width is multiplied at a time."""


@dataclass(frozen=True)
class Update:
    """x becomes `keep` x + `push` v + `spread` noise: Euler, Euler-Maruyama, or any step linear in v."""

    keep: float
    push: float
    spread: float
    guidance: float = 1.0
    """v is null + guidance (conditional - null)."""


@triton.jit
def finish_step_kernel(
    tokens, weight, bias, latents, noise, out,
    m, columns, width_bins, latent_size, row_tokens, keep, push, spread, guidance,
    D: tl.constexpr, OUT: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, CHANNELS: tl.constexpr,
    TOKENS: tl.constexpr, DEPTH: tl.constexpr, GUIDED: tl.constexpr, F32_DOTS: tl.constexpr,
    PDL: tl.constexpr = False,
):  # fmt: skip
    """`tokens` [rows, m, D], conditional rows first, then the null ones at `row_tokens` further on."""
    wait_for_inputs(PDL)
    at, row = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS), tl.program_id(1)
    values, mask = tl.arange(0, OUT), at < m
    is_value = values < P * Q * CHANNELS
    conditional = tokens + row.to(tl.int64) * m * D
    acc = tl.zeros([TOKENS, OUT], tl.float32)
    null = tl.zeros([TOKENS, OUT], tl.float32)
    for first in range(0, D, DEPTH):
        depth = first + tl.arange(0, DEPTH)
        inside = depth < D
        w = tl.load(weight + values[None, :] * D + depth[:, None], is_value[None, :] & inside[:, None], 0.0)
        places, here = at[:, None] * D + depth[None, :], mask[:, None] & inside[None, :]
        a = tl.load(conditional + places, here, 0.0)
        if F32_DOTS:
            acc += tl.dot(a, w, input_precision="ieee")
        else:
            acc += tl.dot(a, w)
        if GUIDED:
            b = tl.load(conditional + row_tokens + places, here, 0.0)
            if F32_DOTS:
                null += tl.dot(b, w, input_precision="ieee")
            else:
                null += tl.dot(b, w)
    v = acc
    if GUIDED:
        v = null + guidance * (acc - null)
    v += tl.load(bias + values, is_value, 0.0).to(tl.float32)[None, :]
    # value (p, q, channel) of a token is latents[channel, row * P + p, column * Q + q]
    p, q, channel = values // (Q * CHANNELS), values // CHANNELS % Q, values % CHANNELS
    line = (at // columns * P)[:, None] + p[None, :]
    place = channel[None, :] * latent_size + line * width_bins + (at % columns * Q)[:, None] + q[None, :]
    place += row.to(tl.int64) * CHANNELS * latent_size
    live = mask[:, None] & is_value[None, :]
    x = tl.load(latents + place, live, 0.0)
    drawn = tl.load(noise + place, live, 0.0)
    tl.store(out + place, keep * x + push * v + spread * drawn, live)


def finish_step(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor,
    latents: Tensor,
    noise: Tensor,
    patch: list[int],
    update: Update,
) -> Tensor:
    """The latents after a step [b, c, h, w], float32.

    `tokens` [b, m, d] are modulated for the final linear (`weight` [p q c, d], `bias`); with guidance they
    are [2 b, m, d], conditional rows first. `latents` and `noise` [b, c, h, w] are float32, and noise must be
    numbers even where its spread is 0; `patch` is p, q.
    Raises `ValueError` for what does not go together.
    """
    if not is_used(tokens):
        return finish_step_reference(tokens, weight, bias, latents, noise, patch, update)
    _check(tokens, weight, bias, latents, noise, patch)
    scalars = [update.keep, update.push, update.spread, update.guidance]
    made: Tensor = _finish_step(tokens, weight, bias, latents, noise, patch, scalars)
    return made


def finish_step_launch(
    tokens: Tensor, weight: Tensor, bias: Tensor, latents: Tensor, noise: Tensor, out: Tensor,
    patch: list[int], update: Update,
) -> Launch:  # fmt: skip
    """The launch of `finish_step` into `out`."""
    batch, channels, height, width = latents.shape
    m, depth = tokens.shape[1:]
    arguments = (
        tokens, weight, bias, latents, noise, out,
        m, width // patch[1], width, height * width, batch * m * depth,
        update.keep, update.push, update.spread, update.guidance,
    )  # fmt: skip
    constants = {
        "D": depth, "OUT": max(16, triton.next_power_of_2(len(weight))), "P": patch[0], "Q": patch[1],
        "CHANNELS": channels, "TOKENS": TOKENS, "DEPTH": DEPTH,
        "GUIDED": len(tokens) == 2 * batch, "F32_DOTS": tokens.dtype == torch.float32,
    }  # fmt: skip
    grid = (triton.cdiv(m, TOKENS), batch)
    stages = 1 if tokens.dtype == torch.float32 else 3  # of float32, more do not fit into registers
    return Launch(finish_step_kernel, grid, arguments, constants, warps=4, stages=stages)


def finish_step_reference(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor,
    latents: Tensor,
    noise: Tensor,
    patch: list[int],
    update: Update,
) -> Tensor:
    """`finish_step` in plain PyTorch."""
    (batch, channels, height, width), (p, q) = latents.shape, patch
    v = (tokens @ weight.T).float()
    if len(tokens) == 2 * batch:
        conditional, null = v.chunk(2)
        v = null + update.guidance * (conditional - null)
    v = (v + bias.float()).reshape(batch, height // p, width // q, p, q, channels)
    v = v.permute(0, 5, 1, 3, 2, 4).reshape(latents.shape)
    return update.keep * latents + update.push * v + update.spread * noise


@torch.library.custom_op("taro_rt::finish_step", mutates_args=())
def _finish_step(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor,
    latents: Tensor,
    noise: Tensor,
    patch: list[int],
    scalars: list[float],
) -> Tensor:
    out = torch.empty_like(latents)
    finish_step_launch(tokens, weight, bias, latents, noise, out, patch, Update(*scalars)).run()
    return out


@_finish_step.register_fake
def _(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor,
    latents: Tensor,
    noise: Tensor,
    patch: list[int],
    scalars: list[float],
) -> Tensor:
    return torch.empty_like(latents)


def _check(
    tokens: Tensor, weight: Tensor, bias: Tensor, latents: Tensor, noise: Tensor, patch: list[int]
) -> None:
    kernel = "finish_step"
    if latents.dim() != 4 or noise.shape != latents.shape or not latents.numel():
        refuse(kernel, "latents and noise [b, c, h, w]", [tuple(latents.shape), tuple(noise.shape)])
    (batch, channels, height, width), (p, q) = latents.shape, patch
    if height % p or width % q:
        refuse(kernel, f"a patch that divides {height} x {width}", patch)
    m = height // p * (width // q)
    if tokens.dim() != 3 or tokens.shape[0] not in (batch, 2 * batch) or tokens.shape[1] != m:
        refuse(kernel, f"tokens [{batch} or {2 * batch}, {m}, d]", tuple(tokens.shape))
    if weight.shape != (p * q * channels, tokens.shape[2]) or bias.shape != weight.shape[:1]:
        expected = f"a weight [{p * q * channels}, {tokens.shape[2]}] and its bias"
        refuse(kernel, expected, [tuple(weight.shape), tuple(bias.shape)])
    if len(weight) > MOST_OUTPUTS:
        refuse(kernel, f"a patch of at most {MOST_OUTPUTS} values", len(weight))
    if latents.dtype != torch.float32 or noise.dtype != torch.float32 or weight.dtype != tokens.dtype:
        got = [latents.dtype, noise.dtype, weight.dtype, tokens.dtype]
        refuse(kernel, "float32 latents and noise, tokens and weight of one type", got)
    if not all(t.is_contiguous() for t in (tokens, weight, bias, latents, noise)):
        refuse(kernel, "contiguous tensors", [t.stride() for t in (tokens, weight, bias, latents, noise)])
