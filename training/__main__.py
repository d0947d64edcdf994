"""`python -m taro_rt.training PART`: train one part of the embedded bundle, resuming where it stopped.

`all` makes the bundle: clips, every network in turn, then the export. A network without a checkpoint starts
from the weights that were kept of an earlier run (see kept.py), or with --from-nothing from none. `graphs`
writes the bundle's ONNX graphs anew from its own weights.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from taro_rt.engines.bundle import DEFAULT, Bundle
from taro_rt.engines.nets.config import SMALL
from taro_rt.engines.nets.vae import Vae
from taro_rt.export.package import renew_graphs
from taro_rt.runtime.interrupts import Interrupts
from taro_rt.training.autoencoder import train_vae, train_vocoder
from taro_rt.training.bundle import courses, pack
from taro_rt.training.data import JUDGE, PICTURES, open_pictures, open_sounds, open_views
from taro_rt.training.fit import Recipe
from taro_rt.training.judges import train_kind_judge, train_sync_judge
from taro_rt.training.kept import keep, start_from_kept
from taro_rt.training.machine import bf16_is_fast
from taro_rt.training.perception import train_onset, train_visual
from taro_rt.training.teacher import train_teacher
from taro_rt.training.transformer import Objective, frozen, open_examples, train_transformer

RECIPES = {
    "vae": Recipe(4500),
    "vocoder": Recipe(5600),
    "teacher": Recipe(754),
    "onset": Recipe(6000, rate=2e-3),
    "visual": Recipe(6000),
    "transformer": Recipe(11500),
}
"""As long as those of the embedded bundle were trained."""
JUDGES = {"kind-judge": Recipe(3000), "sync-judge": Recipe(500)}
"""What only evaluation needs."""
JUDGE_CLIPS = 1400
PICTURES_A_CLIP = 3
"""Clips for the visual encoder alone, of which only pictures at 4 frames per second are drawn."""


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
    parser.add_argument("--output", type=Path, help="where bundle or courses go; of graphs, the bundle")
    args = parser.parse_args()
    if args.bf16 is None:
        args.bf16 = bf16_is_fast(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    with Interrupts():  # also in the background, where a shell has Ctrl-C ignored
        run(args)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    for part in [*RECIPES, "bundle"] if args.part == "all" else [args.part]:
        if part == "bundle":
            print(pack(SMALL, args.runs, args.output or DEFAULT).parity)
            continue
        if part == "graphs":
            print(renew_graphs(Bundle.open(args.output or DEFAULT)).parity)
            continue
        if part == "keep":
            print(keep(args.runs))
            continue
        if part == "courses":
            args.output.write_text(courses(args.runs))
            continue
        if not args.from_nothing:
            start_from_kept(part, args.runs / part)
        recipe = {**RECIPES, **JUDGES}.get(part, Recipe(0))
        recipe = replace(recipe, minutes=args.minutes, device=args.device, bf16=args.bf16)
        train(part, args.runs, replace(recipe, steps=args.steps or recipe.steps), args.clips)


def train(part: str, runs: Path, recipe: Recipe, n_clips: int) -> None:
    """Train one network into `runs / part`."""
    torch.manual_seed(0)
    folder = runs / part
    if part == "kind-judge":
        train_kind_judge(open_sounds(runs / "judge-sounds", JUDGE_CLIPS, JUDGE), recipe, folder)
        return
    if part == "visual":
        n = PICTURES_A_CLIP * n_clips
        pictures = open_pictures(runs / "pictures", n, SMALL)
        train_visual(SMALL, pictures, open_sounds(runs / "picture-sounds", n, PICTURES), recipe, folder)
        return
    sounds = open_sounds(runs / "sounds", n_clips)
    if part == "teacher":
        train_teacher(sounds, recipe, folder)
        return
    if part in ("vae", "vocoder"):
        if part == "vae":
            train_vae(SMALL, sounds, recipe, folder)
        else:
            train_vocoder(SMALL, frozen(runs / "vae", Vae(SMALL.vae, 1.0)), sounds, recipe, folder)
        return
    views = open_views(runs / "views", n_clips, SMALL)
    if part == "onset":
        train_onset(SMALL, views, recipe, folder)
    elif part == "sync-judge":
        train_sync_judge(views, sounds, recipe, folder)
    elif part == "transformer":
        examples = open_examples(SMALL, views, sounds, runs, "examples")
        train_transformer(SMALL, examples, runs, Objective(), recipe, folder)


if __name__ == "__main__":
    main()
