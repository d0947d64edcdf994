"""The trained networks of a run, packed as the embedded bundle."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from taro_rt.engines.bundle import DEFAULT, Manifest, SamplerDefaults
from taro_rt.engines.eager import EagerEngine
from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.engines.nets.networks import Networks, make_vocoder
from taro_rt.engines.nets.onset import OnsetNet
from taro_rt.engines.nets.vae import Vae
from taro_rt.engines.nets.visual import VisualNet
from taro_rt.engines.stages import contracts, typical_inputs
from taro_rt.export.package import export_bundle, inference_form
from taro_rt.export.parity import SIZES, deviation
from taro_rt.training.fit import LOG_STEPS, steps_of
from taro_rt.training.machine import describe
from taro_rt.training.transformer import SCALE_FILE, frozen

TIME = re.compile(r"(\d+) steps in (\d+) minutes")
NETWORKS = ("vae", "vocoder", "onset", "visual", "transformer")
SAMPLER = SamplerDefaults(guidance=3.0, guidance_high=1.0)
"""Chosen on held-out clips below the reported ones (training/NOTES.md): what sounds is decided near noise."""


def pack(config: NetworkConfig, runs: Path, folder: Path = DEFAULT, force: bool = True) -> Manifest:
    """Export the EMA weights of `runs`; the manifest says how long each was trained and where.

    What was trained before the logs in `runs` begin is taken from the embedded bundle they went on from.
    """
    config = replace(config, latent_scale=float((runs / SCALE_FILE).read_text()))
    vae = Vae(config.vae, config.latent_scale)
    networks = Networks(
        config=config,
        onset=frozen(runs / "onset", OnsetNet(config.onset)),
        visual=frozen(runs / "visual", VisualNet(config.visual), prefix="net."),
        transformer=frozen(runs / "transformer", MMDiT(config), prefix="net."),
        decoder=frozen(runs / "vae", vae),
        vocoder=frozen(runs / "vocoder", make_vocoder(config)),
    )
    manifest_file = DEFAULT / "manifest.json"  # read as it is: a bundle that is no longer taken can be remade
    said = json.loads(manifest_file.read_text()).get("provenance", {}) if manifest_file.exists() else {}
    provenance = {
        "data": "procedurally generated clips only (training/clips.py); no recordings, no footage",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe(),
        **{name: training_time(runs / name, said.get(name, "")) for name in NETWORKS},
        "half_precision": "weights off float32: " + half_precision_cost(networks),
    }
    manifest = export_bundle(
        networks,
        folder,
        "taro-rt-embedded",
        provenance,
        "Apache-2.0",
        version="8",
        storage="float16",
        sampler=SAMPLER,
        force=force,
    )
    return manifest


def half_precision_cost(networks: Networks) -> str:
    """How far each graph's outputs are from those of the same weights in float32, as relative rms."""
    promised = contracts(networks.config.geometry())
    exact, stored = (inference_form(networks, kind).graphs() for kind in ("float32", "float16"))
    costs = []
    for name, contract in promised.items():
        feed = typical_inputs(contract, seed=1, b=1, **SIZES)
        want = EagerEngine(exact[name], contract)(**feed)
        got = EagerEngine(stored[name], contract)(**feed)
        worst = max(deviation(got[key], want[key]).relative_rms for key in want)
        costs.append(f"{name} {worst:.1e}")
    return ", ".join(costs)


def courses(runs: Path, rows: int = 40) -> str:
    """The logs of all trainings in `runs` as JSON, thinned to about `rows` rows each: what a plot needs."""
    lines = []
    for log in sorted(runs.glob("*/log.jsonl")):
        course = [json.loads(line) for line in log.read_text().splitlines()]
        kept = course[:: max(1, len(course) // rows)]
        lines.append(f"{json.dumps(log.parent.name)}: [\n  " + ",\n  ".join(map(json.dumps, kept)) + "\n ]")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def training_time(folder: Path, before: str = "") -> str:
    """Steps and minutes of a training folder, from its log; the clock starts anew at each resumption.

    `before` says the same of an earlier bundle, for a log that begins after its steps. It is the answer where
    that had as many. Raises `ValueError` if neither tells.
    """
    log, steps = folder / "log.jsonl", steps_of(folder)
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    known = TIME.fullmatch(before)
    earlier, minutes = (int(known[1]), float(known[2])) if known else (0, 0.0)
    is_whole = bool(rows) and rows[0]["step"] <= LOG_STEPS
    if earlier == steps and not is_whole:
        return before
    if not rows:
        raise ValueError(f"{folder}: expected a log of its {steps} steps, got none")
    if is_whole or earlier >= rows[0]["step"]:
        minutes = 0.0
    following = [*rows[1:], {"seconds": -1.0}]
    seconds = sum(a["seconds"] for a, b in zip(rows, following, strict=True) if b["seconds"] < a["seconds"])
    return f"{steps} steps in {minutes + seconds / 60:.0f} minutes"
