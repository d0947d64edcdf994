"""What `taro-rt info` and `taro-rt doctor` tell."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np

from taro_rt import __version__
from taro_rt.engines.backends import LARGE_BYTES, available, choose, choose_for
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.errors import BackendUnavailable, TaroError
from taro_rt.runtime.commands import Job, Machine, generate_file
from taro_rt.runtime.options import Options
from taro_rt.runtime.progress import Silent

NEEDED = ("numpy", "av", "soundfile", "typer")
OPTIONAL = ("onnxruntime", "openvino", "torch", "triton", "tensorrt")


@dataclass(frozen=True)
class Check:
    """One line of `taro-rt doctor`; what is merely not installed is `ok`."""

    name: str
    ok: bool
    detail: str
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain containers."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail}


def describe_bundle(name: str) -> dict[str, Any]:
    """A verified bundle in plain containers. Raises `BundleError`."""
    bundle = Bundle.open(name)
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "folder": str(bundle.folder),
        "megabytes": round(sum(f.stat().st_size for f in bundle.folder.iterdir()) / 1e6, 1),
        "licence": manifest.licence,
        "provenance": manifest.provenance,
        "sampler": asdict(manifest.sampler),
        "geometry": asdict(manifest.geometry),
        "files": {name: entry.bytes for name, entry in manifest.files.items()},
    }


def examine() -> Iterator[Check]:
    """Every check, in order; the last one generates sound for a video made on the spot."""
    machine = f"Python {platform.python_version()}, {platform.platform()}"
    yield Check("taro-rt", True, f"{__version__} on {machine}")
    owners = packages_distributions()
    for name in NEEDED + OPTIONAL:
        yield _package(name, owners.get(name, [name])[0])
    reasons = available()
    for name, reason in reasons.items():
        yield Check(f"backend {name}", True, f"not available: {reason}" if reason else "available")
    if all(reasons.values()):
        hint = 'none is available; pip install "taro-rt[cpu]"'
        yield Check("backends", False, hint, BackendUnavailable.exit_code)
    yield _attempt("default bundle", lambda: _bundle_line(describe_bundle("default")))
    yield _attempt("choice", lambda: str(choose(Bundle.open("default"))))
    yield _attempt("choice for large bundles", lambda: str(choose_for(LARGE_BYTES)))
    yield _attempt("generation", _one_step)


def _package(name: str, distribution: str) -> Check:
    if find_spec(name) is None:
        return Check(name, name in OPTIONAL, "not installed", 1)
    return Check(name, True, version(distribution))


def _attempt(name: str, work: Callable[[], str]) -> Check:
    try:
        return Check(name, True, work())
    except TaroError as error:
        return Check(name, False, str(error), error.exit_code)


def _bundle_line(bundle: dict[str, Any]) -> str:
    return f"{bundle['name']}, {bundle['megabytes']} MB, {bundle['licence']}, {bundle['folder']}"


def _one_step() -> str:
    """Write, read, hear and mux a second of a moving square."""
    with tempfile.TemporaryDirectory() as folder:
        video, output = Path(folder, "square.mp4"), Path(folder, "square.taro.mp4")
        _write_square(video)
        with Machine() as machine:
            record, _ = generate_file(machine, video, output, Job(Options(steps=1)), Silent())
        return f"{record['audio_s']:.2f} s of sound with {record['backend']}"


def _write_square(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for k in range(25):
            picture = np.zeros((64, 64, 3), np.uint8)
            picture[2 * k : 2 * k + 12, 24:40] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
