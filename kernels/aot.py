"""Kernels compiled ahead of time as TensorRT's plugins take them: PTX for a GPU that need not be there.

TensorRT passes a kernel its inputs, then 32-bit integers, then its outputs, so each has an entry that takes
them in that order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

MAX_SHARED = 48 << 10
"""Bytes that TensorRT's launcher of such plugins can ask for."""
PTX_VERSIONS = {
    (8, 0): 87, (8, 6): 87, (8, 7): 87, (8, 9): 87, (9, 0): 87, (10, 0): 87, (12, 0): 87,
    (10, 3): 88, (12, 1): 88,
}  # fmt: skip
"""The first that knows the GPU, for each compute capability: drivers for CUDA 12.8 take 8.7, for 12.9
take 8.8. With an older one the compiler ends the process."""
OUTPUTS = ("_out", "_sum")
"""How the names of an entry's outputs end."""
Definition = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]
"""Of an operator: what describes its outputs, what lists its tactics, what compiles one."""
HIDDEN = re.compile(r"(\.visible \.entry \w+\()(.*?)(\n\))", re.DOTALL)


@dataclass(frozen=True)
class Code:
    """A compiled entry."""

    name: str
    ptx: str
    shared_bytes: int
    warps: int


def assembled(
    operator: str,
    entry: Any,
    kind: str,
    constants: dict[str, Any],
    capability: tuple[int, int],
    warps: int,
    stages: int = 1,
) -> Code:
    """`entry` for tensors of `kind` (Triton's name) and `constants`, on a GPU of `capability`.

    Raises `ValueError` for what a plugin may not be: one that needs scratch memory, clusters or more shared
    memory than TensorRT gives.
    """
    if (version := PTX_VERSIONS.get(capability)) is None:
        raise ValueError(
            f"{operator}: expected a compute capability of {list(PTX_VERSIONS)}, got {capability}"
        )
    names, ints = entry.arg_names, scalars(entry)
    pointers = [name for name in names if name not in (*ints, *constants)]
    types = {**dict.fromkeys(pointers, f"*{kind}"), **dict.fromkeys(ints, "i32")}
    signature = {name: types.get(name, "constexpr") for name in names}
    # TensorRT's tensors begin at multiples of 256 bytes; rows keep that as far as this where they are even
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    made = triton.compile(
        ASTSource(entry, signature, constants, aligned),
        target=GPUTarget("cuda", capability[0] * 10 + capability[1], 32),
        options={
            "num_warps": warps, "num_stages": stages, "enable_fp_fusion": True, "ptx_version": version,
        },
    )  # fmt: skip
    check(operator, made.metadata)
    ptx = without_hidden(made.asm["ptx"], len(pointers) + len(ints))
    return Code(made.metadata.name, ptx, made.metadata.shared, warps)


def launched(code: Code, grid: tuple[int, int], numbers: list[int]) -> tuple[str, str, Any, Any]:
    """What TensorRT wants to know of a plugin: kernel, PTX, how it is launched, its integers."""
    import tensorrt.plugin as trtp

    extra = trtp.SymIntExprs(len(numbers))
    for i, number in enumerate(numbers):  # whole numbers given as they are would be of no type
        extra[i] = trtp.SymInt32(number)
    launch = trtp.KernelLaunchParams()
    launch.grid_x, launch.grid_y = grid
    launch.block_x = 32 * code.warps
    launch.shared_mem = code.shared_bytes
    return code.name, code.ptx, launch, extra


def scalars(entry: Any) -> list[str]:
    """The integers an entry takes, in order: they stand between the last input and the first output."""
    names = entry.arg_names
    outputs = [name for name in names if name.endswith(OUTPUTS)]
    return list(names[names.index("n") : names.index(outputs[0])])


def check(operator: str, metadata: Any) -> None:
    """Raise `ValueError` for what TensorRT's launcher of plugins cannot give a kernel."""
    wanted: dict[str, Any] = {
        "global_scratch_size": 0,
        "profile_scratch_size": 0,
        "num_ctas": 1,
        "launch_cooperative_grid": False,
        "launch_pdl": False,
        "tmem_size": 0,
        "tensordesc_meta": [],
        "warp_size": 32,
    }
    for name, value in wanted.items():
        got = getattr(metadata, name, value)
        if got != value and (got or value):
            raise ValueError(f"{operator}: a plugin may not have {name} {got}")
    if metadata.shared > MAX_SHARED:
        raise ValueError(
            f"{operator}: a plugin has at most {MAX_SHARED} bytes of shared memory, got {metadata.shared}"
        )


def without_hidden(ptx: str, n_arguments: int) -> str:
    """The PTX without the two pointers to scratch memory that Triton adds and nothing here uses.

    TensorRT 11 fills them in, earlier ones do not. Raises `ValueError` where they are not as expected.
    """
    found = HIDDEN.search(ptx)
    if found is None:
        raise ValueError("expected PTX with an entry, got none")
    parameters = [line for line in found[2].split(",\n") if line.strip()]
    kept, hidden = parameters[:n_arguments], parameters[n_arguments:]
    if len(kept) != n_arguments or len(hidden) > 2:
        raise ValueError(
            f"expected PTX of {n_arguments} parameters and at most 2 more, got {len(parameters)}"
        )
    for line in hidden:
        name = line.split()[-1]
        if ptx.count(name) != 1:
            raise ValueError(f"expected PTX that does not use {name}")
    body = ",\n".join(kept)
    return ptx[: found.start(2)] + body + ptx[found.end(2) :]


def compiler() -> str:
    """What compiles the entries, for a plan's key."""
    return f"triton {triton.__version__}"
