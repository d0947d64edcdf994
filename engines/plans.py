"""TensorRT plans as files: what each was built from and for stands before it and is checked first.

A plan holds code that the GPU runs: it is only ever taken from the user's cache or the folder that the user
names, and only if all of that fits. Knows no TensorRT.

    bytes 0-7    TAROPLAN
    bytes 8-15   length of the header, little endian
    header       JSON: the fields of `PlanKey`, and sha256 and length of the plan
    the rest     the plan
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.cache import VARIABLE as CACHE_VARIABLE
from taro_rt.engines.cache import cache_folder
from taro_rt.engines.errors import BuildError, EngineError

MAGIC = b"TAROPLAN"
VARIABLE = "TARO_PLANS"
"""A folder of plans to use instead of the cache."""
MAX_HEADER = 1 << 20
SOURCES = (
    "kernels/aot.py", "kernels/plugin.py", "kernels/plugin_attention.py", "kernels/rows.py",
    "kernels/attention.py", "export/custom.py", "export/deploy.py", "export/deployed.py",
    "export/onnx.py", "export/tensorrt.py", "engines/stages.py", "engines/static.py", "engines/nets/*.py",
)  # fmt: skip
"""What decides how a plan computes, beside the weights and the key's other fields."""


@dataclass(frozen=True)
class PlanKey:
    """Everything a plan depends on. Of two that differ in anything, neither stands in for the other."""

    graph: str
    batch: int
    precision: str
    bundle: str
    """`cache.content_of` the bundle."""
    sources: str
    """`source_version` of kernels, networks and exporter."""
    onnx_sha256: str
    tensorrt: str
    gpu: str
    capability: str
    """Such as "9.0"."""
    shapes: str
    """The ranges of free axes."""
    steps: int
    """Times in one call of the conditioner."""
    flags: tuple[str, ...]
    """How it was built; "stripped" means that its weights are in the ONNX file beside it."""

    def file_name(self) -> str:
        """Of the plan."""
        content = json.dumps(asdict(self), sort_keys=True).encode()
        return f"{self.stem()}.{hashlib.sha256(content).hexdigest()[:16]}.plan"

    def stem(self) -> str:
        """What the names of all plans of this graph, batch and precision begin with."""
        return f"{self.graph}.b{self.batch}.{self.precision}"


@dataclass(frozen=True)
class Here:
    """What plans must have been built for: this bundle, this TensorRT, this GPU, this taro-rt."""

    bundle: str
    sources: str
    tensorrt: str
    gpu: str
    capability: str


NAMES = {
    "bundle": ("content of the bundle", "this bundle's is"),
    "sources": ("kernels and networks of version", "this taro-rt has"),
    "tensorrt": ("TensorRT", "here is"),
    "gpu": ("the GPU", "here is"),
    "capability": ("compute capability", "here is"),
}


def source_version() -> str:
    """Changes whenever the text of `SOURCES` does: of files that engines may read, but not import."""
    root, found = Path(__file__).resolve().parents[1], hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(root.glob(pattern)):
            found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def plans_folder(bundle: Bundle, named: Path | None = None) -> Path:
    """The folder of a bundle's plans: `named`, or what `VARIABLE` names, or one in the user's cache.

    Raises `EngineError` where there is none.
    """
    if named is not None:
        return named
    if asked := os.environ.get(VARIABLE):
        return Path(asked)
    folder = cache_folder("tensorrt", bundle)
    if folder is None:
        raise EngineError(
            f"tensorrt: expected a folder for plans, got none: the cache is off or cannot be written; "
            f"set {CACHE_VARIABLE} or {VARIABLE} to a folder"
        )
    return folder


def write_plan(folder: Path, key: PlanKey, plan: bytes) -> Path:
    """Write a plan under its key's name, whole or not at all."""
    header = {**asdict(key), "plan_sha256": hashlib.sha256(plan).hexdigest(), "plan_bytes": len(plan)}
    text = json.dumps(header, sort_keys=True).encode()
    path = folder / key.file_name()
    write_whole(path, MAGIC + len(text).to_bytes(8, "little") + text + plan)
    return path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all. Raises `BuildError` where it cannot be written."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        raise BuildError(f"{path}: cannot be written ({error.strerror}); name another folder") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_key(path: Path) -> PlanKey:
    """What the plan at `path` was built from and for. Raises `BuildError` for a file that is none."""
    return _header(path)[0]


def read_plan(path: Path) -> bytes:
    """The plan itself. Raises `BuildError` unless the file is whole and unchanged."""
    _, digest, length, start = _header(path)
    try:
        plan = path.read_bytes()[start:]
    except OSError as error:
        raise _refusal(path, f"it cannot be read ({error.strerror})") from error
    if len(plan) != length:
        raise _refusal(path, f"it is truncated: expected {length} bytes of plan, got {len(plan)}")
    if (found := hashlib.sha256(plan).hexdigest()) != digest:
        raise _refusal(path, f"its content was changed: expected sha256 {digest[:12]}…, got {found[:12]}…")
    return plan


def find_plan(folder: Path, stem: str, here: Here, command: str = "taro-rt plans") -> tuple[Path, PlanKey]:
    """The plan of `stem` in `folder` that fits `here`; of several, the one that was asked for last.

    Raises `BuildError` that says of each plan there is why it does not, or that there is none, and the
    `command` that builds it.
    """
    reasons = []
    for path in sorted(folder.glob(f"{stem}.*.plan"), key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            key = read_key(path)
        except BuildError as error:
            reasons.append(str(error))
            continue
        if not (wrong := differences(key, here)):
            return path, key
        reasons.append(f"{path.name} is refused: {'; '.join(wrong)}")
    if not reasons:
        reasons = [f"{stem}: no plan in {folder}"]
    raise BuildError(f"{'. '.join(reasons)}. Build it on this machine with {command}")


def differences(key: PlanKey, here: Here) -> list[str]:
    """In words, what a plan was built for and is not so here; empty if it fits."""
    return [
        f"built for {what} {getattr(key, name)}, {there} {getattr(here, name)}"
        for name, (what, there) in NAMES.items()
        if getattr(key, name) != getattr(here, name)
    ]


def _header(path: Path) -> tuple[PlanKey, str, int, int]:
    """Key, sha256 and length of the plan, and where it begins."""
    try:
        with path.open("rb") as file:
            magic, length = file.read(8), int.from_bytes(file.read(8), "little")
            if magic != MAGIC:
                raise _refusal(path, "it is no plan of taro-rt's")
            if length > MAX_HEADER or len(text := file.read(length)) < length:
                raise _refusal(path, "it is truncated within its header")
        data = json.loads(text)
        digest, n_bytes = str(data.pop("plan_sha256")), int(data.pop("plan_bytes"))
        data["flags"] = tuple(data["flags"])
        if set(data) != {field.name for field in fields(PlanKey)}:
            raise _refusal(path, "it is of another version of taro-rt")
        return PlanKey(**data), digest, n_bytes, 16 + length
    except OSError as error:
        raise _refusal(path, f"it cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _refusal(path, f"its header is damaged ({error})") from error


def _refusal(path: Path, why: str) -> BuildError:
    return BuildError(f"{path.name} is refused: {why}; build it again with taro-rt plans --force")
