"""The `tensorrt` backend: plans built on this machine before, run without PyTorch and without Triton.

A plan has one shape; an engine of ours cuts what it is given to that shape. Nothing here was run on a GPU or
with TensorRT's libraries yet: names and signatures are checked against the bindings of 10.16 and 11.4.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorrt as trt

from taro_rt.engines import gpu
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.cache import content_of
from taro_rt.engines.contract import Array, Contract
from taro_rt.engines.cudart import Memory, Stream
from taro_rt.engines.errors import BackendUnavailable, BuildError, ContractError, EngineError
from taro_rt.engines.plans import Here, PlanKey, find_plan, plans_folder, read_plan, source_version
from taro_rt.engines.static import FLOAT_BYTES, PLANNED, ConditionerEngine, RowEngine, sized, static_contracts


class Log(trt.ILogger):  # type: ignore[misc]
    """Keeps what TensorRT says from warnings on; prints nothing."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT, also from its own threads."""
        if severity != trt.ILogger.Severity.VERBOSE and severity != trt.ILogger.Severity.INFO:
            self.lines.append(f"{severity.name}: {msg}")

    def last(self, count: int = 3) -> str:
        """The latest errors in one line, or the latest of anything."""
        errors = [line for line in self.lines if "ERROR" in line.split(":")[0]] or self.lines
        return " ".join(" ".join(errors[-count:]).split()) or "it says nothing"


class Resident:
    """One plan with buffers of its own on the GPU, whose addresses never change: `enqueue` can be recorded.

    Sizes of a free axis may change between calls, up to what the plan was built for, but not when recorded.
    """

    def __init__(self, engine: trt.ICudaEngine, contract: Contract, stream: Stream, log: Log) -> None:
        """Raises `ContractError` for a plan of other tensors than `contract`'s, else `BuildError`."""
        self.contract, self._stream, self._log = contract, stream, log
        self._engine: trt.ICudaEngine | None = engine
        _check(engine, contract)
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context: trt.IExecutionContext | None = engine.create_execution_context(strategy)
        if context is None:
            raise BuildError(f"{contract.graph}: TensorRT makes no context: {log.last()}")
        self._context: trt.IExecutionContext | None = context
        largest = _largest(engine, contract)
        self.shapes: dict[str, tuple[int, ...]] = {
            spec.name: sized(spec, largest) for spec in (*contract.inputs, *contract.outputs)
        }
        self.buffers: dict[str, Memory] = {}
        try:
            for name, shape in self.shapes.items():
                memory = self.buffers[name] = stream.allocate(FLOAT_BYTES * int(np.prod(shape)))
                if not context.set_tensor_address(name, memory.address):
                    raise BuildError(f"{contract.graph}: TensorRT takes no address for {name}: {log.last()}")
        except BaseException:  # an interrupt, too, gives the GPU's memory back
            self.close()
            raise

    @property
    def scratch_bytes(self) -> int:
        """What it needs beside its buffers while it runs."""
        return 0 if self._engine is None else int(self._engine.device_memory_size_v2)

    def lend(self, memory: Memory) -> None:
        """Scratch memory; plans that run one after the other on one stream may share it."""
        if self._context is not None:
            self._context.set_device_memory(memory.address, memory.n_bytes)

    def address(self, name: str, row: int = 0) -> int:
        """Where a tensor's row begins on the GPU."""
        return self.buffers[name].address + row * self.row_bytes(name)

    def row_bytes(self, name: str) -> int:
        """Of one entry of a tensor's first axis."""
        return FLOAT_BYTES * int(np.prod(self.shapes[name][1:]))

    def put(self, name: str, array: Array) -> None:
        """Upload an input; `array` is contiguous and must live until the stream has passed."""
        self._stream.upload(self.buffers[name].address, array)

    def reshape(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Give the inputs with a free axis their sizes, and with them the outputs."""
        if self._context is None:
            raise EngineError(f"{self.contract.graph}: this engine is closed; load it again")
        sizes: dict[str, int] = {}
        for spec in self.contract.inputs:
            free = {str(n): size for n, size in zip(spec.shape, shapes[spec.name], strict=True)}
            if any(isinstance(n, str) for n in spec.shape):
                sizes |= {n: size for n, size in free.items() if n.isalpha()}
                if not self._context.set_input_shape(spec.name, shapes[spec.name]):
                    raise ContractError(
                        f"{self.contract.graph}: the plan takes no {spec} of {list(shapes[spec.name])}"
                    )
        self.shapes = {
            spec.name: sized(spec, sizes) for spec in (*self.contract.inputs, *self.contract.outputs)
        }

    def enqueue(self) -> None:
        """Run it, in the stream's order. Raises `EngineError` when TensorRT refuses."""
        if self._context is None:
            raise EngineError(f"{self.contract.graph}: this engine is closed; load it again")
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(f"{self.contract.graph}: TensorRT stopped: {self._log.last()}")

    def take(self, name: str) -> Array:
        """An output, once the stream has passed."""
        return self._stream.download(self.buffers[name].address, self.shapes[name])

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Upload, run, download; for shapes of the plan's own contract."""
        self.contract.check(inputs)
        fed = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        self.reshape({name: array.shape for name, array in fed.items()})
        for name, array in fed.items():
            self.put(name, array)
        self.enqueue()
        return {spec.name: self.take(spec.name) for spec in self.contract.outputs}

    def close(self) -> None:
        """Let plan and buffers go, once the GPU is done with them."""
        if self._context is not None:
            with suppress(EngineError):  # what failed on the GPU was said when it was waited for
                self._stream.wait()
        self._context = self._engine = None
        for memory in self.buffers.values():
            memory.close()


@dataclass
class Loaded:
    """All plans of a bundle, on one stream, with scratch memory that they share."""

    stream: Stream
    plans: dict[tuple[str, int], Resident]
    scratch: Memory
    log: Log
    runtime: trt.Runtime
    keys: list[PlanKey] = field(default_factory=list)

    def close(self) -> None:
        """Let everything go."""
        for plan in self.plans.values():
            plan.close()
        self.scratch.close()
        self.stream.close()


def load_plans(bundle: Bundle, precision: str = "float16", folder: Path | None = None) -> Loaded:
    """The plans of `bundle` from `folder`, or from where `plans_folder` says.

    Raises `BackendUnavailable` without a GPU, `BuildError` naming a plan that is missing, stale or foreign.
    """
    here, folder = this_machine(bundle), plans_folder(bundle, folder)
    command = f"taro-rt plans --bundle {bundle.folder} --precision {precision}"
    found = {
        (graph, batch): find_plan(folder, f"{graph}.b{batch}.{precision}", here, command)
        for graph, batches in PLANNED.items()
        for batch in batches
    }  # all of them before the first is read
    log = Log()
    runtime, stream, plans = trt.Runtime(log), Stream(), dict[tuple[str, int], Resident]()
    try:
        for (graph, batch), (path, key) in found.items():
            contract = static_contracts(bundle.manifest.geometry, key.steps, batch)[graph]
            plans[graph, batch] = Resident(deserialize(runtime, path, key, log), contract, stream, log)
        scratch = stream.allocate(max(plan.scratch_bytes for plan in plans.values()))
    except BaseException:  # an interrupt, too, gives the GPU's memory back
        for plan in plans.values():
            plan.close()
        stream.close()
        raise
    for plan in plans.values():
        plan.lend(scratch)
    return Loaded(stream, plans, scratch, log, runtime, [key for _, key in found.values()])


def deserialize(runtime: trt.Runtime, path: Path, key: PlanKey, log: Log) -> trt.ICudaEngine:
    """The plan in the file `path`, with its weights. Raises `BuildError`."""
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(read_plan(path))
    if engine is None:
        raise BuildError(f"{path.name}: TensorRT {trt.__version__} cannot load it: {log.last()}")
    if "stripped" in key.flags:
        refit(engine, path.parent / f"{key.stem()}.{key.onnx_sha256[:16]}.onnx", key, log)
    return engine


def load_trt(bundle: Bundle, loaded: Loaded) -> dict[str, RowEngine | ConditionerEngine]:
    """An engine for each graph, made of the plans of `loaded`."""
    engines: dict[str, RowEngine | ConditionerEngine] = {}
    for graph, contract in bundle.contracts().items():
        plans = {batch: loaded.plans[graph, batch] for batch in PLANNED[graph]}
        if graph == "conditioner":
            engines[graph] = ConditionerEngine(contract, plans[1])
        else:
            engines[graph] = RowEngine(contract, plans)
    return engines


def this_machine(bundle: Bundle) -> Here:
    """What plans of `bundle` must have been built for. Raises `BackendUnavailable` without a GPU."""
    found = gpu.find_gpu()
    if isinstance(found, str):
        raise BackendUnavailable(f"backend tensorrt {found}")
    capability = f"{found.capability[0]}.{found.capability[1]}"
    return Here(content_of(bundle), source_version(), trt.__version__, found.name, capability)


def refit(engine: trt.ICudaEngine, onnx: Path, key: PlanKey, log: Log) -> None:
    """Give a stripped plan its weights. Raises `BuildError` for another ONNX file than it was made of."""
    try:
        content = onnx.read_bytes()
    except OSError as error:
        raise BuildError(
            f"{key.stem()}: the plan was stripped of its weights, and {onnx.name} beside it cannot be read "
            f"({error.strerror}); copy it there, or build again with taro-rt plans --force"
        ) from error
    if (digest := hashlib.sha256(content).hexdigest()) != key.onnx_sha256:
        raise BuildError(
            f"{onnx.name}: expected sha256 {key.onnx_sha256[:12]}…, got {digest[:12]}…; it is not what the "
            "plan was made of"
        )
    refitter = trt.Refitter(engine, log)
    parser = trt.OnnxParserRefitter(refitter, log)
    if not parser.refit_from_bytes(content) or not refitter.refit_cuda_engine():
        missing = refitter.get_missing_weights()
        raise BuildError(
            f"{key.stem()}: TensorRT cannot refit it: {log.last()}; missing: {list(missing)[:5]}"
        )


def _largest(engine: trt.ICudaEngine, contract: Contract) -> dict[str, int]:
    """The largest size of every free axis that the plan was built for."""
    found: dict[str, int] = {}
    for spec in contract.inputs:
        if any(isinstance(n, str) for n in spec.shape):
            upper = engine.get_tensor_profile_shape(spec.name, 0)[2]
            found |= {n: int(upper[i]) for i, n in enumerate(spec.shape) if isinstance(n, str)}
    return found


def _check(engine: trt.ICudaEngine, contract: Contract) -> None:
    names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
    specs = (*contract.inputs, *contract.outputs)
    if names != {spec.name for spec in specs}:
        raise ContractError(
            f"{contract.graph}: expected a plan of {sorted(s.name for s in specs)}, got {sorted(names)}"
        )
    for spec in specs:
        shape = tuple(engine.get_tensor_shape(spec.name))
        wanted = tuple(-1 if isinstance(n, str) else n for n in spec.shape)
        dtype = engine.get_tensor_dtype(spec.name)
        if shape != wanted or dtype != trt.DataType.FLOAT:
            raise ContractError(f"{contract.graph}: expected {spec} as float32, got {list(shape)} {dtype}")
