"""A stand-in for TensorRT that computes with ONNX Runtime, as far as `export.tensorrt` and `engines.trt` go.

A plan is the ONNX file with what the build was told. It refuses what TensorRT is documented to refuse: axes
without a profile, sizes beyond it, tensors without an address, scratch memory that is missing or too small,
a stripped plan that was not refitted. Names and signatures are checked elsewhere, against the bindings.
"""

from __future__ import annotations

import ctypes
import itertools
import json
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from cuda.bindings import runtime as cudart

from tensorrt import plugin

__version__ = "11.4.0.106"
DataType = IntEnum("DataType", ["FLOAT", "HALF"])
NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
BuilderFlag = IntEnum("BuilderFlag", ["TF32", "STRIP_PLAN"])
ProfilingVerbosity = IntEnum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
ExecutionContextAllocationStrategy = IntEnum("ExecutionContextAllocationStrategy", ["STATIC", "USER_MANAGED"])
MAGIC = b"stand-in"
SCRATCH_BYTES = 5000
refused: set[str] = set()
"""Operators that the parser does not know, for tests of failures."""
unbuildable: set[str] = set()
"""Operators that nothing can be built of."""
asked: dict[str, int] = {}
"""How many kernels each plugin offered, by its name."""


class ILogger:
    Severity = IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


def _say(log: ILogger, text: str) -> None:
    log.log(ILogger.Severity.ERROR, text)


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        self.shapes[name] = [tuple(low), tuple(best), tuple(high)]


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"times;"


class IBuilderConfig:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.profiles: list[Profile] = []
        self.cache = TimingCache(b"")

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> TimingCache | None:
        return None if content.startswith(b"damaged") else TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache:
        return self.cache


class Network:
    model: onnx.ModelProto


class Builder:
    def __init__(self, log: ILogger) -> None:
        self._log = log

    def create_network(self, flags: int) -> Network:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return Network()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: IBuilderConfig) -> bytes | None:
        model = onnx.ModelProto()
        model.CopyFrom(network.model)
        shapes = config.profiles[0].shapes if config.profiles else {}
        for given in model.graph.input:
            if -1 in _shape(given) and given.name not in shapes:
                _say(self._log, f"{given.name} has a free axis and no profile")
                return None
        for node in model.graph.node:
            if node.op_type in unbuildable:
                _say(self._log, f"no implementation of node {node.name}")
                return None
        stripped = []
        for weight in model.graph.initializer:
            if BuilderFlag.STRIP_PLAN in config.flags and weight.raw_data:
                weight.ClearField("raw_data")
                stripped.append(weight.name)
        about = {"shapes": shapes, "stripped": stripped}
        return MAGIC + json.dumps(about).encode() + b"\n" + model.SerializeToString()


class OnnxParser:
    def __init__(self, network: Network, log: ILogger) -> None:
        self._network = network
        self._errors: list[Any] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, i: int) -> Any:
        return self._errors[i]

    def parse(self, content: bytes) -> bool:
        self._network.model = onnx.load_from_string(content)
        _ask_plugins(self._network.model)
        for i, node in enumerate(self._network.model.graph.node):
            if node.op_type in refused:
                said = (i, node.name, node.op_type, "no importer registered")
                names = ("node", "node_name", "node_operator", "desc")
                self._errors.append(
                    SimpleNamespace(**{n: lambda v=v: v for n, v in zip(names, said, strict=True)})
                )
        return not self._errors


class ICudaEngine:
    def __init__(self, log: ILogger, about: dict[str, Any], model: onnx.ModelProto) -> None:
        self._log, self._profile, self.model = log, about["shapes"], model
        self.missing = set(about["stripped"])
        self._tensors = {value.name: value for value in (*model.graph.input, *model.graph.output)}
        self.device_memory_size_v2 = SCRATCH_BYTES

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, i: int) -> str:
        return list(self._tensors)[i]

    def get_tensor_shape(self, name: str) -> list[int]:
        return _shape(self._tensors[name])

    def get_tensor_dtype(self, name: str) -> Any:
        kind = self._tensors[name].type.tensor_type.elem_type
        return DataType.FLOAT if kind == onnx.TensorProto.FLOAT else DataType.HALF

    def get_tensor_profile_shape(self, name: str, i: int) -> list[Any]:
        return list(self._profile[name])

    def create_execution_context(self, strategy: Any) -> IExecutionContext | None:
        if self.missing:
            _say(self._log, f"{len(self.missing)} weights are missing")
            return None
        return IExecutionContext(self, self._log)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, log: ILogger) -> None:
        self._engine, self._log = engine, log
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(_for_onnxruntime(engine.model), options)
        self._inputs = [value.name for value in engine.model.graph.input]
        self._shapes = {name: engine.get_tensor_shape(name) for name in self._inputs}
        self._at: dict[str, int] = {}
        self._scratch = 0

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._at[name] = address
        return name in self._engine._tensors and address % 256 == 0

    def set_device_memory(self, address: int, n_bytes: int) -> None:
        self._scratch = n_bytes

    def set_input_shape(self, name: str, shape: Any) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, 0)
        if not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = list(shape)
        return True

    def execute_async_v3(self, stream: int) -> bool:
        faults = [f"{name} has no address" for name in self._engine._tensors if name not in self._at]
        faults += [f"{name} has no size" for name, shape in self._shapes.items() if -1 in shape]
        faults += ["scratch memory is missing"] if self._scratch < self._engine.device_memory_size_v2 else []
        for fault in faults:
            _say(self._log, fault)
        if faults:
            return False
        shapes = {name: tuple(shape) for name, shape in self._shapes.items()}
        cudart.submit(stream, lambda: self._run(shapes))
        return True

    def _run(self, shapes: dict[str, tuple[int, ...]]) -> None:
        feed = {name: _view(self._at[name], shape).copy() for name, shape in shapes.items()}
        names = [value.name for value in self._engine.model.graph.output]
        for name, made in zip(names, self._session.run(names, feed), strict=True):
            _view(self._at[name], made.shape)[...] = made


class Runtime:
    def __init__(self, log: ILogger) -> None:
        self._log = log

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        if not plan.startswith(MAGIC):
            _say(self._log, "the plan has another magic tag")
            return None
        about, _, content = plan[len(MAGIC) :].partition(b"\n")
        return ICudaEngine(self._log, json.loads(about), onnx.load_from_string(content))


class Refitter:
    def __init__(self, engine: ICudaEngine, log: ILogger) -> None:
        self.engine = engine
        self.weights: dict[str, onnx.TensorProto] = {}

    def refit_cuda_engine(self) -> bool:
        for weight in self.engine.model.graph.initializer:
            if weight.name in self.engine.missing & set(self.weights):
                weight.CopyFrom(self.weights[weight.name])
                self.engine.missing.remove(weight.name)
        return not self.engine.missing

    def get_missing_weights(self) -> list[str]:
        return sorted(self.engine.missing)


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, log: ILogger) -> None:
        self._refitter = refitter

    def refit_from_bytes(self, content: bytes) -> bool:
        model = onnx.load_from_string(content)
        self._refitter.weights = {weight.name: weight for weight in model.graph.initializer}
        return True


def _ask_plugins(model: onnx.ModelProto) -> None:
    """Of every node that names a plugin which is registered, all that a build would want to know."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = {v.name: v for v in (*inferred.input, *inferred.value_info, *inferred.output)}
    for node in model.graph.node:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        name = f"{given['plugin_namespace'].decode()}::{node.op_type}" if "plugin_namespace" in given else ""
        if name in plugin.registered:
            assert given["aot"] == 1 and given["plugin_version"] == b"1"
            tensors = [[_described(values[n]) for n in names] for names in (node.input, node.output)]
            asked[name] = plugin.ask(name, *tensors, given["places"].decode())


def _described(value: onnx.ValueInfoProto) -> plugin.TensorDesc:
    is_wide = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    return plugin.TensorDesc(tuple(_shape(value)), DataType.FLOAT if is_wide else DataType.HALF)


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]


def _view(at: int, shape: tuple[int, ...]) -> Any:
    n = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * n).from_address(at)).reshape(shape)


def _for_onnxruntime(model: onnx.ModelProto) -> bytes:
    """Without the attribute that only TensorRT's parser has."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for node in itertools.chain(plain.graph.node, *(function.node for function in plain.functions)):
        kept = [given for given in node.attribute if given.name != "TRT_decomposable"]
        del node.attribute[:]
        node.attribute.extend(kept)
    content: bytes = plain.SerializeToString()
    return content
