"""Times the command as its users meet it: silent 8-second 720p file to muxed file, start included.

Whole processes, one at a time, medians over several runs after one that is not counted; peak memory is the
operating system's own figure. The parity gate: a run counts only if its output is as long as its picture.
Writes benchmarks/results/<device>/first_use.json. Run it as a file, on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av

from taro_rt.engines.bundle import Bundle
from taro_rt.runtime.bench.record import commit, device, versions
from taro_rt.training.clips import HELD_OUT, write_video

RESULTS = Path(__file__).parent / "results"


def timed(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak MB of one process; raises if it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(
            f"{' '.join(command)}: {(process.stderr.read() if process.stderr else b'').decode()}"
        )
    return elapsed, usage.ru_maxrss / 1024


def repeat(command: list[str], runs: int) -> dict[str, float]:
    timed(command)
    pairs = [timed(command) for _ in range(runs)]
    seconds = [pair[0] for pair in pairs]
    return {
        "wall_s_median": round(statistics.median(seconds), 3),
        "wall_s_min": round(min(seconds), 3),
        "wall_s_max": round(max(seconds), 3),
        "peak_mb": round(max(pair[1] for pair in pairs), 1),
        "runs": runs,
    }


def durations(path: Path) -> tuple[float, float]:
    """Seconds of picture and of sound in a file."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        if video.duration is None or audio.duration is None or not video.time_base or not audio.time_base:
            raise SystemExit(f"{path}: streams without a duration")
        return float(video.duration * video.time_base), float(audio.duration * audio.time_base)


def make_clip(path: Path) -> None:
    """Draw the workload."""
    in_own_process(write_video, path, HELD_OUT, 8.0, 720, 30, "bounce")


def in_own_process(work: Callable[..., object], *arguments: object) -> None:
    """Run `work` where its memory does not count: a child's peak memory includes what its parent had."""
    made = get_context("spawn").Process(target=work, args=arguments)
    made.start()
    made.join()
    if made.exitcode != 0:
        raise SystemExit(f"{work.__name__} failed")


def reported(generate: list[str]) -> dict[str, Any]:
    """What the command itself says of a run: its record."""
    done = subprocess.run([*generate, "--json"], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def stages(record: dict[str, Any]) -> dict[str, float]:
    """Seconds per stage of such a record."""
    return {name: round(float(seconds), 3) for name, seconds in record["timings_s"].items()}


def machine() -> dict[str, str | int | None]:
    return {**device(), "system": platform.system()}


def about(bundle: Bundle) -> dict[str, Any]:
    """What a record says of the bundle, the machine and the code behind its figures."""
    manifest = bundle.manifest
    return {
        "bundle": manifest.name,
        "transformer_sha256": manifest.files["transformer.safetensors"].sha256,
        "onset_sha256": manifest.files["onset.safetensors"].sha256,
        "machine": machine(),
        "commit": commit(),
    }


def write(name: str, record: dict[str, Any], folder: str) -> None:
    """Put a record among the results of a device, and print it."""
    target = RESULTS / folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--device", default=f"cpu-{os.cpu_count()}-cores", help="folder name under results/")
    args = parser.parse_args()
    beside = Path(sys.executable).with_name("taro-rt")
    command = str(beside) if beside.exists() else shutil.which("taro-rt")
    if command is None:
        raise SystemExit("taro-rt is not installed here: run `make bench`")
    with TemporaryDirectory() as folder:
        clip, output = Path(folder) / "clip.mp4", Path(folder) / "out.mp4"
        make_clip(clip)
        generate = [command, "generate", str(clip), "-o", str(output), "--force"]
        record = {
            "workload": "8 s, 1280x720, 30 fps H.264 in; picture copied, AAC out; embedded bundle",
            "machine": machine(),
            "versions": versions(),
            "commit": commit(),
            "generate": repeat(generate, args.runs),
            "help": repeat([command, "--help"], args.runs),
            "stages_s": stages(reported(generate)),
        }
        picture, sound = durations(output)
        if abs(picture - sound) > 1 / 30:
            raise SystemExit(f"picture {picture:.3f} s, sound {sound:.3f} s: not timed")
    write("first_use.json", record, args.device)


if __name__ == "__main__":
    main()
