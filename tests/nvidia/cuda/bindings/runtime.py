"""A stand-in for CUDA's runtime, on the host's memory, as far as `engines.cudart` calls it.

Copies must lie within what was allocated; while a stream captures it takes only what can be captured.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

Status = IntEnum(
    "cudaError_t",
    {
        "cudaSuccess": 0,
        "cudaErrorInvalidValue": 1,
        "cudaErrorMemoryAllocation": 2,
        "cudaErrorInvalidResourceHandle": 400,
        "cudaErrorStreamCaptureUnsupported": 900,
        "cudaErrorStreamCaptureInvalidated": 901,
    },
)
cudaError_t = Status
cudaMemcpyKind = IntEnum(
    "cudaMemcpyKind",
    {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2, "cudaMemcpyDeviceToDevice": 3},
)
cudaStreamCaptureMode = IntEnum("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1})
cudaStreamNonBlocking = 1
ALIGNMENT = 256
GARBAGE = 0xFF
"""Of new memory: NaN as float32."""


@dataclass
class Stream:
    """What a stream records, None while it does not; and whether that became impossible."""

    recorded: list[Callable[[], None]] | None = None
    is_invalid: bool = False


@dataclass
class Host:
    """All that is there, and what tests change and count."""

    memory: dict[int, tuple[Any, int]] = field(default_factory=dict)
    streams: dict[int, Stream] = field(default_factory=dict)
    events: dict[int, int] = field(default_factory=dict)
    graphs: dict[int, list[Callable[[], None]]] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1))
    most_allocations: int | None = None
    captures: bool = True
    """Whether streams can record."""
    launches: int = 0

    def left(self) -> dict[str, int]:
        """How much of everything nobody gave back."""
        kinds = ("memory", "streams", "events", "graphs")
        return {kind: len(getattr(self, kind)) for kind in kinds if getattr(self, kind)}


host = Host()


def submit(stream: int, work: Callable[[], None]) -> Status:
    """Do it now, or record it."""
    found = host.streams[int(stream)]
    if found.recorded is None:
        work()
    else:
        found.recorded.append(work)
    return Status.cudaSuccess


def _lies_within(at: int, n_bytes: int) -> bool:
    return any(base <= at and at + n_bytes <= base + size for base, (_, size) in host.memory.items())


def _waits(stream: int) -> bool:
    """Note that what was asked for ends a capture, and say whether there is one."""
    found = host.streams[int(stream)]
    found.is_invalid |= found.recorded is not None
    return found.recorded is not None


def cudaMalloc(n_bytes: int) -> tuple[Any, ...]:
    if host.most_allocations is not None and len(host.memory) >= host.most_allocations:
        return Status.cudaErrorMemoryAllocation, 0
    whole = np.full(n_bytes + ALIGNMENT, GARBAGE, np.uint8)
    address = -(-whole.ctypes.data // ALIGNMENT) * ALIGNMENT
    host.memory[address] = whole, n_bytes
    return Status.cudaSuccess, address


def cudaFree(address: int) -> tuple[Any, ...]:
    known = host.memory.pop(address, None)
    return (Status.cudaSuccess if known else Status.cudaErrorInvalidValue,)


def cudaMemset(at: int, value: int, n_bytes: int) -> tuple[Any, ...]:
    if not _lies_within(at, n_bytes):
        return (Status.cudaErrorInvalidValue,)
    ctypes.memset(at, value, n_bytes)
    return (Status.cudaSuccess,)


def cudaMemsetAsync(at: int, value: int, n_bytes: int, stream: int) -> tuple[Any, ...]:
    if not _lies_within(at, n_bytes):
        return (Status.cudaErrorInvalidValue,)
    return (submit(stream, lambda: ctypes.memset(at, value, n_bytes) and None),)


def cudaMemcpyAsync(to: int, source: int, n_bytes: int, kind: Any, stream: int) -> tuple[Any, ...]:
    ends = {"cudaMemcpyHostToDevice": (to,), "cudaMemcpyDeviceToHost": (source,)}.get(kind.name, (to, source))
    if not all(_lies_within(at, n_bytes) for at in ends):
        return (Status.cudaErrorInvalidValue,)
    if len(ends) == 1 and _waits(stream):  # with the host's pageable memory it waits, which nothing may
        return (Status.cudaErrorStreamCaptureUnsupported,)
    return (submit(stream, lambda: ctypes.memmove(to, source, n_bytes) and None),)


def cudaDeviceSynchronize() -> tuple[Any, ...]:
    return (Status.cudaSuccess,)


def cudaStreamCreateWithFlags(flags: int) -> tuple[Any, ...]:
    number = next(host.numbers)
    host.streams[number] = Stream()
    return Status.cudaSuccess, number


def cudaStreamDestroy(stream: int) -> tuple[Any, ...]:
    del host.streams[int(stream)]
    return (Status.cudaSuccess,)


def cudaStreamSynchronize(stream: int) -> tuple[Any, ...]:
    return (Status.cudaErrorStreamCaptureUnsupported if _waits(stream) else Status.cudaSuccess,)


def cudaStreamBeginCapture(stream: int, mode: Any) -> tuple[Any, ...]:
    host.streams[int(stream)] = Stream([], not host.captures)
    return (Status.cudaSuccess,)


def cudaStreamEndCapture(stream: int) -> tuple[Any, ...]:
    found = host.streams[int(stream)]
    host.streams[int(stream)] = Stream()
    if found.recorded is None or found.is_invalid:
        return Status.cudaErrorStreamCaptureInvalidated, 0
    number = next(host.numbers)
    host.graphs[number] = found.recorded
    return Status.cudaSuccess, number


def cudaGraphInstantiate(graph: int, flags: int) -> tuple[Any, ...]:
    number = next(host.numbers)
    host.graphs[number] = list(host.graphs[graph])
    return Status.cudaSuccess, number


def cudaGraphLaunch(graph: int, stream: int) -> tuple[Any, ...]:
    host.launches += 1
    for work in host.graphs[graph]:
        submit(stream, work)
    return (Status.cudaSuccess,)


def cudaGraphDestroy(graph: int) -> tuple[Any, ...]:
    del host.graphs[graph]
    return (Status.cudaSuccess,)


cudaGraphExecDestroy = cudaGraphDestroy


def cudaEventCreate() -> tuple[Any, ...]:
    number = next(host.numbers)
    host.events[number] = 0
    return Status.cudaSuccess, number


def cudaEventRecord(event: int, stream: int) -> tuple[Any, ...]:
    host.events[event] = next(host.numbers)
    return (Status.cudaSuccess,)


def cudaEventElapsedTime(start: int, end: int) -> tuple[Any, ...]:
    return Status.cudaSuccess, float(host.events[end] - host.events[start])


def cudaEventDestroy(event: int) -> tuple[Any, ...]:
    del host.events[event]
    return (Status.cudaSuccess,)


def cudaGetLastError() -> tuple[Any, ...]:
    return (Status.cudaSuccess,)
