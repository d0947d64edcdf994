"""`python -m taro_rt.training PART`: train one part of the embedded bundle, resuming where it stopped.

`all` makes the bundle: clips, every network, then the export. A network without a checkpoint starts
from the weights that were kept of an earlier run (see kept.py), or with --from-nothing from none. `graphs`
writes the bundle's ONNX graphs anew from its own weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from taro_rt.training.machine import bf16_is_fast
from taro_rt.training.parts import JUDGES, RECIPES, begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = [*RECIPES, *JUDGES, "clips", "bundle", "graphs", "keep", "courses", "all"]
    parser.add_argument("part", choices=parts)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints and caches")
    parser.add_argument("--steps", type=int, help="instead of those of the recipe")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop cleanly after this long")
    parser.add_argument("--clips", type=int, default=3360, help="procedural clips to train on")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; all cores if left out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, help="if left out, where it is faster"
    )
    parser.add_argument("--from-nothing", action="store_true", help="leave the kept weights alone")
    parser.add_argument(
        "--other-sounds",
        action="store_true",
        help="the teacher hears other clips than the transformer; from nothing",
    )
    parser.add_argument("--output", type=Path, help="where bundle or courses go; of graphs, the bundle")
    args = parser.parse_args()
    if args.bf16 is None:
        args.bf16 = bf16_is_fast(args.device)
    begin(args)


if __name__ == "__main__":
    main()
