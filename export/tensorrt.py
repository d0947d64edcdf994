"""TensorRT plans of a bundle, built in this process for the GPU of this machine.

Networks are strongly typed: precision is in the ONNX files. A plan lies in the cache under everything it
depends on (`engines.plans`) and is built again only when asked. Nothing here was run with TensorRT's
libraries yet; what calls them is checked by name and signature, and the files it parses by TensorRT-RTX.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from taro_rt.engines import gpu
from taro_rt.engines.backends import is_installed
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.cache import content_of
from taro_rt.engines.contract import Contract
from taro_rt.engines.eager import load_networks
from taro_rt.engines.errors import BackendUnavailable, BuildError, OptionsError
from taro_rt.engines.plans import (
    PlanKey,
    plans_folder,
    read_plan,
    source_version,
    write_plan,
    write_whole,
)
from taro_rt.engines.stages import Geometry
from taro_rt.engines.static import PLANNED, static_contracts
from taro_rt.export.custom import PLUGIN
from taro_rt.export.deploy import DTYPES, Precision, deployed_models
from taro_rt.export.progress import Tell, silent

if TYPE_CHECKING:
    import tensorrt as trt

LEVELS = range(0, 6)
NEEDS = "pip install 'taro-rt[trt,export]'"


@dataclass(frozen=True)
class BuildOptions:
    """How plans are built."""

    precision: Precision = "float16"
    level: int = 3
    """TensorRT's optimisation level: how many tactics are tried."""
    plugins: bool = True
    """Our kernels inside, where Triton is installed to compile them; else TensorRT's own of the same sums."""
    strip: bool = False
    """Leave the weights out of the plan; they are read from the ONNX file that is then kept beside it."""
    force: bool = False
    """Build anew what is already there."""
    attention: bool = False
    """Our attention kernel inside as well, in the place of TensorRT's own; half precision only."""

    def check(self) -> None:
        """Raise `OptionsError` for what cannot be."""
        if self.precision not in DTYPES:
            raise OptionsError(f"precision: expected one of {', '.join(DTYPES)}, got {self.precision!r}")
        if self.level not in LEVELS:
            raise OptionsError(f"level: expected {LEVELS[0]} to {LEVELS[-1]}, got {self.level}")
        if self.attention and (self.precision != "float16" or not self.plugins):
            raise OptionsError(
                "attention: expected float16 and plugins with our attention kernel, "
                f"got {self.precision}, {'with' if self.plugins else 'without'} plugins"
            )


def build_plans(
    bundle: Bundle, folder: Path | None = None, options: BuildOptions | None = None, tell: Tell = silent
) -> dict[str, Path]:
    """The plan of every graph and batch in `PLANNED`, by "graph.bN"; those that are there are kept.

    They lie in `folder`, or where `plans_folder` says. Raises `BackendUnavailable` without TensorRT or a
    GPU, `OptionsError`, or `BuildError` naming the node at fault and the file that holds the whole log.
    """
    options = options or BuildOptions()
    options.check()
    require()
    import tensorrt as trt

    machine = gpu.find_gpu()
    assert not isinstance(machine, str)  # `require` looked
    folder = plans_folder(bundle, folder)
    flags = build_flags(options, with_triton=can_compile(machine.capability))
    if options.attention:
        require_attention(bundle, "plugins" in flags)
    if "plugins" in flags:
        from taro_rt.kernels.plugin import register_plugins

        register_plugins(machine.capability)
    steps, paths = bundle.manifest.sampler.steps, dict[str, Path]()
    content_of_bundle, sources = content_of(bundle), source_version()
    total = sum(map(len, PLANNED.values()))
    for i, (graph, batch, model) in enumerate(
        deployed_models(load_networks(bundle), options.precision, steps, attention=options.attention)
    ):
        tell("build", i / total)
        content = model.SerializeToString(deterministic=True)
        contract = static_contracts(bundle.manifest.geometry, steps, batch)[graph]
        key = PlanKey(
            graph, batch, options.precision, content_of_bundle, sources,
            hashlib.sha256(content).hexdigest(), trt.__version__, machine.name,
            f"{machine.capability[0]}.{machine.capability[1]}",
            profile_text(contract, bundle.manifest.geometry), steps, flags,
        )  # fmt: skip
        path = folder / key.file_name()
        if options.force or not is_whole(path):
            timing = folder / timing_name(trt.__version__, machine.name)
            given = for_parser(content, "plugins" in flags)
            plan = build_plan(given, contract, bundle.manifest.geometry, options, timing, path)
            if options.strip:
                write_whole(folder / f"{key.stem()}.{key.onnx_sha256[:16]}.onnx", content)
            write_plan(folder, key, plan)
        else:
            os.utime(path)  # of several that fit, the one asked for last is loaded
        paths[f"{graph}.b{batch}"] = path
    tell("build", 1.0)
    return paths


def require_attention(bundle: Bundle, has_compiler: bool) -> None:
    """Raise `BackendUnavailable` or `OptionsError` unless our attention kernel suits plans of `bundle`."""
    if not has_compiler:
        raise BackendUnavailable(
            "attention: our kernel needs Triton (pip install triton) and a GPU that it is compiled for"
        )
    from taro_rt.kernels.attention import WIDTHS

    c = bundle.manifest.networks.transformer
    if c.width // c.heads not in WIDTHS:
        raise OptionsError(
            f"attention: expected heads of width {WIDTHS}, got {c.width // c.heads}; leave it out"
        )


def can_compile(capability: tuple[int, int]) -> bool:
    """Whether our kernels can go into plans for such a GPU."""
    if not is_installed("triton"):
        return False
    from taro_rt.kernels.aot import PTX_VERSIONS

    if capability not in PTX_VERSIONS:
        logging.getLogger("taro_rt").warning(
            "plans are built without our kernels inside: compute capability %d.%d is not known yet",
            *capability,
        )
    return capability in PTX_VERSIONS


def require() -> None:
    """Raise `BackendUnavailable` unless plans can be built here."""
    if missing := [name for name in ("tensorrt", "cuda.bindings") if not is_installed(name)]:
        raise BackendUnavailable(f"building plans needs {' and '.join(missing)}: {NEEDS}")
    if reason := gpu.why_not():
        raise BackendUnavailable(f"building plans {reason}")


def build_plan(
    content: bytes,
    contract: Contract,
    geometry: Geometry,
    options: BuildOptions,
    timing: Path,
    path: Path,
) -> bytes:
    """Parse and build what `for_parser` made of an ONNX file.

    `timing` is where measured times are kept for the next build, `path` the plan's: what TensorRT says of a
    failure is written beside it as a .log file, and named.

    Raises `BuildError`.
    """
    import tensorrt as trt

    from taro_rt.engines.trt import Log

    log = Log()
    builder = trt.Builder(log)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        raise _failure(contract, path, log.lines, "cannot parse", _parser_errors(parser))
    config = _configure(builder, contract, geometry, options)
    cache = config.create_timing_cache(timing.read_bytes() if timing.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    made = builder.build_serialized_network(network, config)
    if made is None:
        raise _failure(contract, path, log.lines, "cannot build", log.last())
    write_whole(timing, bytes(config.get_timing_cache().serialize()))
    return bytes(made)


def _configure(
    builder: trt.Builder, contract: Contract, geometry: Geometry, options: BuildOptions
) -> trt.IBuilderConfig:
    import tensorrt as trt

    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # what stays float32 does so because it matters
    config.builder_optimization_level = options.level
    config.max_aux_streams = 0  # plans share scratch memory, in the order of one stream
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.strip:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    ranges = free_ranges(contract, geometry)
    if ranges:
        profile = builder.create_optimization_profile()
        for spec in contract.inputs:
            least, most = (
                tuple(ranges[n][i] if isinstance(n, str) else n for n in spec.shape) for i in (0, 1)
            )
            profile.set_shape(spec.name, least, most, most)
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(
                f"{contract.graph}: TensorRT takes no profile of {profile_text(contract, geometry)}"
            )
    return config


def free_ranges(contract: Contract, geometry: Geometry) -> dict[str, tuple[int, int]]:
    """Least and most of every free axis: only a visual network that looks ahead has one."""
    letters = {n for spec in contract.inputs for n in spec.shape if isinstance(n, str)}
    known = {"t": (geometry.visual_frames, geometry.visual_encode)}
    return {letter: known[letter] for letter in sorted(letters)}


def profile_text(contract: Contract, geometry: Geometry) -> str:
    """All inputs and the ranges of their free axes."""
    ranges = ", ".join(f"{n} {low}..{high}" for n, (low, high) in free_ranges(contract, geometry).items())
    return "; ".join(filter(None, [", ".join(str(spec) for spec in contract.inputs), ranges]))


def build_flags(options: BuildOptions, with_triton: bool) -> tuple[str, ...]:
    """What a plan's key says of how it was built."""
    flags = ["strongly typed", "no tf32", f"level {options.level}"]
    if options.plugins and with_triton:
        from taro_rt.kernels.aot import compiler

        flags += ["plugins", compiler()]
        flags += ["attention"] if options.attention else []
    if options.strip:
        flags.append("stripped")
    return tuple(flags)


def for_parser(content: bytes, plugins: bool) -> bytes:
    """The same file with every Attention marked as one that may be taken apart where no fused kernel fits.

    Without `plugins`, nodes of ours lose what names them as such and are their function bodies: a plugin that
    this process registered for an earlier build would be taken otherwise.
    Only for TensorRT's parser: ONNX Runtime refuses attributes that the standard does not have.
    """
    model = onnx.load_from_string(content)
    for node in chain(model.graph.node, *(function.node for function in model.functions)):
        if node.op_type == "Attention" and not node.domain:
            node.attribute.append(onnx.helper.make_attribute("TRT_decomposable", 1))
        if node.domain and not plugins:
            kept = [given for given in node.attribute if given.name not in PLUGIN]
            del node.attribute[:]
            node.attribute.extend(kept)
    made: bytes = model.SerializeToString(deterministic=True)
    return made


def is_whole(path: Path) -> bool:
    """Whether a plan is there, unchanged; a damaged one is built again."""
    if not path.is_file():
        return False
    try:
        read_plan(path)
    except BuildError as error:
        logging.getLogger("taro_rt").warning("%s", error)
        return False
    return True


def timing_name(version: str, name: str) -> str:
    """The file of measured times of one TensorRT on one kind of GPU."""
    return f"timing.{version}.{''.join(c if c.isalnum() else '-' for c in name)}.cache"


def _parser_errors(parser: trt.OnnxParser) -> str:
    """Every error with its node."""
    found = []
    for i in range(parser.num_errors):
        error = parser.get_error(i)
        found.append(f"node {error.node()} {error.node_name()} ({error.node_operator()}): {error.desc()}")
    return "; ".join(found) or "it says nothing"


def _failure(contract: Contract, path: Path, lines: list[str], what: str, why: str) -> BuildError:
    log = path.with_suffix(".log")
    write_whole(log, "\n".join([f"{contract.graph}: {what}: {why}", *lines, ""]).encode())
    return BuildError(
        f"{contract.graph}: TensorRT {what} it: {' '.join(why.split())[:600]}; all it said is in {log}"
    )
