"""Times and weighs the published size on this machine: export of full-size files, then generation with them.

The released files cannot be had here: files of the same layout and size are written with weights by the
deterministic rule of golden.py (speed does not depend on values), training state included. Whole processes,
one at a time; the export's own parity check and the length of the sound are the gate.
Writes benchmarks/results/<device>/published.json. Run it as a file, on an otherwise idle machine.

    python benchmarks/published.py --bundle-only FOLDER      only makes that bundle, for `taro-rt bench`
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import golden
from first_use import (
    RESULTS,
    commit,
    durations,
    in_own_process,
    machine,
    make_clip,
    repeat,
    reported,
    stages,
    timed,
)
from released import export_command, released_in, write_released

from taro_rt.engines.nets.config import PUBLISHED
from taro_rt.runtime.bench.record import versions


def write_files(folder: Path) -> None:
    """All released files at full size, optimiser state included."""
    write_released(folder, golden.states(PUBLISHED, seed=1), full=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default=f"cpu-{os.cpu_count()}-cores", help="folder name under results/")
    parser.add_argument("--work", type=Path, help="where 8 GB of files go; a temporary folder if left out")
    parser.add_argument(
        "--bundle-only", type=Path, metavar="FOLDER", help="make the bundle there, time nothing"
    )
    args = parser.parse_args()
    command = shutil.which("taro-rt", path=str(Path(sys.executable).parent)) or shutil.which("taro-rt")
    if command is None:
        raise SystemExit("taro-rt is not installed here: pip install -e '.[cpu,dev]'")
    if args.bundle_only:
        with TemporaryDirectory(dir=args.work) as work:
            make_bundle(command, Path(work), args.bundle_only)
        return
    with TemporaryDirectory(dir=args.work) as work:
        record = measure(command, Path(work), args.runs)
    target = RESULTS / args.device / "published.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


def make_bundle(command: str, work: Path, bundle: Path) -> tuple[float, float]:
    """Write released files into `work` and export them; seconds and peak MB of the export."""
    in_own_process(write_files, work / "released")
    return timed([command, *export_command(released_in(work / "released"), bundle)])


def measure(command: str, work: Path, runs: int) -> dict[str, object]:
    """Export once, generate `runs` times; seconds and peak memory of each process."""
    bundle = work / "bundle"
    seconds, peak_mb = make_bundle(command, work, bundle)
    clip, output = work / "clip.mp4", work / "out.mp4"
    make_clip(clip)
    generate = [command, "generate", str(clip), "-o", str(output), "--bundle", str(bundle), "--force"]
    said = reported(generate)  # this run leaves compiled models in the cache, as anybody's first one does
    record = {
        "workload": f"published size, {said['precision']}, {said['backend']}; 8 s, 1280x720, 30 fps in; "
        "25 steps, guidance 8",
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "files_mb": round(sum(p.stat().st_size for p in (work / "released").rglob("*.*")) / 1e6),
        "bundle_mb": round(sum(p.stat().st_size for p in bundle.iterdir()) / 1e6),
        "parity": json.loads((bundle / "manifest.json").read_text())["parity"],
        "export": {"wall_s": round(seconds, 1), "peak_mb": round(peak_mb)},
        "generate": repeat(generate, runs),
        "stages_s": stages(reported(generate)),
    }
    picture, sound = durations(output)
    if abs(picture - sound) > 1 / 30:
        raise SystemExit(f"picture {picture:.3f} s, sound {sound:.3f} s: not timed")
    return record


if __name__ == "__main__":
    main()
