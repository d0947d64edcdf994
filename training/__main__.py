"""`python -m taro_rt.training PART`: train one part of the embedded bundle, resuming where it stopped.

`all` makes the bundle from nothing: every network in turn, then the export.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from taro_rt.engines.bundle import DEFAULT
from taro_rt.engines.nets.config import SMALL
from taro_rt.training.autoencoder import sound_cache, train_vae, train_vocoder
from taro_rt.training.bundle import NETWORKS, pack
from taro_rt.training.fit import Recipe
from taro_rt.training.perception import ViewCache, train_onset, train_visual
from taro_rt.training.transformer import open_examples, train_transformer

STEPS = {"vae": 2200, "vocoder": 7600, "onset": 1500, "visual": 600, "transformer": 1250}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*NETWORKS, "bundle", "all"])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints and caches")
    parser.add_argument("--steps", type=int, help=f"instead of {STEPS}")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop cleanly after this long")
    parser.add_argument("--clips", type=int, default=800, help="procedural clips to train on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=DEFAULT, help="where the bundle goes")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    for part in [*NETWORKS, "bundle"] if args.part == "all" else [args.part]:
        if part == "bundle":
            pack(SMALL, args.runs, args.output)
        else:
            train(part, args.runs, Recipe(args.steps or STEPS[part], args.minutes, rate=1e-3), args.clips)


def train(part: str, runs: Path, recipe: Recipe, n_clips: int) -> None:
    """Train one network into `runs / part`."""
    folder = runs / part
    if part in ("vae", "vocoder"):
        sounds = sound_cache(runs / "sounds.npy", n_clips)
        (train_vae if part == "vae" else train_vocoder)(SMALL, sounds, recipe, folder)
        return
    cache = ViewCache.open(runs / "views", n_clips, SMALL)
    if part == "transformer":
        train_transformer(SMALL, open_examples(SMALL, cache, runs), recipe, folder)
    else:
        (train_onset if part == "onset" else train_visual)(SMALL, cache, recipe, folder)


if __name__ == "__main__":
    main()
