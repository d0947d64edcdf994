"""Linear layers of 8-bit floats (e4m3): weights with a scale for every output, values with one a token.

Only when asked for: it changes the sound. Quantising is not part of any fused kernel yet, so each layer
launches a few small ones of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taro_rt.engines.errors import EngineError
from taro_rt.engines.nets.blocks import JointBlock, StreamBlock
from taro_rt.engines.nets.mmdit import MMDiT

if TYPE_CHECKING:  # it needs Triton
    from taro_rt.engines.fused import FusedDenoiser

KIND = torch.float8_e4m3fn
LARGEST = 448.0
"""Of the type's values."""
MULTIPLE = 16
"""Widths that the products take are multiples of this."""


class Fp8Linear(nn.Module):
    """`linear` with both sides of its product rounded to 8 bits; sums are float32, results bfloat16."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantised(linear.weight.detach().float())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale.T.contiguous(), requires_grad=False)  # [1, o]
        self.bias = nn.Parameter(linear.bias.detach().bfloat16(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.scale, self.bias)


def product(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor) -> Tensor:
    """x W^T + bias [..., o] of bfloat16 `x` [..., d], quantised on the way, and a quantised weight [o, d]."""
    rows, scale = quantised(x.flatten(0, -2))
    made: Tensor = torch._scaled_mm(
        rows, weight.T, scale_a=scale, scale_b=weight_scale, bias=bias, out_dtype=torch.bfloat16
    )
    return made.reshape(*x.shape[:-1], -1)


def quantised(values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of 8-bit floats [n, d], and what each is to be multiplied by [n, 1], float32."""
    scale = values.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (values.float() / scale).to(KIND), scale


def to_fp8(net: MMDiT) -> None:
    """Replace the linear layers of all blocks, in place; embedders, modulation and the last layer stay.

    Raises `EngineError` for a width that the products do not take.
    """
    if net.config.width % MULTIPLE:
        raise EngineError(
            f"precision fp8: expected a width that is a multiple of {MULTIPLE}, got {net.config.width}; "
            "use bfloat16"
        )
    blocks: list[JointBlock] = list(net.joint_blocks)  # type: ignore[arg-type]
    for block in blocks:
        streams: list[StreamBlock] = [block.x_block]
        if not block.last:  # the last context's keys and values are cut from its weight
            streams.append(block.context_block)
        for stream in streams:
            for parent, name in ((stream.attn, "qkv"), (stream.attn, "proj"), (stream.mlp, "fc1")):
                setattr(parent, name, Fp8Linear(getattr(parent, name)))
            stream.mlp.fc2 = Fp8Linear(stream.mlp.fc2)  # type: ignore[assignment]


def fp8_denoiser(net: MMDiT) -> FusedDenoiser:
    """The fused step with products of 8 bits, after `to_fp8`; they are a launch for each stream."""
    from taro_rt.engines.fused import FusedDenoiser

    scales = {m.weight.data_ptr(): m.scale for m in net.modules() if isinstance(m, Fp8Linear)}

    def one(x: Tensor, layer: tuple[Tensor, Tensor], gelu: bool) -> Tensor:
        weight, bias = layer
        if not x.shape[1]:  # a context that nothing reads any more
            return x.new_empty(len(x), 0, len(weight))
        if weight.dtype == KIND:
            made = product(x, weight, scales[weight.data_ptr()], bias)
        else:
            made = F.linear(x, weight, bias)
        return F.gelu(made, approximate="tanh") if gelu else made

    def both(
        context: Tensor,
        x: Tensor,
        context_layer: tuple[Tensor, Tensor],
        x_layer: tuple[Tensor, Tensor],
        gelu: bool = False,
    ) -> tuple[Tensor, Tensor]:
        return one(context, context_layer, gelu), one(x, x_layer, gelu)

    class Fp8Denoiser(FusedDenoiser):
        def __init__(self) -> None:
            super().__init__(net)
            self._linear = both  # type: ignore[assignment]

    return Fp8Denoiser()
