"""The little of CUDA's runtime that TensorRT engines need, through NVIDIA's own bindings; no PyTorch.

Nothing here was run on a GPU yet; names are checked against the bindings by a test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import EngineError

ALIGNMENT = 256
"""Bytes; what TensorRT asks of scratch memory."""


def check(returned: tuple[Any, ...]) -> Any:
    """What a call gave, without its status. Raises `EngineError` for any status but success."""
    status, *rest = returned
    if status != cudart.cudaError_t.cudaSuccess:
        raise EngineError(f"CUDA: {status.name}; free memory on the GPU or see what its driver reports")
    return rest[0] if len(rest) == 1 else tuple(rest)


class Stream:
    """A stream beside the default one, on which all work of a bundle's engines runs in order."""

    def __init__(self) -> None:
        flag = cudart.cudaStreamNonBlocking
        self._stream = check(cudart.cudaStreamCreateWithFlags(flag))

    @property
    def handle(self) -> int:
        """For TensorRT."""
        return int(self._stream)

    def allocate(self, n_bytes: int) -> Memory:
        """Bytes on the GPU, zero at first."""
        return Memory(n_bytes)

    def copy(self, to: int, source: int, n_bytes: int) -> None:
        """Within the GPU, in the stream's order."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        check(cudart.cudaMemcpyAsync(to, source, n_bytes, kind, self._stream))

    def clear(self, at: int, n_bytes: int) -> None:
        """Zeros, in the stream's order."""
        check(cudart.cudaMemsetAsync(at, 0, n_bytes, self._stream))

    def upload(self, to: int, array: Array) -> None:
        """From the host; `array` is contiguous and must live until `wait`."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        check(cudart.cudaMemcpyAsync(to, array.ctypes.data, array.nbytes, kind, self._stream))

    def download(self, source: int, shape: tuple[int, ...]) -> Array:
        """Wait for all that is under way, then copy float32 values to the host."""
        made = np.empty(shape, np.float32)
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        check(cudart.cudaMemcpyAsync(made.ctypes.data, source, made.nbytes, kind, self._stream))
        self.wait()
        return made

    def wait(self) -> None:
        """Until all work is done."""
        check(cudart.cudaStreamSynchronize(self._stream))

    def mark(self) -> Mark:
        """A point in the stream's order, for measuring."""
        event = check(cudart.cudaEventCreate())
        check(cudart.cudaEventRecord(event, self._stream))
        return Mark(event)

    def capture(self) -> None:
        """From here on work is recorded, not done; only what this thread does is watched."""
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(cudart.cudaStreamBeginCapture(self._stream, mode))

    def captured(self) -> Graph:
        """What was recorded."""
        return Graph(check(cudart.cudaStreamEndCapture(self._stream)))

    def abandon(self) -> None:
        """End a capture that failed, whatever it says."""
        status, graph = cudart.cudaStreamEndCapture(self._stream)
        if status == cudart.cudaError_t.cudaSuccess and graph:
            cudart.cudaGraphDestroy(graph)
        cudart.cudaGetLastError()  # an error of the capture would otherwise come up again elsewhere

    def close(self) -> None:
        """Wait, and give it back."""
        if self._stream is not None:
            self.wait()
            check(cudart.cudaStreamDestroy(self._stream))
            self._stream = None


class Mark:
    """A point in a stream's order."""

    def __init__(self, event: Any) -> None:
        self._event = event

    def seconds_since(self, earlier: Mark) -> float:
        """Between two marks that the stream has passed."""
        return float(check(cudart.cudaEventElapsedTime(earlier._event, self._event))) / 1e3

    def __del__(self) -> None:
        cudart.cudaEventDestroy(self._event)


class Graph:
    """Recorded work, ready to be done again at the cost of one launch."""

    def __init__(self, recorded: Any) -> None:
        try:
            self._graph: Any = check(cudart.cudaGraphInstantiate(recorded, 0))
        finally:
            cudart.cudaGraphDestroy(recorded)

    def launch(self, stream: Stream) -> None:
        """Do it, in the stream's order."""
        check(cudart.cudaGraphLaunch(self._graph, stream.handle))

    def close(self) -> None:
        """Give it back."""
        if self._graph is not None:
            check(cudart.cudaGraphExecDestroy(self._graph))
            self._graph = None


class Memory:
    """Bytes on the GPU, zero at first."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = max(ALIGNMENT, -(-n_bytes // ALIGNMENT) * ALIGNMENT)
        self.address: int = int(check(cudart.cudaMalloc(self.n_bytes)))
        try:
            check(cudart.cudaMemset(self.address, 0, self.n_bytes))
            check(cudart.cudaDeviceSynchronize())  # the default stream's work is not ordered before ours
        except EngineError:
            self.close()
            raise

    def close(self) -> None:
        """Give it back."""
        if self.address:
            check(cudart.cudaFree(self.address))
            self.address = 0
