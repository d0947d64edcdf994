"""A bundle: a folder with `manifest.json`, six ONNX graphs, and each network's weights once.

Opening one checks all of it and tells every fault at once. Knows no backend.
"""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from taro_rt.engines import strict
from taro_rt.engines.contract import Contract
from taro_rt.engines.errors import BundleError, ChecksumError, ManifestError
from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.engines.stages import GRAPHS, Geometry, contracts

SCHEMA = 2
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20
DEFAULT = Path(__file__).resolve().parent / "default"
"""The embedded bundle."""
WEIGHTS = ("onset", "visual", "transformer", "decoder", "vocoder")
"""One safetensors file for each; the graphs conditioner and denoiser share the transformer's."""
LOCATION = re.compile(rb"\n\x08location\x12(.)(.{1,127})", re.DOTALL)
"""Where an ONNX graph says in which file its weights are: a key, the length of its value, the value."""
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class SamplerDefaults:
    """How these networks are meant to be sampled (spec B5)."""

    steps: int = 25
    guidance: float = 8.0
    """Scale of classifier-free guidance; 1 or less is none."""
    guidance_low: float = 0.0
    guidance_high: float = 0.7
    """Guidance acts on times from low to high, ends included."""
    method: Literal["sde", "ode", "heun", "dpm++", "dpm++2m"] = "sde"
    path: Literal["linear", "vp"] = "linear"
    """The interpolant the transformer was trained on."""


@dataclass(frozen=True)
class FileEntry:
    """What a file must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Deviation:
    """Largest difference and relative rms difference between ONNX Runtime and eager PyTorch."""

    max_abs: float
    relative_rms: float


@dataclass(frozen=True)
class Manifest:
    """All that `manifest.json` says."""

    schema: int
    """Number of this format; another number is refused."""
    name: str
    """What the bundle is called."""
    version: str
    """Version of the weights."""
    storage: Literal["float32", "float16"]
    """How the matrices are stored; every backend computes in float32 unless told otherwise."""
    geometry: Geometry
    """Sizes of one window; equal to what `networks` implies."""
    networks: NetworkConfig
    """Sizes of the networks, enough to build them again in PyTorch."""
    sampler: SamplerDefaults
    """Settings the weights were trained for."""
    contracts: dict[str, Any]
    """Inputs and outputs of each graph, as `Contract.as_json` gives them."""
    files: dict[str, FileEntry]
    """Every file of the bundle but the manifest, by name."""
    parity: dict[str, Deviation]
    """What the export measured, by graph."""
    provenance: dict[str, str]
    """How, when and from what the weights came to be, in free text."""
    licence: str
    """Licence of the weights."""

    def as_json(self) -> str:
        """The text of `manifest.json`."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Bundle:
    """A folder whose content has been found to be what its manifest promises."""

    folder: Path
    manifest: Manifest

    @staticmethod
    def open(source: str | Path) -> Bundle:
        """The embedded bundle for "default", else the one in the folder `source`.

        Raises `BundleError` listing every fault: `ManifestError` when the manifest itself is at fault,
        `ChecksumError` when all that is wrong is the content of files. No checksum covers the manifest's own
        values: whoever can write it can write one.
        """
        try:
            return Bundle._open(source)
        except OSError as error:
            raise BundleError(f"bundle {source}: cannot be read ({error.strerror}); check the path") from None

    @staticmethod
    def _open(source: str | Path) -> Bundle:
        folder = _locate(source)
        try:
            if (size := (folder / MANIFEST).stat().st_size) > MAX_MANIFEST_BYTES:
                raise ManifestError(
                    f"bundle {folder}: expected {MANIFEST} of at most {MAX_MANIFEST_BYTES} bytes, got {size}"
                    "; copy it again"
                )
            text = (folder / MANIFEST).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"bundle {folder}: cannot read {MANIFEST}: {error}") from None
        data = strict.parse(text, f"bundle {folder}: {MANIFEST}")
        if data.get("schema") != SCHEMA:
            raise ManifestError(
                f"bundle {folder}: expected schema {SCHEMA} in {MANIFEST}, got {data.get('schema')!r}; "
                "export it again, or update taro-rt"
            )
        wrong: list[str] = []
        manifest = strict.read(Manifest, data, MANIFEST, wrong)
        entries = manifest.files if manifest else strict.read(dict[str, FileEntry], data.get("files"), "", [])
        wrong += _inconsistent(manifest) if manifest else []
        missing, changed = _check_files(folder, entries or {}, wrong)
        changed += [] if missing or changed else _foreign_weights(folder, entries or {})
        if faults := wrong + missing + changed:
            kind = ManifestError if wrong else BundleError if missing else ChecksumError
            raise kind(f"bundle {folder}: {'; '.join(faults)}")
        return Bundle(folder, manifest)

    @property
    def n_bytes(self) -> int:
        """Of all its files."""
        return sum(entry.bytes for entry in self.manifest.files.values())

    def contracts(self) -> dict[str, Contract]:
        """The six contracts, in the order the graphs run."""
        return contracts(self.manifest.geometry)

    def graph(self, name: str) -> Path:
        """The ONNX file of a graph."""
        return self.folder / f"{name}.onnx"

    def weights(self, name: str) -> Path:
        """The safetensors file of a network."""
        return self.folder / f"{name}.safetensors"


def file_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file."""
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _locate(source: str | Path) -> Path:
    if source == "default":
        if (DEFAULT / MANIFEST).is_file():
            return DEFAULT
        raise BundleError(
            f"bundle default: this installation holds no {MANIFEST} in {DEFAULT}; "
            "install a release of taro-rt, or name the folder of a bundle"
        )
    folder = Path(source)
    if (folder / MANIFEST).is_file():
        return folder.resolve()
    if folder.is_dir():
        raise BundleError(f"bundle {folder}: expected {MANIFEST} in this folder; name the folder of a bundle")
    if folder.exists():
        raise BundleError(f"bundle {folder}: expected a folder, got a file; name the folder of a bundle")
    beside = sorted(path.parent.name for path in folder.parent.glob(f"*/{MANIFEST}"))
    hint = f"bundles beside it: {', '.join(beside)}" if beside else "there is no bundle beside it either"
    raise BundleError(f"bundle {folder}: no such folder; {hint}; name 'default' or the folder of a bundle")


def _inconsistent(manifest: Manifest) -> list[str]:
    """What is well formed but does not fit together."""
    faults = []
    try:
        if (margin := manifest.geometry.onset_margin) < 0:
            faults.append(f"geometry.onset_margin: expected 0 or more frames, got {margin}")
        if manifest.geometry != manifest.networks.geometry():
            faults.append("geometry: is not the one that the networks imply")
        promised = {name: contract.as_json() for name, contract in contracts(manifest.geometry).items()}
        for name in sorted({*promised, *manifest.contracts}):
            if promised.get(name) != manifest.contracts.get(name):
                faults.append(f"contracts.{name}: is not the one that the geometry implies")
    except (ValueError, ArithmeticError) as error:
        faults.append(f"networks, geometry: sizes that fit no network ({error})")
    s = manifest.sampler
    if s.steps < 1 or s.guidance < 0 or not 0 <= s.guidance_low <= s.guidance_high <= 1:
        faults.append(
            "sampler: expected steps >= 1, guidance >= 0 and 0 <= guidance_low <= guidance_high <= 1, "
            f"got {s.steps}, {s.guidance:g}, {s.guidance_low:g} and {s.guidance_high:g}"
        )
    needed = [f"{name}.onnx" for name in GRAPHS] + [f"{name}.safetensors" for name in WEIGHTS]
    return faults + [f"files: {name} is not listed" for name in needed if name not in manifest.files]


def _check_files(
    folder: Path, entries: dict[str, FileEntry | None], wrong: list[str]
) -> tuple[list[str], list[str]]:
    """Which listed files are missing, and which are not what they should be; `wrong` takes unfit names."""
    missing, changed, whole = [], [], list[tuple[str, FileEntry]]()
    for name, entry in entries.items():
        path = folder / name
        if not FILE_NAME.fullmatch(name):
            wrong.append(f"files: expected plain file names inside the folder, got {name!r}")
        elif not path.is_file():
            missing.append(f"{name}: missing")
        elif entry is None:
            continue  # already reported as unreadable
        elif (size := path.stat().st_size) != entry.bytes:
            changed.append(f"{name}: expected {entry.bytes} bytes, got {size}; copy it again")
        else:
            whole.append((name, entry))
    with ThreadPoolExecutor() as threads:  # hashing is most of what opening a large bundle takes
        found = list(threads.map(lambda each: file_entry(folder / each[0]).sha256, whole))
    for (name, entry), sha256 in zip(whole, found, strict=True):
        if sha256 != entry.sha256:
            changed.append(f"{name}: expected sha256 {entry.sha256[:12]}…, got {sha256[:12]}…; copy it again")
    return missing, changed


def _foreign_weights(folder: Path, entries: dict[str, FileEntry | None]) -> list[str]:
    """Graphs that point to weights in no file of the bundle; not every ONNX Runtime looks itself."""
    faults = []
    for graph in sorted(name for name in entries if name.endswith(".onnx")):
        for length, text in LOCATION.findall((folder / graph).read_bytes()):
            name = text[: length[0]].decode("utf-8", "replace")
            if name not in entries:
                faults.append(
                    f"{graph}: expected weights in files of this bundle, got {name!r}; do not use it"
                )
                break
    return faults
