"""The released files to a bundle: what `taro-rt export` does."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

import torch

from taro_rt import __version__
from taro_rt.engines import strict
from taro_rt.engines.errors import CheckpointError, ManifestError, OptionsError
from taro_rt.engines.nets.config import PUBLISHED, NetworkConfig
from taro_rt.engines.nets.networks import Networks
from taro_rt.export.checkpoints import read_released
from taro_rt.export.layouts import Released
from taro_rt.export.package import check_free, export_bundle
from taro_rt.export.progress import Tell, silent
from taro_rt.export.weights import Storage

LICENCE = (
    "the weights' owners': TARO, CAVP and SyncFusion state none for theirs that is known here; "
    "AudioLDM2's model card says CC BY-NC-SA 4.0"
)


def export_published(
    files: Released,
    folder: Path,
    config: NetworkConfig | None = None,
    storage: str = "float32",
    force: bool = False,
    tell: Tell = silent,
) -> dict[str, Any]:
    """Write the bundle `folder` and return a record of what went in, what was skipped and the parity.

    `config` None means the published sizes; `storage` is "float32" or "float16".
    Raises `OptionsError` for another storage, `CheckpointError` for files that cannot be read or do not fit,
    `BundleError` when `folder` is taken or cannot be written, `BuildError` when a graph cannot be made.
    Nothing is left of a bundle then.
    """
    if storage not in get_args(Storage):
        raise OptionsError(f"storage: expected {' or '.join(get_args(Storage))}, got {storage!r}")
    check_free(folder, force)
    read = read_released(files, config or PUBLISHED, tell)
    skipped = {file: "; ".join(names) or "nothing" for file, names in read.skipped.items()}
    provenance = {
        "weights": "the released files of TARO, CAVP, SyncFusion and AudioLDM2, converted; no training",
        "date": datetime.now(UTC).date().isoformat(),
        "made by": f"taro-rt {__version__}",
        **{f"taken of {file}": entry for file, entry in read.taken.items()},
        **{f"sha256 of {file}": sha256 for file, sha256 in read.sha256.items()},
        **{f"skipped of {file}": names for file, names in skipped.items()},
    }
    manifest = export_bundle(
        read.networks,
        folder,
        "taro-published",
        provenance,
        LICENCE,
        storage=cast(Storage, storage),
        force=force,
        tell=tell,
    )
    return {
        "bundle": str(folder),
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "storage": storage,
        "skipped": skipped,
        "parity": {
            graph: {"max_abs": found.max_abs, "relative_rms": found.relative_rms}
            for graph, found in manifest.parity.items()
        },
        "licence": manifest.licence,
    }


def read_sizes(path: Path) -> NetworkConfig:
    """Sizes of networks from a JSON file: a bundle's manifest, or what its `networks` says.

    Raises `CheckpointError`, also for sizes that no network can have.
    """
    faults: list[str] = []
    try:
        data = strict.parse(path.read_text("utf-8"), str(path))
        config: NetworkConfig | None = strict.read(
            NetworkConfig, data.get("networks", data), path.name, faults
        )
    except (OSError, UnicodeDecodeError, ManifestError) as error:
        raise CheckpointError(f"{path}: expected the sizes of networks as JSON ({error})") from None
    if config is None:
        raise CheckpointError(f"{path}: {'; '.join(faults)}")
    if config.transformer.width % max(1, config.transformer.heads):
        faults = [f"width {config.transformer.width} cannot be split into {config.transformer.heads} heads"]
    try:
        with torch.device("meta"):
            Networks.build(config)
    except (ArithmeticError, RuntimeError, ValueError, LookupError) as error:
        faults.append(" ".join(str(error).split())[:200])
    if faults:
        raise CheckpointError(f"{path}: expected sizes that fit a network, got {'; '.join(faults)}")
    return config
