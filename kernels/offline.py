"""Every kernel and tile compiled for NVIDIA GPUs without one: what each takes of registers and shared memory.

python -m taro_rt.kernels.offline        (a table; --json for programs)

Compiled are the launches of the published size, specialised by their arguments as Triton does at a launch,
and some of other sizes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.tools.tensor_descriptor import TensorDescriptor

from taro_rt.kernels.attention import TILES, attention_launch
from taro_rt.kernels.conv import leaky_conv_launch
from taro_rt.kernels.finish import finish_conv_launch
from taro_rt.kernels.launch import OVERLAPS, Launch
from taro_rt.kernels.linear import COPIED_TILES, LINEAR_TILES, LinearTiles, linear_streams_launch
from taro_rt.kernels.norm import group_norm_launches
from taro_rt.kernels.rows import Vectors, gate_modulate_launch, modulate_launch
from taro_rt.kernels.step import Update, finish_step_launch

CAPABILITIES = (80, 90, 120)
"""A100, H100 and H200, RTX 50."""
WIDTH, HEADS, PATCH, CHANNELS = 768, 12, 2, 8
CONTEXT, X, BATCH, VECTORS = 32, 816, 2, 142
"""Of the published size: tokens of both streams, rows of a guided step, modulation vectors."""
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
HEAD_WIDTHS = (16, 32, 128)
"""Of a head, beside the 64 of the published size."""
STEP_WIDTHS = ((192, 1, 8), (128, 2, 4), (64, 2, 8))
"""Widths of the last linear layer, patches and channels, beside those of the published size."""
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}


@dataclass(frozen=True)
class Built:
    """What a compiled kernel takes."""

    name: str
    capability: int
    registers: int
    spilled_bytes: int
    shared_bytes: int
    scratch_bytes: int
    tensor_cores: bool
    """Whether it multiplies on tensor cores."""
    waits: bool
    """Whether it waits for what launches before it write, as it must where launches overlap."""
    widest_load: int
    """Bytes that a thread reads from global memory at once, at most."""


def launches(dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    """Every kernel and tile with weights of `dtype`, on tensors without memory.

    Also of one token, for Triton compiles arguments that are 1 as constants.
    """
    yield from _rows(dtype)
    yield from _attention(dtype)
    yield from _linear(dtype)
    yield from _step(dtype)
    yield from _conv(dtype)
    yield from _between_convs(dtype)


def copied_launches(dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    """What only Hopper and newer have: layers whose tiles the copy engine brings. None in float32."""
    if dtype == torch.float32:
        return
    for tiles in COPIED_TILES:
        yield f"linear, copied {tiles.rows}x{tiles.columns}x{tiles.depth}", _fc1(dtype, tiles, copied=True)


def _on_meta(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _rows(dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    context, x = (_on_meta(BATCH, n, WIDTH, dtype=dtype) for n in (CONTEXT, X))
    modulation, at = _on_meta(BATCH, 1, VECTORS, WIDTH, dtype=dtype), Vectors(0, 6, 2, 8)
    yield "modulate", modulate_launch(context, x, modulation, (context, x), at)
    streams = (context, x, context, x)
    yield "gate_modulate", gate_modulate_launch(streams, modulation, streams, at)
    one = (context[:1, :1],) * 4
    yield "gate_modulate, one token", gate_modulate_launch(one, modulation[:1], one, at)
    short = (context[:, :1], x, context[:, :1], x)
    yield "gate_modulate, context of one token", gate_modulate_launch(short, modulation, short, at)
    for n_positions in (102, 204):
        rows = _on_meta(BATCH, n_positions, VECTORS, WIDTH, dtype=dtype)
        yield f"gate_modulate, {n_positions} rows", gate_modulate_launch(streams, rows, streams, at)


def _attention(dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    context, x = (_on_meta(BATCH, n, 3 * WIDTH, dtype=dtype) for n in (CONTEXT, X))
    outputs = context[..., :WIDTH], x[..., :WIDTH]
    bias = _on_meta(CONTEXT + X, dtype=torch.float32)
    for tiles in TILES:
        name = f"attention {tiles.queries}x{tiles.keys} w{tiles.warps} s{tiles.stages}"
        yield name, attention_launch(context, x, HEADS, None, outputs, tiles)
    yield "attention, bias", attention_launch(context, x, HEADS, bias, outputs)
    short = context[:, :1], outputs[0][:, :1]
    yield (
        "attention, context of one token",
        attention_launch(short[0], x, HEADS, bias[: X + 1], (short[1], outputs[1])),
    )
    for head in HEAD_WIDTHS:
        launch = attention_launch(context, x, WIDTH // head, None, outputs)
        yield f"attention, heads of {head}", launch
    one = _on_meta(1, 1, 3 * 64, dtype=dtype)
    yield "attention, one token", attention_launch(one, one, 1, None, (one, one))


def _linear(dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    """The MLP's first layer with its GELU; the other layers differ in their numbers alone."""
    for tiles in LINEAR_TILES:
        name = f"linear {tiles.rows}x{tiles.columns}x{tiles.depth} w{tiles.warps} s{tiles.stages}"
        yield name, _fc1(dtype, tiles)
    one, layer = _on_meta(1, 1, WIDTH, dtype=dtype), _fc1_layer(dtype)
    yield "linear, one token", linear_streams_launch(one, one, layer, layer, False, (one, one), tiles)


def _fc1(dtype: torch.dtype, tiles: LinearTiles, copied: bool = False) -> Launch:
    context, x, context_out, x_out = (
        _on_meta(BATCH, n, d, dtype=dtype) for d in (WIDTH, 4 * WIDTH) for n in (CONTEXT, X)
    )
    layer = _fc1_layer(dtype)
    return linear_streams_launch(context, x, layer, layer, True, (context_out, x_out), tiles, copied)


def _fc1_layer(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return _on_meta(4 * WIDTH, WIDTH, dtype=dtype), _on_meta(4 * WIDTH, dtype=dtype)


def _step(dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    latents = _on_meta(1, CHANNELS, X * PATCH // 8, 8 * PATCH, dtype=torch.float32)
    weight = _on_meta(PATCH * PATCH * CHANNELS, WIDTH, dtype=dtype)
    for rows in (1, 2):
        tokens = _on_meta(rows, X, WIDTH, dtype=dtype)
        launch = finish_step_launch(
            tokens, weight, weight[:, 0], latents, latents, latents, [PATCH, PATCH], Update(1.0, 1.0, 1.0)
        )
        yield f"finish_step{', guided' if rows == 2 else ''}", launch
    for width, patch, channels in STEP_WIDTHS:
        latents = _on_meta(1, channels, 204, 16, dtype=torch.float32)
        tokens = _on_meta(2, 204 // patch * (16 // patch), width, dtype=dtype)
        weight = _on_meta(patch * patch * channels, width, dtype=dtype)
        launch = finish_step_launch(
            tokens, weight, weight[:, 0], latents, latents, latents, [patch, patch], Update(1.0, 1.0, 1.0)
        )
        yield f"finish_step of {width}", launch


def _conv(dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    """The vocoder's first convolution, which reads a log-mel, its last, which makes a wave, and the longest
    of its last stages; wider ones have the tiles of 64."""
    for inputs, outputs in ((64, 512), (80, 512), (16, 16), (32, 1)):
        x, made = (_on_meta(1, 816, n, dtype=dtype) for n in (inputs, outputs))
        weight = _on_meta(7, outputs, inputs, dtype=dtype)
        launch = leaky_conv_launch(x, weight, weight[0, :, 0], -3, 1, None, 0.1, made)
        yield f"leaky_conv from {inputs} to {outputs}", launch
    for channels, length in ((32, 130592), (64, 65296)):
        x = _on_meta(1, length, channels, dtype=dtype)
        weight = _on_meta(11, channels, channels, dtype=dtype)
        yield (
            f"leaky_conv of {channels}",
            leaky_conv_launch(x, weight, weight[0, 0], -25, 5, x, 0.1, x),
        )


def _between_convs(dtype: torch.dtype) -> Iterator[tuple[str, Launch]]:
    """The decoder's norms, widest and longest, and what ends the vocoder's convolutions."""
    for channels, places in ((512, 204 * 16), (128, 816 * 64)):
        x, weight = _on_meta(1, places, channels, dtype=dtype), _on_meta(channels, dtype=dtype)
        buffers = (_on_meta(1, 2, 256, channels, dtype=torch.float32),) * 2
        made = group_norm_launches(x, weight, weight, 32, 1e-6, weight, True, (*buffers, x))
        for launch in made:
            yield f"{launch.kernel.__name__.removesuffix('_kernel')} of {channels}", launch
    x, bias = _on_meta(1, 1, 130592, 32, dtype=dtype), _on_meta(32, dtype=dtype)
    yield "finish_conv", finish_conv_launch(x, bias, x, x, 1.0, 0.1, x, x)


def build(name: str, launch: Launch, capability: int, folder: Path) -> Built:
    """Compile `launch` for a GPU of `capability`; its machine code is written to `folder` and looked at."""
    overlaps = capability >= 10 * OVERLAPS[0]
    source, target = _source(launch, overlaps), GPUTarget("cuda", capability, 32)
    made = triton.compile(source, target=target, options=launch.options(overlaps))
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    registers, spilled = _usage(cubin)
    scratch = sum(getattr(made.metadata, f"{kind}_scratch_size", 0) or 0 for kind in ("global", "profile"))
    return Built(
        name, capability, registers, spilled, made.metadata.shared, scratch,
        bool(re.search(r"\b(wg)?mma\b|wgmma", made.asm["ptx"])), "griddepcontrol.wait" in made.asm["ptx"],
        _widest_load(made.asm["ptx"]),
    )  # fmt: skip


def _source(launch: Launch, overlaps: bool) -> ASTSource:
    """The kernel with what a launch knows of its arguments: types, alignment to 16, numbers that are 1."""
    names = launch.kernel.arg_names
    constants, aligned = {**launch.constants, "PDL": overlaps}, {}
    types: dict[str, str] = dict.fromkeys(constants, "constexpr")
    for i, (name, value) in enumerate(zip(names, launch.arguments, strict=False)):
        if isinstance(value, TensorDescriptor):
            types[name] = f"tensordesc<{POINTERS[value.base.dtype][1:]}{value.block_shape}>"
            is_aligned = False
        elif isinstance(value, Tensor):
            types[name] = POINTERS[value.dtype]
            is_aligned = value.storage_offset() * value.element_size() % 16 == 0
        elif isinstance(value, float):
            types[name], is_aligned = "fp32", False
        else:
            types[name], is_aligned = "constexpr" if value == 1 else "i32", value % 16 == 0
            constants.update({name: 1} if value == 1 else {})
        if is_aligned:
            aligned[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(launch.kernel, {name: types[name] for name in names}, constants, aligned)


def _widest_load(ptx: str) -> int:
    """Bytes of the widest load from global memory in `ptx`, to registers or straight to shared memory."""
    loads = re.findall(r"ld\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)", ptx)
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global(?:\.\w+::\w+)?.*?, (0x[0-9a-f]+|\d+)", ptx)
    return max([int(many or 1) * int(bits) // 8 for many, bits in loads] + [int(n, 0) for n in copies])


def _usage(cubin: Path) -> tuple[int, int]:
    """Registers of a thread, and bytes that did not fit into them."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    said = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return found["REG"], found["STACK"] + found["LOCAL"]


def build_all(types: list[str]) -> Iterator[Built]:
    """Every launch for every capability."""
    with TemporaryDirectory() as folder:
        for capability in CAPABILITIES:
            for kind in types:
                every = launches(TYPES[kind])
                if capability >= 10 * OVERLAPS[0]:
                    every = chain(every, copied_launches(TYPES[kind]))
                for name, launch in every:
                    yield build(f"{name}, {kind}", launch, capability, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES))
    args = parser.parse_args()
    for each in build_all(args.types):
        if args.json:
            print(json.dumps(asdict(each)))
        else:
            name, *values = asdict(each).values()
            print(name.ljust(40), *(str(value).rjust(6) for value in values), flush=True)


if __name__ == "__main__":
    main()
