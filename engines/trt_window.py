"""One window from frames to sound on plans that share a stream; the sampler's loop is one CUDA graph.

The loop is recorded once for every pattern of guided steps: coefficients, guidance, noise and modulation are
data that lies on the GPU before it starts. Where it cannot be recorded it is enqueued step by step.
Nothing here was run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import EngineError
from taro_rt.engines.stages import Geometry
from taro_rt.engines.static import (
    FLOAT_BYTES,
    STRIDE,
    coefficients,
    filled,
    mixing,
    onset_tensor,
    visual_tensor,
)
from taro_rt.engines.window import Pixels, Scene, Sound

if TYPE_CHECKING:
    from taro_rt.engines.cudart import Graph, Memory
    from taro_rt.engines.trt import Loaded, Resident


@dataclass
class Program:
    """A loop over steps: what they read, and the recording, if there is one."""

    guided: tuple[bool, ...]
    noise: Memory
    coefficients: Memory
    modulation: Memory
    """Of the condition, [s, 1, n_t, V, d]."""
    null: Memory
    """Of the null condition, in as many rows: [s, n_t, V, d]; empty where no step is guided."""
    null_times: tuple[float, ...] = ()
    """When it was made for: it depends on time alone."""
    graph: Graph | None = None
    why_not: str = ""
    """Why it could not be recorded."""

    def close(self) -> None:
        """Let it go."""
        if self.graph is not None:
            self.graph.close()
        for memory in (self.noise, self.coefficients, self.modulation, self.null):
            memory.close()


class TrtWindow:
    """A `Window` of TensorRT plans."""

    def __init__(self, loaded: Loaded, geometry: Geometry) -> None:
        self._loaded, self._geometry, self._stream = loaded, geometry, loaded.stream
        self._programs: dict[tuple[bool, ...], Program] = {}
        self._kept: list[Array] = []
        """What is on its way to the GPU."""
        self._heard: Memory | None = None
        """Logits of all segments, until they come to the host."""

    def __call__(self, scene: Scene) -> Sound:
        """Raises `EngineError`, also for too little memory."""
        stream, waves = self._stream, []
        marks = [stream.mark()]
        self._listen(scene)
        self._look(scene.visual_frames)
        marks.append(stream.mark())
        program = self._program(tuple(step.guided for step in scene.steps))
        self._condition(program, scene)
        for take in range(scene.takes):
            self._sample(program, scene, take)
            marks.append(stream.mark())
            waves.append(self._sound())
            marks.append(stream.mark())
        stream.wait()
        self._kept.clear()
        logits = None
        if self._heard is not None and scene.onset_frames is not None:
            n_values = len(scene.onset_frames) * self._geometry.onset_segment
            logits = stream.download(self._heard.address, (n_values,))
        seconds = {"watch": 0.0, "sampler": 0.0, "sound": 0.0}
        for k, start in enumerate(marks[:-1]):
            stage = "watch" if k == 0 else "sampler" if k % 2 else "sound"
            seconds[stage] += marks[k + 1].seconds_since(start)
        return Sound(logits, np.concatenate(waves), seconds)

    @property
    def memory_mb(self) -> float:
        """Of the device: buffers, scratch and what the loop reads; plans hold their weights besides."""
        memories = [m for plan in self._loaded.plans.values() for m in plan.buffers.values()]
        memories.append(self._loaded.scratch)
        for program in self._programs.values():
            memories += [program.noise, program.coefficients, program.modulation, program.null]
        return round(sum(memory.n_bytes for memory in memories) / 1e6, 1)

    def reasons(self) -> list[str]:
        """Why loops were not recorded, if any was not."""
        return [program.why_not for program in self._programs.values() if program.why_not]

    def close(self) -> None:
        """Let everything go."""
        for program in self._programs.values():
            program.close()
        self._programs.clear()
        if self._heard is not None:
            self._heard.close()
            self._heard = None
        self._loaded.close()

    def _plan(self, graph: str, batch: int = 1) -> Resident:
        return self._loaded.plans[graph, batch]

    def _listen(self, scene: Scene) -> None:
        """Onset logits into the conditioner: those given, or those of the segments."""
        conditioner, g = self._plan("conditioner"), self._geometry
        if scene.onset is not None:
            self._put(conditioner, "onset", scene.onset.reshape(1, -1))
            return
        assert scene.onset_frames is not None
        plan, heard = self._plan("onset"), self._room_for(len(scene.onset_frames))
        size = plan.row_bytes("logits")
        for k, segment in enumerate(scene.onset_frames):
            self._put(plan, "frames", onset_tensor(segment))
            plan.enqueue()
            self._stream.copy(heard.address + k * size, plan.address("logits"), size)
        n_bytes = min(len(scene.onset_frames) * size, FLOAT_BYTES * g.onset_values)
        self._stream.copy(conditioner.address("onset"), heard.address, n_bytes)

    def _room_for(self, segments: int) -> Memory:
        n_bytes = segments * self._plan("onset").row_bytes("logits")
        if self._heard is None or self._heard.n_bytes < n_bytes:
            if self._heard is not None:
                self._heard.close()
            self._heard = self._stream.allocate(n_bytes)
        return self._heard

    def _look(self, frames: Pixels) -> None:
        """Visual features into the conditioner."""
        plan, conditioner = self._plan("visual"), self._plan("conditioner")
        tensor = visual_tensor(frames)
        plan.reshape({"frames": tensor.shape})
        self._put(plan, "frames", tensor)
        plan.enqueue()
        n_bytes = conditioner.row_bytes("features")
        self._stream.copy(conditioner.address("features"), plan.address("features"), n_bytes)

    def _condition(self, program: Program, scene: Scene) -> None:
        """Tokens into the denoiser, modulation of all steps and their coefficients into the program."""
        plan, stream = self._plan("conditioner"), self._stream
        times = np.array([step.t for step in scene.steps], np.float32)
        first = 0
        for part in filled(times, plan.shapes["times"][0]):
            self._put(plan, "times", part)
            plan.enqueue()
            n = min(len(part), len(times) - first)
            row = plan.row_bytes("modulation")
            stream.copy(program.modulation.address + first * row, plan.address("modulation"), n * row)
            if any(program.guided) and program.null_times != tuple(times):
                self._spread_null(program, plan, first, n)
            first += n
        program.null_times = tuple(times)
        tokens = plan.row_bytes("tokens")
        for batch in {2 if guided else 1 for guided in program.guided}:
            denoiser = self._plan("denoiser", batch)
            stream.copy(denoiser.address("tokens"), plan.address("tokens"), tokens)
            if batch == 2:  # the null row's tokens are zero (spec B4)
                stream.clear(denoiser.address("tokens", 1), tokens)
            self._put(denoiser, "mix", mixing(scene.steps, batch))
        self._upload(program.coefficients.address, coefficients(scene.steps))

    def _spread_null(self, program: Program, plan: Resident, first: int, n: int) -> None:
        """The null row has one row of modulation, a frame-wise denoiser reads one for each time."""
        rows, size = self._geometry.time_positions, plan.row_bytes("null_modulation")
        for i in range(n):
            for k in range(rows):
                to = program.null.address + ((first + i) * rows + k) * size
                self._stream.copy(to, plan.address("null_modulation", i), size)

    def _sample(self, program: Program, scene: Scene, take: int) -> None:
        """Noise up, then the whole loop."""
        drawn = [scene.noise(0, take, 1)]
        empty = np.zeros_like(drawn[0])
        for i, step in enumerate(scene.steps):
            drawn.append(scene.noise(i + 1, take, 1) if step.spread > 0 else empty)
        self._upload(program.noise.address, np.concatenate(drawn))
        if program.graph is None and not program.why_not:
            self._record(program)
        if program.graph is not None:
            program.graph.launch(self._stream)
        else:
            self._loop(program)

    def _record(self, program: Program) -> None:
        """Once as it is, so that nothing is left to be set up, then again for the recording."""
        self._loop(program)
        self._stream.wait()
        try:
            self._stream.capture()
            self._loop(program)
            program.graph = self._stream.captured()
        except EngineError as error:
            self._stream.abandon()
            program.why_not = str(error)
        except BaseException:  # an interrupt: a stream that goes on recording would run nothing any more
            self._stream.abandon()
            raise

    def _loop(self, program: Program) -> None:
        """All steps, from the first entry of the noise to the decoder's latents."""
        stream = self._stream
        state, size = program.noise.address, self._plan("denoiser").row_bytes("latents")
        for i, guided in enumerate(program.guided):
            plan = self._plan("denoiser", 2 if guided else 1)
            of_step = plan.row_bytes("modulation")
            for row in range(2 if guided else 1):
                stream.copy(plan.address("latents", row), state, size)
                stream.copy(plan.address("noise", row), program.noise.address + (i + 1) * size, size)
                source = program.null if row else program.modulation
                stream.copy(plan.address("modulation", row), source.address + i * of_step, of_step)
            at = program.coefficients.address + i * STRIDE * FLOAT_BYTES
            stream.copy(plan.address("update"), at, 3 * FLOAT_BYTES)
            plan.enqueue()
            state = plan.address("latents_out")
        stream.copy(self._plan("decoder").address("latents"), state, size)

    def _sound(self) -> Array:
        decoder, vocoder = self._plan("decoder"), self._plan("vocoder")
        decoder.enqueue()
        self._stream.copy(vocoder.address("mel"), decoder.address("mel"), decoder.row_bytes("mel"))
        vocoder.enqueue()
        return vocoder.take("wave")

    def _program(self, guided: tuple[bool, ...]) -> Program:
        if guided not in self._programs:
            denoiser, n = self._plan("denoiser"), len(guided)
            of_step = denoiser.row_bytes("modulation")
            of_noise, of_null = (n + 1) * denoiser.row_bytes("latents"), n * of_step if any(guided) else 0
            sizes = (of_noise, n * STRIDE * FLOAT_BYTES, n * of_step, of_null)
            noise, rows, modulation, null = self._allocated(sizes)
            self._programs[guided] = Program(guided, noise, rows, modulation, null)
        return self._programs[guided]

    def _allocated(self, sizes: Sequence[int]) -> list[Memory]:
        """Memory of all sizes, or an error and none."""
        with ExitStack() as taken:
            made = []
            for size in sizes:
                made.append(self._stream.allocate(size))
                taken.callback(made[-1].close)
            taken.pop_all()
        return made

    def _put(self, plan: Resident, name: str, array: Array) -> None:
        self._upload(plan.address(name), array)

    def _upload(self, to: int, array: Array) -> None:
        whole = np.ascontiguousarray(array, np.float32)
        self._kept.append(whole)
        self._stream.upload(to, whole)
