"""Every name and every call of TensorRT's that our code uses is in its bindings, 10.16 and 11.4.

Names and signatures come from a record that `trt_stubs.py` reads from the bindings' wheels. Where such a
wheel is installed (`pip install 'taro-rt[trt-check]'`) the record is compared with it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from trt_stubs import environment, needed, read_api
from trt_uses import FILES, Walk, faults, uses

ROOT = Path(__file__).parents[1]
RECORD: list[dict[str, Any]] = json.loads((ROOT / "tests" / "trt_api.json").read_text("utf-8"))
VERSIONS = [api["version"] for api in RECORD]
BINDINGS = find_spec("tensorrt_bindings")
INSTALLED = pytest.mark.skipif(
    BINDINGS is None or shutil.which("gcc") is None,
    reason="needs TensorRT's bindings and gcc: pip install 'taro-rt[trt-check]'",
)


def test_the_record_is_of_both_versions() -> None:
    assert [version.split(".")[:2] for version in VERSIONS] == [["10", "16"], ["11", "4"]]


@pytest.mark.parametrize("api", RECORD, ids=VERSIONS)
def test_all_that_is_used_exists(api: dict[str, Any]) -> None:
    found = uses(ROOT, api)
    assert len(found) > 90
    assert [fault for use in found for fault in faults(use, api)] == []


@pytest.mark.parametrize("api", RECORD, ids=VERSIONS)
def test_the_walk_follows_what_matters(api: dict[str, Any]) -> None:
    """Calls on objects count only if their class was found: none of these may slip by."""
    called = {(use.owner, use.name) for use in uses(ROOT, api) if use.positional is not None}
    assert called >= {
        ("Builder", "build_serialized_network"),
        ("IBuilderConfig", "set_timing_cache"),
        ("ITimingCache", "serialize"),
        ("OnnxParser", "parse"),
        ("ParserError", "node_name"),
        ("Runtime", "deserialize_cuda_engine"),
        ("IExecutionContext", "execute_async_v3"),
        ("IExecutionContext", "set_device_memory"),
        ("IExecutionContext", "set_tensor_address"),
        ("OnnxParserRefitter", "refit_from_bytes"),
        ("plugin", "aot_impl"),
    }


def test_no_other_file_knows_tensorrt() -> None:
    folders = ("engines", "export", "kernels", "runtime", "training")
    known = re.compile(r"^\s*(import tensorrt|from tensorrt)", re.MULTILINE)
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if known.search(path.read_text("utf-8"))
    }
    assert found <= set(FILES)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trt.NetworkDefinitionCreationFlag.IMPLICIT_BATCH", "has no IMPLICIT_BATCH"),
        ("builder = trt.Builder(log)\n    builder.build_engine(1)", "Builder has no build_engine"),
        (
            "config = trt.Builder(log).create_builder_config()\n    config.max_workspace_size = 1",
            "has no max_w",
        ),
        ("trt.Builder(log).create_network(1, 2)", "create_network takes"),
        ("trt.Builder(log).create_network(flag=1)", "create_network takes"),
        ("context: trt.IExecutionContext\n    context.execute_async_v2(1)", "has no execute_async_v2"),
        ("context: trt.IExecutionContext\n    context.set_tensor_address('x')", "set_tensor_address takes"),
        ("trt.DataType.FP16", "DataType has no FP16"),
    ],
)
@pytest.mark.parametrize("api", RECORD, ids=VERSIONS)
def test_what_does_not_exist_is_found(api: dict[str, Any], line: str, words: str) -> None:
    walk = Walk("x.py", f"def f(log):\n    {line}\n", api)
    assert any(words in fault for use in walk.uses for fault in faults(use, api)), walk.uses


@pytest.mark.parametrize("name", ["BuilderFlag.FP16", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"])
def test_what_only_the_older_version_has_is_found(name: str) -> None:
    older, newer = (
        [f for u in Walk("x.py", f"trt.{name}", api).uses for f in faults(u, api)] for api in RECORD
    )
    assert older == [] and any(f"has no {name.split('.')[1]}" in fault for fault in newer)


@INSTALLED
def test_the_record_is_what_the_installed_bindings_say() -> None:
    assert BINDINGS is not None and BINDINGS.origin is not None
    found = needed(read_api(Path(BINDINGS.origin).parents[1]), ROOT)
    recorded = {api["version"]: api for api in RECORD}
    if found["version"] not in recorded:
        pytest.skip(f"the record is of {VERSIONS}, installed is {found['version']}")
    assert found == recorded[found["version"]]


@INSTALLED
def test_the_installed_bindings_have_all_that_is_used() -> None:
    assert BINDINGS is not None and BINDINGS.origin is not None
    api = read_api(Path(BINDINGS.origin).parents[1])
    assert [fault for use in uses(ROOT, api) for fault in faults(use, api)] == []


@INSTALLED
def test_the_bindings_accept_our_plugins() -> None:
    """TensorRT's own code checks signature and annotations of each; its registry is not there."""
    pytest.importorskip("triton")
    code = (
        "from taro_rt.kernels import plugin; plugin.register_plugins((9, 0), lazy=True)\n"
        "from tensorrt.plugin._lib import QDP_REGISTRY as known\n"
        "print({k: (d.input_tensor_names, list(d.input_attrs), d.num_outputs, d.aot_impl_func is not None,"
        " d.autotune_func is not None) for k, d in known.items()})"
    )
    ran = with_bindings(code)
    streams, updates = ["context", "x"], ["context_update", "x_update"]
    assert eval(ran.splitlines()[-1]) == {
        "taro_rt::ModulateStreams": ([*streams, "modulation"], ["places"], 2, True, True),
        "taro_rt::GateModulateStreams": ([*streams, *updates, "modulation"], ["places"], 4, True, True),
        "taro_rt::GateModulate": (["x", "x_update", "modulation"], ["places"], 2, True, True),
        "taro_rt::AttendStreams": (streams, ["places"], 2, True, True),
        "taro_rt::Attend": (streams, ["places"], 1, True, True),
    }


@INSTALLED
def test_scalars_stand_between_inputs_and_outputs_as_the_bindings_document() -> None:
    assert BINDINGS is not None and BINDINGS.origin is not None
    text = (Path(BINDINGS.origin).parent / "plugin" / "_lib.py").read_text("utf-8")
    assert "located after the tensor inputs and before the tensor outputs" in text
    pytest.importorskip("triton")
    from taro_rt.kernels.aot import scalars
    from taro_rt.kernels.plugin import ENTRIES
    from taro_rt.kernels.plugin_attention import ATTENTION_ENTRIES

    for operator, entry in {**ENTRIES, **ATTENTION_ENTRIES}.items():
        names = [name for name in entry.arg_names if not name.isupper()]
        first = names.index(scalars(entry)[0])
        after = names[first + len(scalars(entry)) :]
        assert after and all(name.endswith(("_sum", "_out")) for name in after), operator
        assert not any(name.endswith(("_sum", "_out")) for name in names[:first]), operator


@INSTALLED
def test_the_engines_import_with_the_bindings_and_without_pytorch() -> None:
    pytest.importorskip("cuda.bindings")
    code = "import sys, taro_rt.engines.trt_window; print('torch' in sys.modules, 'triton' in sys.modules)"
    assert with_bindings(code).splitlines()[-1] == "False False"


def test_all_that_is_used_of_cuda_exists() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings: [trt-check]")
    text = (ROOT / "engines" / "cudart.py").read_text("utf-8")
    names = set(re.findall(r"cudart\.(cuda\w+(?:\.\w+)?)", text))
    assert len(names) > 20
    for name in names:
        found = runtime
        for part in name.split("."):
            assert hasattr(found, part), name
            found = getattr(found, part)


def with_bindings(code: str) -> str:
    """What Python prints where `tensorrt` is the installed bindings over libraries of nothing."""
    assert BINDINGS is not None and BINDINGS.origin is not None
    with TemporaryDirectory() as folder:
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={
                key: value
                for key, value in environment(Path(BINDINGS.origin).parents[1], Path(folder)).items()
                if key != "TRITON_INTERPRET"
            },
            capture_output=True,
            text=True,
        )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout
