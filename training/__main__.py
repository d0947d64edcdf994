"""`python -m taro_rt.training NETWORK`: train one network of the embedded bundle, resuming where it stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from taro_rt.engines.nets.config import SMALL
from taro_rt.training.autoencoder import sound_cache, train_vae, train_vocoder
from taro_rt.training.fit import Recipe
from taro_rt.training.perception import ViewCache, train_onset, train_visual


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=["vae", "vocoder", "views", "onset", "visual"])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints and caches")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--clips", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    folder, recipe = args.runs / args.network, Recipe(steps=args.steps, minutes=args.minutes, rate=1e-3)
    match args.network:
        case "vae":
            train_vae(SMALL, sound_cache(args.runs / "sounds.npy", args.clips), recipe, folder)
        case "vocoder":
            train_vocoder(SMALL, sound_cache(args.runs / "sounds.npy", args.clips), recipe, folder)
        case "views":
            ViewCache.open(args.runs / "views", args.clips, SMALL)
        case "onset":
            train_onset(SMALL, ViewCache.open(args.runs / "views", args.clips, SMALL), recipe, folder)
        case "visual":
            train_visual(SMALL, ViewCache.open(args.runs / "views", args.clips, SMALL), recipe, folder)


if __name__ == "__main__":
    main()
