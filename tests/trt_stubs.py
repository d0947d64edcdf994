"""TensorRT's Python bindings without TensorRT: libraries of nothing, so that names can be read.

    python tests/trt_stubs.py WHEEL... > tests/trt_api.json

makes the record anew from wheels of `tensorrt-cu13-bindings` for the Python that runs it; needs gcc.
Every signature is as the bindings' own docstrings give it. Nothing can be called.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trt_uses import uses

SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "initLibNvInferPlugins",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getNvOnnxParserVersion",
)
"""All that the bindings ask of TensorRT's libraries by name."""
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
DUMP = """
import inspect, json, re, tensorrt as trt
def lines(doc, name):
    return [l.strip() for l in (doc or "").splitlines() if re.match(rf"\\s*(\\d+\\. )?{name}\\(", l)]
def members(cls):
    made = {}
    for name in dir(cls):
        if name.startswith("_") and name != "__init__":
            continue
        member = inspect.getattr_static(cls, name)
        doc = getattr(getattr(cls, name), "__doc__", None)
        if isinstance(member, property):
            doc = member.fget.__doc__ or ""
            found = re.findall(r"-> (\\S+)", doc)
            made[name] = {"type": found[0] if found else ""}
        elif callable(getattr(cls, name)):
            made[name] = {"calls": lines(doc, name)}
        else:
            made[name] = {"type": type(getattr(cls, name)).__name__}
    return made
api = {}
for name in dir(trt):
    value = getattr(trt, name)
    if name.startswith("_"):
        continue
    if inspect.isclass(value):
        api[name] = {"members": members(value)}
    elif inspect.isroutine(value):
        api[name] = {"calls": lines(value.__doc__, name)}
    elif not inspect.ismodule(value):
        api[name] = {"type": type(value).__name__}
api["__version__"] = {"type": "str"}
import tensorrt.plugin as trtp
plugin = {}
for name in dict.fromkeys(trtp.__all__):
    value = getattr(trtp, name)
    if inspect.isfunction(value):
        plugin[name] = {"calls": [name + str(inspect.signature(value))]}
    elif inspect.isclass(value):
        found = [n for n in dir(value) if not n.startswith("_")]
        plugin[name] = {"members": dict.fromkeys(found, {}), "calls": [name + str(inspect.signature(value))]}
    else:
        plugin[name] = {}
print(json.dumps({"version": trt.__version__, "trt": api, "plugin": plugin}))
"""


def environment(bindings: Path, folder: Path) -> dict[str, str]:
    """What a Python needs to import `tensorrt` from the folder `bindings`, with stubs made in `folder`."""
    major = _version(bindings).split(".")[0]
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS), "utf-8")
    for library in LIBRARIES:
        target = folder / f"lib{library}.so.{major}"
        soname = f"-Wl,-soname,{target.name}"
        subprocess.run(["gcc", "-shared", "-fPIC", soname, "-o", target, source], check=True)
    shim = folder / "tensorrt"
    shim.mkdir()
    (shim / "__init__.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n", "utf-8"
    )
    (shim / "plugin").symlink_to(bindings / "tensorrt_bindings" / "plugin")
    path = os.pathsep.join([str(folder), str(bindings), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": path}


def _version(bindings: Path) -> str:
    text = (bindings / "tensorrt_bindings" / "__init__.py").read_text("utf-8")
    return text.split('__version__ = "')[1].split('"')[0]


def read_api(bindings: Path) -> dict[str, Any]:
    """Names and signatures of the bindings in the folder `bindings`, which holds `tensorrt_bindings`."""
    with TemporaryDirectory() as folder:
        ran = subprocess.run(
            [sys.executable, "-c", DUMP],
            env=environment(bindings, Path(folder)),
            capture_output=True,
            text=True,
        )
    if ran.returncode:
        raise RuntimeError(f"{bindings}: {ran.stderr[-2000:]}")
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def needed(api: dict[str, Any], root: Path) -> dict[str, Any]:
    """Of an API, what `root` uses of it: of every class all members, so that a next use is seen."""
    owners = {use.owner for use in uses(root, api)}
    owners |= {use.name for use in uses(root, api) if use.owner in ("trt", "plugin")}
    parts = {part: {n: v for n, v in api[part].items() if n in owners} for part in ("trt", "plugin")}
    return {"version": api["version"], **parts}


if __name__ == "__main__":
    record = []
    for wheel in sys.argv[1:]:
        with TemporaryDirectory() as unpacked:
            zipfile.ZipFile(wheel).extractall(unpacked)
            record.append(needed(read_api(Path(unpacked)), Path(__file__).parents[1]))
    print(json.dumps(record, indent=0, sort_keys=True))
