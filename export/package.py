"""Networks to a bundle folder: weights, graphs, parity, manifest; checked as a whole, or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from taro_rt.engines.bundle import MANIFEST, SCHEMA, Bundle, Manifest, SamplerDefaults, file_entry
from taro_rt.engines.errors import BuildError, BundleError
from taro_rt.engines.nets.networks import WEIGHTS_OF, Networks, load_weights
from taro_rt.engines.stages import contracts
from taro_rt.export.onnx import export_graph
from taro_rt.export.parity import measure
from taro_rt.export.weights import Storage, round_weights, write_weights

ENCODER = ("encoder.", "quant_conv.")
"""Of a whole VAE, what inference does not need."""


def export_bundle(
    networks: Networks,
    folder: Path,
    name: str,
    provenance: dict[str, str],
    licence: str,
    version: str = "1",
    storage: Storage = "float32",
    sampler: SamplerDefaults | None = None,
    force: bool = False,
) -> Manifest:
    """Write `networks` (left as they are) as a bundle into `folder`, and print each graph's parity.

    A bundle already there is replaced only with `force`. Raises `BuildError` when a network does not have the
    sizes of its config or a graph fails its parity check, `BundleError` when `folder` is taken.
    """
    _check_free(folder, force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        aside.chmod(0o755)  # mkdtemp keeps others out
        made = inference_form(networks, storage)
        _write_files(made, aside, storage)
        geometry = networks.config.geometry()
        manifest = Manifest(
            schema=SCHEMA,
            name=name,
            version=version,
            storage=storage,
            geometry=geometry,
            networks=networks.config,
            sampler=sampler or SamplerDefaults(),
            contracts={graph: contract.as_json() for graph, contract in contracts(geometry).items()},
            files={path.name: file_entry(path) for path in sorted(aside.iterdir())},
            parity={},
            provenance=provenance,
            licence=licence,
        )
        manifest = replace(manifest, parity=measure(Bundle(aside, manifest)))
        (aside / MANIFEST).write_text(manifest.as_json(), "utf-8")
        Bundle.open(aside)
        put_in_place(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for graph, found in manifest.parity.items():
        print(f"{graph:12} max abs {found.max_abs:.2e}  relative rms {found.relative_rms:.2e}")
    return manifest


def inference_form(networks: Networks, storage: Storage) -> Networks:
    """New networks of the same config and weights: no encoder, norms folded, values as they are stored."""
    made, faults = Networks.build(networks.config), []
    fresh = made.by_name()
    for name, net in networks.by_name().items():
        state = {key: value for key, value in net.state_dict().items() if not key.startswith(ENCODER)}
        faults += [f"{name}: {fault}" for fault in load_weights(fresh[name], state)]
    if faults:
        raise BuildError(f"networks do not have the sizes of their config: {'; '.join(faults)}")
    for name, net in made.fold().by_name().items():
        round_weights(name, net, storage)
    return made


def _write_files(networks: Networks, folder: Path, storage: Storage) -> None:
    places = {}
    for name, net in networks.by_name().items():
        stored = write_weights(folder / f"{name}.safetensors", net, storage)
        live = net.state_dict(keep_vars=True)
        places[name] = {id(live[key]): place for key, place in stored.items()}
    promised = contracts(networks.config.geometry())
    for graph, module in networks.graphs().items():
        export_graph(folder / f"{graph}.onnx", module, promised[graph], places[WEIGHTS_OF[graph]])


def _check_free(folder: Path, force: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / MANIFEST).is_file():
        raise BundleError(
            f"bundle {folder}: expected a new folder or a bundle, got other files; name another"
        )
    if not force:
        raise BundleError(f"bundle {folder}: a bundle is already there; pass force to replace it")


def put_in_place(aside: Path, folder: Path) -> None:
    """Rename the finished folder `aside` to `folder`; what is there is moved out of the way first."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as old:
        with suppress(FileNotFoundError):
            os.replace(folder, Path(old) / folder.name)
        os.replace(aside, folder)
