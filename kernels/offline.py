"""Every kernel and tile compiled for NVIDIA GPUs without one: what each takes of registers and shared memory.

python -m taro_rt.kernels.offline        (a table; --json for programs)
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from taro_rt.kernels.attention import TILES, joint_attention_kernel
from taro_rt.kernels.rows import EPS, gate_modulate_kernel, modulate_kernel, warps_of
from taro_rt.kernels.step import DEPTH, TOKENS, finish_step_kernel

CAPABILITIES = (80, 90, 120)
"""A100, H100 and H200, RTX 50."""
WIDTH, HEAD, PATCH, CHANNELS = 768, 64, 2, 8
"""Of the published size."""
TYPES = {"fp16": "*fp16", "bf16": "*bf16"}


@dataclass(frozen=True)
class Case:
    """A kernel as it is launched."""

    name: str
    kernel: Any
    pointers: dict[str, str]
    scalars: dict[str, str]
    constants: dict[str, Any]
    warps: int
    stages: int = 2


@dataclass(frozen=True)
class Built:
    """What a compiled kernel takes."""

    name: str
    capability: int
    registers: int
    spilled_bytes: int
    shared_bytes: int
    scratch_bytes: int


def cases() -> Iterator[Case]:
    """Every kernel, type and tile."""
    for name, kind in TYPES.items():
        rows = {"D": WIDTH, "BLOCK": triton.next_power_of_2(WIDTH), "EPS": EPS}
        for kernel in (modulate_kernel, gate_modulate_kernel):
            arguments = [a for a in kernel.arg_names if a not in rows]
            first = arguments.index("n")
            pointers, counts = dict.fromkeys(arguments[:first], kind), arguments[first:]
            title = f"{kernel.__name__.removesuffix('_kernel')} {name}"
            yield Case(title, kernel, pointers, dict.fromkeys(counts, "i32"), rows, warps_of(WIDTH))
        for tile in TILES:
            for with_bias in (False, True):
                yield _attention(name, kind, tile, with_bias)
        for guided in (False, True):
            yield _step(name, kind, guided)


def _attention(name: str, kind: str, tile: Any, with_bias: bool) -> Case:
    constants = {
        "HEAD": HEAD, "QUERIES": tile.queries, "KEYS": tile.keys, "HAS_BIAS": with_bias, "F32_DOTS": False
    }  # fmt: skip
    arguments = [a for a in joint_attention_kernel.arg_names if a not in constants]
    pointers = dict.fromkeys(arguments[:9], kind)
    if with_bias:
        pointers["bias"] = "*fp32"
    scalars = {a: "fp32" if a == "scale" else "i32" for a in arguments[9:]}
    title = f"joint_attention {name} {tile.queries}x{tile.keys} w{tile.warps} s{tile.stages}"
    title += ", bias" if with_bias else ""
    return Case(title, joint_attention_kernel, pointers, scalars, constants, tile.warps, tile.stages)


def _step(name: str, kind: str, guided: bool) -> Case:
    constants = {
        "D": WIDTH, "OUT": PATCH * PATCH * CHANNELS, "P": PATCH, "Q": PATCH, "CHANNELS": CHANNELS,
        "TOKENS": TOKENS, "DEPTH": DEPTH, "GUIDED": guided, "F32_DOTS": False,
    }  # fmt: skip
    floats = ("keep", "push", "spread", "guidance")
    arguments = [a for a in finish_step_kernel.arg_names if a not in constants]
    pointers = {a: kind if a in ("tokens", "weight", "bias") else "*fp32" for a in arguments[:6]}
    scalars = {a: "fp32" if a in floats else "i32" for a in arguments[6:]}
    title = f"finish_step {name}{', guided' if guided else ''}"
    return Case(title, finish_step_kernel, pointers, scalars, constants, 4)


def build(case: Case, capability: int, folder: Path) -> Built:
    """Compile `case` for a GPU of `capability`; its machine code is written to `folder` and looked at."""
    names = case.kernel.arg_names
    types = {**case.pointers, **case.scalars, **dict.fromkeys(case.constants, "constexpr")}
    aligned = {(i,): [["tt.divisibility", 16]] for i, a in enumerate(names) if a in case.pointers}
    source = ASTSource(case.kernel, {a: types[a] for a in names}, case.constants, aligned)
    options = {"num_warps": case.warps, "num_stages": case.stages}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    registers, spilled = _usage(cubin)
    scratch = sum(getattr(made.metadata, f"{kind}_scratch_size", 0) or 0 for kind in ("global", "profile"))
    return Built(case.name, capability, registers, spilled, made.metadata.shared, scratch)


def _usage(cubin: Path) -> tuple[int, int]:
    """Registers of a thread, and bytes that did not fit into them."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    said = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return found["REG"], found["STACK"] + found["LOCAL"]


def build_all() -> Iterator[Built]:
    """Every case for every capability."""
    with TemporaryDirectory() as folder:
        for capability in CAPABILITIES:
            for case in cases():
                yield build(case, capability, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    built = [asdict(each) for each in build_all()]
    if args.json:
        print(json.dumps(built))
        return
    for each in built:
        print(
            "  ".join(
                str(value).rjust(6) if k else str(value).ljust(44) for k, value in enumerate(each.values())
            )
        )


if __name__ == "__main__":
    main()
