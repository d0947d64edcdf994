"""The parts of the embedded bundle: what each is trained on, for how long, and in which order."""

from __future__ import annotations

import argparse
import os
import signal
from dataclasses import replace
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

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
from taro_rt.training.machine import keep_freed_memory
from taro_rt.training.perception import train_onset, train_visual
from taro_rt.training.teacher import train_teacher
from taro_rt.training.transformer import Objective, frozen, open_examples, train_transformer

RECIPES = {
    "vae": Recipe(4500),
    "vocoder": Recipe(5600),
    "teacher": Recipe(754),
    "onset": Recipe(14000, rate=2e-3),
    "visual": Recipe(6000),
    "transformer": Recipe(11500),
}
"""As long as those of the embedded bundle were trained."""
WATCHING = ("onset", "visual")
"""Trained side by side on a CPU, each on its share of the threads: a second one makes the onset network no
faster and the visual encoder by half only, since a batch norm's gradient takes longer on two."""
JUDGES = {"kind-judge": Recipe(3000), "sync-judge": Recipe(500)}
"""What only evaluation needs."""
JUDGE_CLIPS = 1400
PICTURES_A_CLIP = 3
"""Clips for the visual encoder alone, of which only pictures at 4 frames per second are drawn."""


def begin(args: argparse.Namespace) -> None:
    """Do what the command line asks for, in a process of its own."""
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()
    if parent := parent_process():
        Thread(target=end_with, args=(parent,), daemon=True).start()
    with Interrupts():  # also in the background, where a shell has Ctrl-C ignored
        if args.part == "all":
            run_all(args)
        else:
            run(args.part, args)


def run_all(args: argparse.Namespace) -> None:
    """Train every network, then pack the bundle."""
    for part in RECIPES:
        if part == WATCHING[0] and args.device == "cpu":
            side_by_side(WATCHING, args)
        elif part not in WATCHING or args.device != "cpu":
            run(part, args)
    run("bundle", args)


def end_with(parent: BaseProcess) -> None:
    """Wait for the process that started this one; when it is gone, stop as if asked politely."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def side_by_side(parts: tuple[str, ...], args: argparse.Namespace) -> None:
    """Train `parts` at once. Raises `SystemExit` that names those that failed, when all have ended."""
    threads = max(1, (args.threads or os.cpu_count() or 1) // len(parts))
    own = [argparse.Namespace(**{**vars(args), "part": part, "threads": threads}) for part in parts]
    processes = [get_context("spawn").Process(target=begin, args=(each,), name=each.part) for each in own]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        running = [process for process in processes if process.is_alive()]
        for process in running:  # a polite kill reached us alone; of Ctrl-C they know, and mind only one
            os.kill(process.pid or 0, signal.SIGINT)
        for process in running:
            process.join()
        raise
    if failed := [process.name for process in processes if process.exitcode]:
        raise SystemExit(f"{' and '.join(failed)}: not trained to the end; the next run goes on from there")


def run(part: str, args: argparse.Namespace) -> None:
    """Train one network, or make one file of what was trained."""
    if part == "bundle":
        print(pack(SMALL, args.runs, args.output or DEFAULT).parity)
    elif part == "graphs":
        print(renew_graphs(Bundle.open(args.output or DEFAULT)).parity)
    elif part == "keep":
        print(keep(args.runs))
    elif part == "courses":
        args.output.write_text(courses(args.runs))
    else:
        if not args.from_nothing and not args.other_sounds:
            start_from_kept(part, args.runs / part)
        recipe = {**RECIPES, **JUDGES}.get(part, Recipe(0))
        recipe = replace(recipe, minutes=args.minutes, device=args.device, bf16=args.bf16)
        recipe = replace(recipe, steps=args.steps or recipe.steps)
        train(part, args.runs, recipe, args.clips, args.other_sounds)


def train(part: str, runs: Path, recipe: Recipe, n_clips: int, other_sounds: bool = False) -> None:
    """Train one network into `runs / part`; with `other_sounds`, the teacher on those of the visual encoder's
    own clips. Raises `SystemExit` where another part is asked for them."""
    if other_sounds and part != "teacher":
        raise SystemExit(f"--other-sounds: expected the part teacher, got {part}")
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
    if other_sounds:
        sounds = open_sounds(runs / "picture-sounds", PICTURES_A_CLIP * n_clips, PICTURES)
    else:
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
