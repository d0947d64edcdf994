"""The paper's two ideas on and off, at small scale: its Table 3 and Table 4, and global against frame-wise.

Every variant is trained from the same start values and batches with three seeds, on the cached examples, and
its log-mels for held-out looks are judged, before any vocoder. All else (VAE, encoders, teacher, judges) is
shared; networks that are not in `runs/` are those that were kept. Scores are kept in the record as they come:
a run that was cut off goes on from it.

    python -m taro_rt.training.ablation [--steps 400] [--output benchmarks/results/<device>/ablation.json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from taro_rt.engines.bundle import SamplerDefaults
from taro_rt.engines.contract import Array
from taro_rt.engines.nets.config import SMALL, NetworkConfig
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.engines.nets.vae import Vae, VaeDecoder
from taro_rt.runtime.bench.record import commit, versions
from taro_rt.runtime.onsets import FLOOR_LOGIT
from taro_rt.runtime.sampler import guide, sample
from taro_rt.training.clips import HELD_OUT
from taro_rt.training.data import open_sounds, open_views
from taro_rt.training.evaluate import FIRST_TEST_ROW
from taro_rt.training.fit import Recipe, steps_of
from taro_rt.training.judges import change_of
from taro_rt.training.kept import KEPT, start_from_kept
from taro_rt.training.losses import Tra
from taro_rt.training.machine import bf16_is_fast, describe
from taro_rt.training.scores import Clips, Judges, score
from taro_rt.training.transformer import (
    SCALE_FILE,
    Examples,
    Objective,
    frozen,
    open_examples,
    train_transformer,
)

CONFIG = replace(SMALL, transformer=replace(SMALL.transformer, depth=3, width=96, heads=2))
"""Smaller than the embedded transformer, so that 24 trainings fit into hours on two cores."""
TRA = Tra(block=2, hidden=256)
VARIANTS: dict[str, Objective] = {
    "none": Objective(None, onset=False),
    "TRA": Objective(TRA, onset=False),
    "OAC": Objective(None),
    "TRA + OAC": Objective(TRA),
    "no weighting": Objective(replace(TRA, weighted=False)),
    "interpolation": Objective(replace(TRA, match="interpolation")),
    "global pooling": Objective(replace(TRA, match="pooling")),
    "global modulation": Objective(TRA),
    "centred teacher": Objective(replace(TRA, centred=True)),
}
"""Table 3, then Table 4 ("TRA + OAC" is its weighted Conv1d), then two questions of our own."""
SEEDS = (0, 1, 2)
SAMPLER = SamplerDefaults(guidance=2.5)
SHARED = ("vae", "onset", "visual", "teacher")
CHUNK = 20


def config_of(variant: str) -> NetworkConfig:
    """Sizes of a variant; all but one take the frame-wise form."""
    if variant != "global modulation":
        return CONFIG
    one_row = replace(CONFIG.transformer, time_positions=1, onset_window=CONFIG.transformer.onset_values)
    return replace(CONFIG, transformer=one_row)


@torch.inference_mode()
def generated_mels(net: MMDiT, decoder: VaeDecoder, examples: Examples, what: Objective, seed: int) -> Array:
    """Log-mels [n, 816, 64] for the conditions of `examples`, by the runtime's own sampler."""
    onset, features = examples.onset_logits[0], examples.features[0]
    if not what.onset:
        onset = torch.full_like(onset, FLOOR_LOGIT)
    rng = np.random.default_rng([seed, 77])
    shape = tuple(examples.latents.shape)

    def velocity(latents: Array, t: float, guided: bool) -> Array:
        rows = []
        for start in range(0, len(latents), CHUNK):
            block = slice(start, start + CHUNK)
            x = torch.from_numpy(latents[block])
            modulation, null, tokens = net.condition(torch.tensor([t]), onset[block], features[block])
            v = net.velocity(x, tokens, modulation[0])
            if guided:
                without = null[0].expand(len(x), modulation.shape[2], -1, -1)
                v0 = net.velocity(x, torch.zeros_like(tokens), without)
                rows.append(guide(v.numpy(), v0.numpy(), SAMPLER.guidance))
            else:
                rows.append(v.numpy())
        return np.concatenate(rows)

    def noise(step: int) -> Array:
        return rng.standard_normal(shape, np.float32)

    latents = torch.from_numpy(sample(velocity, noise(0), noise, SAMPLER))
    return torch.cat([decoder(block) for block in latents.split(CHUNK)]).numpy()


@dataclass(frozen=True)
class Data:
    """What every variant shares."""

    train: Examples
    test: Examples
    clips: Clips
    runs: Path
    setting: dict[str, Any]
    """What it was made of: clips, steps of the shared networks, the judges."""


def run(variant: str, data: Data, recipe: Recipe) -> Any:
    """Scores of one training; kept beside it, so that a run that was cut off goes on.

    Raises `ValueError` for a training that is there already and was another one.
    """
    runs, seed = data.runs, recipe.seed
    folder = runs / "ablation" / f"{variant.replace(' ', '-')}-{seed}"
    kept, about = folder / "scores.json", folder / "about.json"
    setting = {**data.setting, "steps": recipe.steps}
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and (not about.exists() or json.loads(about.read_text()) != setting):
        raise ValueError(f"{folder}: expected a training of {setting}; remove the folder to make it anew")
    about.write_text(json.dumps(setting))
    if not kept.exists():
        config, what = config_of(variant), replace(VARIANTS[variant], near_noise=False)
        config = replace(config, latent_scale=float((runs / SCALE_FILE).read_text()))
        train_transformer(config, data.train, runs, what, recipe, folder)
        net = frozen(folder, MMDiT(config), prefix="net.")
        decoder = frozen(runs / "vae", Vae(config.vae, config.latent_scale))
        mels = generated_mels(net, decoder, data.test, what, seed)
        scores = {**asdict(score(Judges.read(), data.clips, mels)), "velocity_loss": velocity_loss(folder)}
        kept.write_text(json.dumps(scores))
    return json.loads(kept.read_text())


def velocity_loss(folder: Path) -> float:
    """Running mean of L_CFM at the end of a training, from its log."""
    return float(json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["flow"])


def open_data(runs: Path, n: int, n_test: int) -> Data:
    """Examples to train on and held-out ones to judge, of those that are only reported on."""
    for part in SHARED:
        start_from_kept(part, runs / part)
    views, sounds = open_views(runs / "views", n, CONFIG), open_sounds(runs / "sounds", n)
    train = open_examples(CONFIG, views, sounds, runs, "examples")
    first = HELD_OUT + FIRST_TEST_ROW
    views = open_views(runs / "report-views", n_test, CONFIG, first)
    sounds = open_sounds(runs / "report-sounds", n_test, first)
    test = open_examples(CONFIG, views, sounds, runs, "report-examples")
    times = [rows[~torch.isnan(rows[:, 0]), 0].numpy() for rows in test.events]
    change = change_of(torch.from_numpy(np.array(views.onset_frames)))
    clips = Clips(test.mels.float().numpy(), test.kinds.numpy(), times, change)
    setting = {
        "clips": n,
        "test_clips": n_test,
        "shared": {part: steps_of(runs / part) for part in SHARED},
        "kept_sha256": hashlib.sha256(KEPT.read_bytes()).hexdigest(),
    }
    return Data(train, test, clips, runs, setting)


def summary(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread (largest less smallest) over seeds of every figure."""
    flat = [flatten(each) for each in scores]
    return {
        key: {
            "mean": float(np.mean([row[key] for row in flat])),
            "spread": float(np.ptp([row[key] for row in flat])),
        }
        for key in flat[0]
    }


def flatten(scores: dict[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in scores.items():
        if isinstance(value, dict):
            flat |= {f"{key}_{inner}": number for inner, number in value.items()}
        else:
            flat[key] = value
    return flat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--clips", type=int, default=3360)
    parser.add_argument("--test-clips", type=int, default=140)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--variant", action="append", help=f"of {', '.join(VARIANTS)}; all if left out")
    parser.add_argument("--output", type=Path, help="the record, as JSON; one that is there is completed")
    args = parser.parse_args()
    data = open_data(args.runs, args.clips, args.test_clips)
    setting = {**data.setting, "steps": args.steps, "seeds": list(SEEDS)}
    before = json.loads(args.output.read_text()) if args.output and args.output.exists() else {}
    if before and {key: before.get(key) for key in setting} != setting:
        raise SystemExit(f"{args.output}: was made with other settings or networks; choose another file")
    scores: dict[str, dict[str, Any]] = before.get("scores", {})
    missing = [
        (variant, seed)
        for variant in args.variant or VARIANTS
        for seed in SEEDS
        if str(seed) not in scores.get(variant, {})
    ]
    for variant, seed in missing:
        found = run(variant, data, Recipe(args.steps, bf16=bf16_is_fast(), seed=seed))
        scores.setdefault(variant, {})[str(seed)] = found
        record = {
            **setting,
            "machine": describe(),
            "versions": versions(),
            "commit": commit(),
            "variants": {
                name: summary(list(scores[name].values()))
                for name in VARIANTS
                if len(scores.get(name, {})) == len(SEEDS)
            },
            "scores": scores,
        }
        if args.output:
            args.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
