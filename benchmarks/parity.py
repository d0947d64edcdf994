"""Does this project compute what the original modules do? Every fixture of a golden folder, every backend.

    python benchmarks/parity.py --golden tests/golden [--backend eager] [--file vocoder] [--output FILE]

All weights and inputs follow from the seed in the folder's MANIFEST.json (see golden.py). The weights are
written as the released files are, read back and exported as `taro-rt export` does it, and what runs are the
engines of the bundles made from them, in float32. Exits non-zero if a fixture is beyond its tolerance,
missing, damaged or unknown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

import golden
import numpy as np
from first_use import commit, machine
from parity_cases import CASES, Arrays
from released import write_released

from taro_rt.engines.backends import Engines, available, load_engines
from taro_rt.engines.bundle import Bundle
from taro_rt.export.published import export_published
from taro_rt.runtime.bench.record import versions

LIMITS = {
    "preprocess visual_*": 0.0,
    "preprocess onset_*": 1e-5,
    "visual feats*": 1e-5,
    "e2e_depth4 context": 1e-5,
    "onset logits*": 5e-5,
    "e2e_depth4 onset": 5e-5,
    "transformer* v_*": 1e-4,
    "sampler_* *final": 2e-3,
    "sampler_* *states_stride17": 2e-3,
    "sampler_* *eval_t": 1e-6,
    "sampler_* em_bf16grid/t": 0.0,
    "sampler_* *eval_*": 0.0,
    "vae mel": 5e-5,
    "vocoder wav": 5e-5,
    "e2e_depth4 latents": 5e-3,
    "e2e_depth4 mel": 1e-3,
    "e2e_depth4 wav": 1e-3,
}
"""Largest allowed difference by "file key"; the first pattern that fits counts (golden.md, section 5)."""
PROBE = "probe/"
"""Keys that only help to find the first wrong layer."""
STATISTICS = 1e-6
"""How closely a file must have the rms and the largest value its manifest promises, relative."""


@dataclass(frozen=True)
class Row:
    """One array of one fixture on one backend."""

    backend: str
    file: str
    key: str
    max_abs: float
    relative_rms: float
    limit: float

    @property
    def ok(self) -> bool:
        return self.max_abs <= self.limit

    def __str__(self) -> str:
        verdict = "pass" if self.ok else "FAIL"
        return (
            f"{self.backend:<12} {self.file:<18} {self.key:<24} {self.max_abs:9.2e} {self.relative_rms:9.2e} "
            f"{self.limit:9.2e}  {verdict}"
        )


HEADING = f"{'backend':<12} {'file':<18} {'key':<24} {'max abs':>9} {'rel rms':>9} {'limit':>9}"


@dataclass(frozen=True)
class Fixtures:
    """A golden folder whose files are what its manifest says."""

    seed: int
    arrays: dict[str, Arrays]
    """By file, then by key; probes left out."""
    sha256: dict[str, str]
    """Of the weights, as far as the manifest knows them."""


def read_fixtures(folder: Path, files: Sequence[str]) -> Fixtures:
    """The fixtures of `folder`, all of them for no `files`. Exits naming every one not as promised."""
    manifest = json.loads((folder / "MANIFEST.json").read_text("utf-8"))
    promised = {name: keys for name, keys in manifest["files"].items() if not files or name in files}
    faults = [f"{name}: no such fixture in the manifest" for name in files if name not in promised]
    arrays: dict[str, Arrays] = {}
    for name, keys in promised.items():
        path = folder / f"{name}.npz"
        if name not in CASES:
            faults.append(f"{name}: unknown to this script")
        elif not path.is_file():
            faults.append(f"{name}: {path} is missing")
        else:
            with np.load(path) as stored:
                whole = {key: stored[key] for key in stored.files}
            faults += [f"{name}: {fault}" for fault in damage(whole, keys)]
            arrays[name] = {key: value for key, value in whole.items() if not key.startswith(PROBE)}
    if faults:
        raise SystemExit("\n".join(faults))
    notes = manifest.get("notes", {})
    return Fixtures(
        manifest["seed"], arrays, {k: v for k, v in notes.items() if k.endswith("_weights_sha256")}
    )


def damage(arrays: Arrays, promised: dict[str, dict[str, object]]) -> Iterator[str]:
    """What differs from the manifest's keys, shapes, dtypes, rms and largest values."""
    yield from (
        f"key {key} is in the file or in the manifest alone" for key in arrays.keys() ^ promised.keys()
    )
    for key in arrays.keys() & promised.keys():
        array, want = arrays[key], promised[key]
        values = array.astype(np.float64)
        if list(array.shape) != want["shape"] or str(array.dtype) != want["dtype"]:
            yield f"{key}: expected {want['dtype']} {want['shape']}, got {array.dtype} {list(array.shape)}"
            continue
        found = (np.sqrt(np.mean(values**2)), np.abs(values).max())
        if not np.allclose(found, (want["rms"], want["max_abs"]), rtol=STATISTICS, atol=0):
            yield f"{key}: expected rms and largest value {want['rms']}, {want['max_abs']}, got {found}"


def check_rule(fixtures: Fixtures, depth: int, states: dict[str, golden.State]) -> None:
    """Exit unless the rule gives the weights the fixtures were made with: no network is to blame then."""
    for net, state in states.items():
        name = "transformer_depth4" if net == "transformer" and depth == 4 else net
        expected = fixtures.sha256.get(f"{name}_weights_sha256")
        if expected not in (None, golden.sha256(state)):
            raise SystemExit(f"{name}: the weights made by the rule are not those of the fixtures")


def verify(
    fixtures: Fixtures, backends: Sequence[str], work: Path, tell: Callable[[object], object] = print
) -> list[Row]:
    """Run every fixture on every backend, telling each row as it is found. Bundles are made in `work`."""
    rows: list[Row] = []
    for depth, config in golden.DEPTHS.items():
        names = [name for name in fixtures.arrays if CASES[name][0] == depth]
        if not names:
            continue
        states = golden.states(config, fixtures.seed)
        check_rule(fixtures, depth, states)
        files = write_released(work / f"released-{depth}", states, config)
        del states
        export_published(files, work / f"bundle-{depth}", config)
        bundle = Bundle.open(work / f"bundle-{depth}")
        for backend in backends:
            engines = load_engines(bundle, backend, precision="float32")
            for name in names:
                for row in compare(fixtures, name, engines):
                    rows.append(row)
                    tell(row)
            engines.close()
    return rows


def compare(fixtures: Fixtures, name: str, engines: Engines) -> Iterator[Row]:
    """The rows of one fixture. What a case does not give is infinitely far off."""
    made = CASES[name][1](fixtures.seed, engines)
    for key, want in fixtures.arrays[name].items():
        got = made.get(key)
        far, relative = float("inf"), float("inf")
        if got is not None and got.shape == want.shape and np.isfinite(got).all():
            difference = got.astype(np.float64) - want.astype(np.float64)
            far = float(np.abs(difference).max())
            relative = float(np.linalg.norm(difference) / max(np.linalg.norm(want.astype(np.float64)), 1e-30))
        yield Row(engines.backend, name, key, far, relative, limit(name, key))


def limit(file: str, key: str) -> float:
    """The tolerance of one array; a key that none is stated for must be equal."""
    return next((value for pattern, value in LIMITS.items() if fnmatchcase(f"{file} {key}", pattern)), 0.0)


def record(rows: Iterable[Row], seed: int) -> dict[str, object]:
    """What is kept of a run."""
    return {
        "seed": seed,
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "rows": [{**asdict(row), "ok": row.ok} for row in rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, required=True, help="folder with MANIFEST.json and fixtures")
    parser.add_argument("--backend", action="append", help="all installed ones if left out; may be repeated")
    parser.add_argument("--file", action="append", default=[], help="only this fixture; may be repeated")
    parser.add_argument("--work", type=Path, help="where weights and bundles go; a temporary folder else")
    parser.add_argument("--output", type=Path, help="write the record here as JSON")
    args = parser.parse_args()
    backends = args.backend or [name for name, reason in available().items() if not reason]
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    fixtures = read_fixtures(args.golden, args.file)
    print(HEADING, flush=True)
    with TemporaryDirectory(dir=args.work) as work:
        rows = verify(fixtures, backends, Path(work), lambda row: print(row, flush=True))
    failed = [row for row in rows if not row.ok]
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(record(rows, fixtures.seed), indent=1) + "\n")
    print(f"{len(rows) - len(failed)} passed, {len(failed)} failed")
    if failed or not rows:
        sys.exit(1)


if __name__ == "__main__":
    main()
