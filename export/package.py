"""Networks to a bundle folder: weights, graphs, parity, manifest; checked as a whole, or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from taro_rt.engines import strict
from taro_rt.engines.bundle import MANIFEST, SCHEMA, Bundle, Manifest, SamplerDefaults, file_entry
from taro_rt.engines.eager import load_networks
from taro_rt.engines.errors import BuildError, BundleError, ManifestError
from taro_rt.engines.nets.networks import WEIGHTS_OF, Networks, load_weights
from taro_rt.engines.stages import contracts
from taro_rt.export.onnx import export_graph
from taro_rt.export.parity import measure
from taro_rt.export.progress import Tell, silent
from taro_rt.export.weights import Storage, round_weights, stored_dtypes, write_weights

ENCODER = ("encoder.", "quant_conv.")
"""Of a whole VAE, what inference does not need."""
GRAPHS_BYTES = 32_000_000
"""More than the six graphs and the manifest take beside the weights."""


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
    tell: Tell = silent,
) -> Manifest:
    """Write `networks` (left as they are) as a bundle into `folder`.

    A bundle already there is replaced only with `force`. Raises `BuildError` when a network does not have the
    sizes of its config or a graph fails its parity check, `BundleError` when `folder` is taken or cannot be
    written; nothing is left of a bundle then.
    """
    check_free(folder, force)
    folder = folder.resolve()
    with _folder_aside(folder) as aside:
        tell("fold", 0.0)
        made = inference_form(networks, storage)
        _check_space(aside, made, storage)
        _write_files(made, aside, storage, tell)
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
            files={},
            parity={},
            provenance=provenance,
            licence=licence,
        )
        del made  # the parity check loads the bundle twice
        manifest = _seal(aside, manifest, tell)
        put_in_place(aside, folder)
    return manifest


def renew_graphs(bundle: Bundle, tell: Tell = silent) -> Manifest:
    """Write the graphs of `bundle` anew from the weights it has: after a change of how they are computed.

    Weights, sizes and all that the manifest tells of them stay as they are. Raises as `export_bundle` does.
    """
    check_free(bundle.folder, force=True)
    folder, storage = bundle.folder.resolve(), bundle.manifest.storage
    with _folder_aside(folder) as aside:
        networks = load_networks(bundle)
        _check_space(aside, networks, storage)
        _write_files(networks, aside, storage, tell)
        manifest = _seal(aside, bundle.manifest, tell)
        put_in_place(aside, folder)
    return manifest


def _seal(folder: Path, manifest: Manifest, tell: Tell) -> Manifest:
    """Check the files in `folder` against PyTorch, and write their manifest."""
    files = {path.name: file_entry(path) for path in sorted(folder.iterdir())}
    manifest = replace(manifest, files=files, parity={})
    manifest = replace(manifest, parity=measure(Bundle(folder, manifest), tell))
    (folder / MANIFEST).write_text(manifest.as_json(), "utf-8")
    Bundle.open(folder)
    tell("parity", 1.0)  # the last moment to stop
    return manifest


@contextmanager
def _folder_aside(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, gone at the end unless it was renamed, and so are parents made for it."""
    aside: Path | None = None
    made = [parent for parent in folder.parents if not parent.exists()]  # innermost first
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        aside.chmod(0o755)  # mkdtemp keeps others out
        yield aside
    except (OSError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise BundleError(f"bundle {folder}: cannot be written ({why}); nothing was left of it") from error
    finally:
        if aside:
            shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):  # where the bundle is there, its parents are not empty
            for parent in made:
                parent.rmdir()


def _check_space(folder: Path, networks: Networks, storage: Storage) -> None:
    """Better refused now than when the disk is full."""
    needed = GRAPHS_BYTES + sum(
        net.state_dict()[key].numel() * dtype.itemsize
        for net in networks.by_name().values()
        for key, dtype in stored_dtypes(net, storage).items()
    )
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BundleError(
            f"bundle {folder.parent}: expected {needed / 1e6:.0f} MB free on this disk, "
            f"got {free / 1e6:.0f} MB; free some, or name another folder"
        )


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


def _write_files(networks: Networks, folder: Path, storage: Storage, tell: Tell) -> None:
    places = {}
    for name, net in networks.by_name().items():
        stored = write_weights(folder / f"{name}.safetensors", net, storage)
        live = net.state_dict(keep_vars=True)
        places[name] = {id(live[key]): place for key, place in stored.items()}
    promised = contracts(networks.config.geometry())
    for i, (graph, module) in enumerate(networks.graphs().items()):
        tell("export", i / len(promised))
        export_graph(folder / f"{graph}.onnx", module, promised[graph], places[WEIGHTS_OF[graph]])


def check_free(folder: Path, force: bool) -> None:
    """Raise `BundleError` unless a bundle may be written to `folder`.

    With `force` a bundle is replaced, but never a folder that holds anything else.
    """
    if folder.resolve() == Path.cwd():
        raise BundleError(f"bundle {folder}: expected a new folder, got the current one; name another")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if foreign := _not_of_a_bundle(folder):
        raise BundleError(
            f"bundle {folder}: expected a new folder or a bundle, got other files "
            f"({', '.join(foreign[:5])}); name another"
        )
    if not force:
        raise BundleError(f"bundle {folder}: a bundle is already there; replace it with --force")


def _not_of_a_bundle(folder: Path) -> list[str]:
    """Names in `folder` that no manifest there lists."""
    if not folder.is_dir():
        return [folder.name]
    try:
        manifest = strict.parse((folder / MANIFEST).read_text("utf-8"), MANIFEST)
    except (OSError, UnicodeDecodeError, ManifestError):
        manifest = {}
    listed = manifest.get("files")
    known = {MANIFEST, *listed} if isinstance(listed, dict) and "schema" in manifest else set()
    return sorted(path.name for path in folder.iterdir() if path.name not in known)


def put_in_place(aside: Path, folder: Path) -> None:
    """Rename the finished folder `aside` to `folder`; what is there goes only once that has happened."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as old:
        before = Path(old) / folder.name
        with suppress(FileNotFoundError):
            os.replace(folder, before)
        try:
            os.replace(aside, folder)
        except BaseException:  # an interrupt too
            with suppress(FileNotFoundError):
                os.replace(before, folder)
            raise
