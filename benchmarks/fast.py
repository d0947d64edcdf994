"""What speed costs: every fast setting beside the exact one, on held-out clips, with the embedded bundle.

Onset F1, Fréchet distance and class accuracy as `taro_rt.training.evaluate` has them, and the seconds of the
sampler. Writes benchmarks/results/<device>/fast.json. Run it as a file; times are those of an idle machine
only.

    python benchmarks/fast.py [--clips 56] [--backend auto]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taro_rt.runtime.bench.variant import FAST
from taro_rt.runtime.bench.workload import write_video
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.training.evaluate import FIRST_TEST_ROW, Judges, figures, listen

sys.path.insert(0, str(Path(__file__).parent))  # the Makefile runs Python without the script's folder
from first_use import RESULTS, commit, machine

SETTINGS: dict[str, dict[str, Any]] = {
    "exact": {},
    "sde, 15 steps": {"steps": 15},
    "sde, 12 steps": {"steps": 12},
    **FAST,
}
"""The exact sampler, the same with fewer steps to compare with, and what `taro-rt bench` calls fast."""
IN_INT8: dict[str, dict[str, Any]] = {"int8": {}, f"int8, {list(FAST)[-1]}": list(FAST.values())[-1]}
"""Settings with the denoiser's linear layers in 8 bits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--clips", type=int, default=56)
    parser.add_argument("--first-row", type=int, default=FIRST_TEST_ROW)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--device", default=f"cpu-{os.cpu_count()}-cores", help="folder name under results/")
    args = parser.parse_args()
    with Pipeline.load(args.bundle, args.backend) as pipeline:
        manifest, choice = pipeline.bundle.manifest, pipeline.engines.choice
        record: dict[str, Any] = {
            "bundle": manifest.name,
            "transformer_sha256": manifest.files["transformer.safetensors"].sha256,
            "computed": asdict(choice),
            "machine": machine(),
            "commit": commit(),
            "clips": args.clips,
            "first_row": args.first_row,
            "settings": measure(pipeline, SETTINGS, args.clips, args.first_row, args.runs),
        }
    with Pipeline.load(args.bundle, precision="int8") as pipeline:
        record["settings"] |= measure(pipeline, IN_INT8, args.clips, args.first_row, args.runs)
    target = RESULTS / args.device / "fast.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


def measure(
    pipeline: Pipeline, settings: dict[str, dict[str, Any]], clips: int, first_row: int, runs: int
) -> dict[str, dict[str, Any]]:
    """By setting: its options, the figures of its sound, seconds of the sampler and of everything."""
    judges, made = Judges.read(), {}
    clip = timed_clip(pipeline, RESULTS.parent / ".fast.mp4")
    for name, asked in settings.items():
        options = Options(**asked)
        heard = figures(listen(pipeline, range(first_row, first_row + clips), options), judges)
        results = [pipeline.generate(clip, options).timings for _ in range(runs + 1)][1:]
        made[name] = {
            "options": asked,
            "generated": heard["generated"],
            "denoiser_s": round(statistics.median(t["denoiser"] for t in results), 4),
            "engines_s": round(statistics.median(sum(t.values()) for t in results), 4),
        }
    return made


def timed_clip(pipeline: Pipeline, path: Path) -> Clip:
    """Eight seconds in memory."""
    try:
        write_video(path, 8.0, 180)
        return Clip.read(path, pipeline.geometry)
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
