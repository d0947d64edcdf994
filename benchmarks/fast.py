"""What speed costs: the sound of every fast setting beside that of the exact one, for held-out clips.

Onset F1, Fréchet distance and class accuracy as `taro_rt.training.evaluate` has them, with the embedded
bundle. Writes benchmarks/results/<device>/fast.json; what time the same settings take is `taro-rt bench`'s.

    python benchmarks/fast.py [--clips 56] [--backend auto]
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taro_rt.runtime.bench.variant import FAST
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.training.evaluate import FIRST_TEST_ROW, figures, listen
from taro_rt.training.scores import Judges

sys.path.insert(0, str(Path(__file__).parent))  # the Makefile runs Python without the script's folder
from first_use import about, write

Settings = dict[str, dict[str, Any]]

AS_CHOSEN: Settings = {"exact": {}, "sde, 15 steps": {"steps": 15}, "sde, 12 steps": {"steps": 12}, **FAST}
"""The exact sampler, the same with fewer steps to compare with, and what `taro-rt bench` calls fast."""
BOLDEST = list(FAST)[-1]
IN_INT8: Settings = {"int8": {}, f"int8, {BOLDEST}": FAST[BOLDEST]}
"""Settings with the denoiser's linear layers in 8 bits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--clips", type=int, default=56)
    parser.add_argument("--first-row", type=int, default=FIRST_TEST_ROW)
    parser.add_argument("--device", default=f"cpu-{os.cpu_count()}-cores", help="folder name under results/")
    args = parser.parse_args()
    rows = range(args.first_row, args.first_row + args.clips)
    with Pipeline.load(args.bundle, args.backend) as pipeline:
        head = about(pipeline.bundle)
        made = measure(pipeline, AS_CHOSEN, rows)
    with Pipeline.load(args.bundle, precision="int8") as pipeline:
        made |= measure(pipeline, IN_INT8, rows)
    record = {**head, "clips": args.clips, "first_row": args.first_row, "settings": made}
    write("fast.json", record, args.device)


def measure(pipeline: Pipeline, settings: Settings, rows: range) -> dict[str, dict[str, Any]]:
    """By setting: its options, what computed, and the figures of its sound."""
    judges = Judges.read()
    return {
        name: {
            "options": options,
            "computed": asdict(pipeline.engines.choice),
            "generated": figures(listen(pipeline, rows, Options(**options)), judges)["generated"],
        }
        for name, options in settings.items()
    }


if __name__ == "__main__":
    main()
