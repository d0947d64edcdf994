"""CUDA graphs, streams, events and pinned memory: the one file that knows them.

Everything else of the `cuda` backend is plain PyTorch on a device. On a CPU, which is for tests only, work is
called directly where a GPU replays what it recorded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from taro_rt.engines.errors import EngineError

T = TypeVar("T")
Work = Callable[[], tuple[Tensor, ...]]
KINDS = {np.dtype(np.float32): torch.float32, np.dtype(np.uint8): torch.uint8}
_recording = threading.Lock()
"""Held while a graph is recorded: pipelines of one process take turns at that, and at what would spoil it."""
_spare: dict[torch.device, list[tuple[Any, Any]]] = {}
"""Streams of pipelines that were closed, to be used again: PyTorch has 32, and the libraries keep memory for
each."""


class Device:
    """Where a pipeline computes: a stream of its own, one beside it, and memory that its graphs share."""

    def __init__(self, name: str) -> None:
        self.place = torch.device(name)
        self.graph_bytes = 0
        """What recorded graphs took from the device."""
        self.is_gpu = self.place.type == "cuda"
        self._stream: Any = None
        self._side: Any = None
        if self.is_gpu:
            spare = _spare.setdefault(self.place, [])
            self._stream, self._side = (
                spare.pop() if spare else (torch.cuda.Stream(self.place), torch.cuda.Stream(self.place))
            )
        self._pool: Any = torch.cuda.graph_pool_handle() if self.is_gpu else None

    @contextmanager
    def active(self) -> Iterator[None]:
        """What is launched within goes to this pipeline's stream. Too little memory is an `EngineError`."""
        try:
            with torch.inference_mode():
                if not self.is_gpu:
                    yield
                    return
                with torch.cuda.device(self.place), torch.cuda.stream(self._stream):
                    yield
        except torch.OutOfMemoryError as error:
            raise EngineError(f"the GPU has too little memory: {_first_sentence(error)}") from error

    def side_by_side(self, first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
        """What both return, the second computed on a stream beside the first one's."""
        if not self.is_gpu:
            return first(), second()
        main = torch.cuda.current_stream()
        self._side.wait_stream(main)
        with torch.cuda.stream(self._side):
            beside = second()
        made = first()
        main.wait_stream(self._side)
        return made, beside

    def record(self, work: Work) -> Program:
        """`work` as a program. Call it within `active`."""
        if not self.is_gpu:
            return Program(work, None, ())
        # deterministic where PyTorch lets us: not the convolutions that end with a ReLU, whose runs gave
        # the same all the same where that was tried
        flags = torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=True, allow_tf32=False)
        with _recording, flags:  # of the whole process: held no longer than the choice of convolutions takes
            work()  # compiles kernels and chooses convolutions, neither of which can be recorded
            torch.cuda.synchronize(self.place)
            torch.cuda.empty_cache()  # as recording begins with, or what it frees would hide what it takes
            before = torch.cuda.memory_reserved(self.place)
            graph = torch.cuda.CUDAGraph()
            # other threads may go on using the GPU meanwhile
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                outputs = work()
            self.graph_bytes += torch.cuda.memory_reserved(self.place) - before
        return Program(work, graph, outputs)

    def mark(self) -> Any:
        """A moment on the device, for `seconds`."""
        if not self.is_gpu:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @staticmethod
    def seconds(start: Any, end: Any) -> float:
        """Between two moments that have come."""
        return end - start if isinstance(end, float) else float(start.elapsed_time(end)) / 1e3

    def settle(self) -> None:
        """Wait for what other streams have begun: weights that were made before this one is used."""
        if self.is_gpu:
            with _recording:
                torch.cuda.synchronize(self.place)

    def wait(self) -> None:
        """Until everything that was launched is done."""
        if self.is_gpu:
            self._stream.synchronize()

    def close(self) -> None:
        """Give what was freed back to the system, and the streams to the next pipeline."""
        if self._pool is not None:
            self._pool = None
            with _recording:
                torch.cuda.synchronize(self.place)
                torch.cuda.empty_cache()
            _spare[self.place].append((self._stream, self._side))


class Program:
    """Work that is launched as a whole. It reads and writes the same tensors every time."""

    def __init__(self, work: Work, graph: Any, outputs: tuple[Tensor, ...]) -> None:
        self._work, self._graph, self._outputs = work, graph, outputs

    def __call__(self) -> tuple[Tensor, ...]:
        """The outputs, which the next call writes over."""
        if self._graph is None:
            return self._work()
        self._graph.replay()
        return self._outputs

    def close(self) -> None:
        """Let its memory go."""
        if self._graph is not None:
            self._graph.reset()
        self._work, self._graph, self._outputs = tuple, None, ()


class Inlet:
    """A tensor of fixed size on the device, filled from the host without waiting for it."""

    def __init__(self, device: Device, shape: tuple[int, ...], kind: type = np.float32) -> None:
        dtype = KINDS[np.dtype(kind)]
        self.tensor = torch.zeros(shape, dtype=dtype, device=device.place)
        self._host = torch.empty(shape, dtype=dtype, pin_memory=True) if device.is_gpu else self.tensor
        self._copied: Any = None

    def fill(self, array: np.ndarray) -> None:
        """Copy `array` into it."""
        self.put(slice(None), array)
        self.send()

    def put(self, at: int | slice, array: np.ndarray) -> None:
        """Copy `array` into a part of it, on the host."""
        if self._copied is not None:
            self._copied.synchronize()  # what the last call filled in has arrived long ago
            self._copied = None
        np.copyto(self._host.numpy()[at], array)

    def send(self) -> None:
        """Have it copied to the device."""
        if self._host is not self.tensor:
            self.tensor.copy_(self._host, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()


class Recorded(NamedTuple):
    """A program and what is filled in before it is called."""

    program: Program
    inlets: tuple[Inlet, ...]

    @property
    def n_bytes(self) -> int:
        """Of the inlets."""
        return sum(inlet.tensor.numel() * inlet.tensor.element_size() for inlet in self.inlets)


class Shelf:
    """Programs for inputs of other sizes. Of more than `most` the one not used for longest is let go."""

    def __init__(self, device: Device, most: int) -> None:
        self._device, self._most = device, most
        self._kept: OrderedDict[Hashable, Recorded] = OrderedDict()

    def take(
        self, key: Hashable, inputs: Sequence[tuple[tuple[int, ...], type]], make: Callable[..., Work]
    ) -> Recorded:
        """The program of `key`. If there is none, that of `make(*tensors)` for inputs of these shapes and
        NumPy types; what `make` itself does is not part of the program."""
        if key not in self._kept:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)[1].program.close()
            inlets = tuple(Inlet(self._device, shape, kind) for shape, kind in inputs)
            program = self._device.record(make(*(inlet.tensor for inlet in inlets)))
            self._kept[key] = Recorded(program, inlets)
        self._kept.move_to_end(key)
        return self._kept[key]

    @property
    def n_bytes(self) -> int:
        """Of all inlets."""
        return sum(recorded.n_bytes for recorded in self._kept.values())

    def close(self) -> None:
        """Let all programs go."""
        for recorded in self._kept.values():
            recorded.program.close()
        self._kept.clear()


class Outlet:
    """Tensors on their way back to the host; read them once the device has been waited for."""

    def __init__(self, tensor: Tensor) -> None:
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
        else:
            self._host = tensor

    def read(self) -> np.ndarray:
        """What came, as an array of its own: pinned memory is short."""
        return np.array(self._host.numpy())


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0]
