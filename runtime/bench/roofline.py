"""What this machine can do at most: products of large matrices, and copying."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np

from taro_rt.engines.machine import usable_cores

SIDE = 2048
COPIED_BYTES = 256 << 20
REPEATS = 8
LONG_S = 10.0
"""What takes longer is done once: bfloat16 on a processor without it takes hundreds of times as long."""
MAKESHIFT = 0.25
"""Of the rate of float32: a precision that is slower has no arithmetic of its own in that library."""


def measure(threads: int | None, side: int = SIDE, copied_bytes: int = COPIED_BYTES) -> dict[str, Any]:
    """GFLOP/s of float32 and bfloat16 products, the best library's, and GB/s copied (read plus written)."""
    threads = threads or usable_cores() or 1
    found: dict[str, dict[str, float]] = {}
    for library, precision, product in _products(side, threads):
        found.setdefault(precision, {})[library] = round(2e-9 * side**3 / _shortest(product), 1)
    return {
        "gemm_gflops": {precision: max(rates.values()) for precision, rates in found.items()},
        "gemm_gflops_by_library": found,
        "gemm_side": side,
        "copy_gb_s": round(_copy_rate(threads, copied_bytes), 1),
        "threads": threads,
    }


def has_bfloat16(roofline: dict[str, Any]) -> bool:
    """Whether bfloat16 is worth asking plain PyTorch for, going by what was measured."""
    found: dict[str, dict[str, float]] = roofline["gemm_gflops_by_library"]
    rates = {precision: by_library.get("torch", 0.0) for precision, by_library in found.items()}
    return rates.get("bfloat16", 0.0) > MAKESHIFT * rates.get("float32", 0.0)


def _products(side: int, threads: int) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    a, b = (np.random.default_rng(k).standard_normal((side, side), np.float32) for k in (0, 1))
    out = np.empty_like(a)
    yield "numpy", "float32", lambda: np.matmul(a, b, out)
    if find_spec("openvino"):
        from taro_rt.engines.ov import matrix_product, precisions

        for precision in precisions():
            yield "openvino", precision, matrix_product(a, b, precision, threads)
    if find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        for precision in ("float32", "bfloat16"):
            x, y = (torch.from_numpy(m).to(getattr(torch, precision)) for m in (a, b))
            yield "torch", precision, lambda x=x, y=y: torch.mm(x, y)  # type: ignore[misc]


def _copy_rate(threads: int, n_bytes: int) -> float:
    source = np.ones(n_bytes // 4, np.float32)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        seconds = _shortest(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))
    return 2e-9 * source.nbytes / seconds


def _shortest(work: Callable[[], Any]) -> float:
    """Seconds of the fastest of some runs, but for the first, which warms up unless it is the only one."""
    taken = [_seconds(work)]
    while len(taken) <= REPEATS and taken[0] < LONG_S:
        taken.append(_seconds(work))
    return min(taken[1:] or taken)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
