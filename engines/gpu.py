"""Which NVIDIA GPU this process would compute on, asked of the driver itself: no package is imported."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
LEAST = (8, 0)
"""Compute capability of an A100; bfloat16 products need it."""
FP8 = (9, 0)
"""Of an H100: the first whose products of 8-bit floats take a scale for every row."""
MAJOR, MINOR, NO_DEVICE = 75, 76, 100
"""Numbers of two attributes and of an error in the driver's interface."""


@dataclass(frozen=True)
class Gpu:
    """The first one that this process may use."""

    name: str
    capability: tuple[int, int]
    memory_mb: int

    def __str__(self) -> str:
        return f"{self.name} ({self.capability[0]}.{self.capability[1]}, {self.memory_mb} MB)"


@cache
def find_gpu() -> Gpu | str:
    """The GPU, or in words why there is none."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return f"finds no NVIDIA GPU: there is no {DRIVER}; install NVIDIA's driver"
    count, handle, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    error = driver.cuInit(0)
    if error not in (0, NO_DEVICE):
        return f"finds no NVIDIA GPU: the driver answers with error {error}; install a newer one"
    if error or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "finds no NVIDIA GPU: the driver sees none; look at CUDA_VISIBLE_DEVICES"
    driver.cuDeviceGet(ctypes.byref(handle), 0)
    name = ctypes.create_string_buffer(128)
    driver.cuDeviceGetName(name, len(name), handle)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), handle)
    capability = []
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        capability.append(value.value)
    return Gpu(name.value.decode(errors="replace"), (capability[0], capability[1]), size.value >> 20)


def why_not(least: tuple[int, int] = LEAST) -> str:
    """Why nothing can be computed on a GPU here; "" if it can."""
    found = find_gpu()
    if isinstance(found, str):
        return found
    if found.capability < least:
        return f"needs an NVIDIA GPU of compute capability {least[0]}.{least[1]} or newer, found {found}"
    return ""
