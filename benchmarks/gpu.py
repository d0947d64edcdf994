"""The GPU engine on the GPU of this machine: does it compute the same, what does it take, beside what else.

    python benchmarks/gpu.py                              the published size, under 10 minutes
    python benchmarks/gpu.py --bundle build/published     the same with a bundle: ONNX Runtime reads its graph
    python benchmarks/gpu.py --backend tensorrt           TensorRT beside it, by plans that are there; of the
                                                          embedded bundle unless --bundle names another
    python benchmarks/gpu.py --device cpu --small -o FILE a rehearsal on any machine; its numbers mean nothing

Parity comes first, and what fails it is not timed. Writes benchmarks/results/<device>/gpu.json (gpu-NAME.json
of a bundle), and what one window launched as gpu-profile.json beside it; until all is there, after every
part, gpu-unfinished.json. Weights are by the deterministic rule of golden.py unless a
bundle is given: speed does not depend on values.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gpu_chain as chained
import tensorrt_rows
import torch
from gpu_kernels import ceilings, table, vocoders
from gpu_parity import RELEASED, Oracle
from gpu_rows import BASE, OURS, ablation, others
from gpu_work import Plan, Record, Work, attempted

from taro_rt.engines import gpu
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.errors import OptionsError, TaroError
from taro_rt.runtime.bench.record import commit

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("taro-rt", "torch", "triton", "numpy", "onnxruntime-gpu", "onnxruntime", "av", "safetensors")
PREDICTED: Record = {
    "predicted": True,
    "device": "A100",
    "from": "a model of tiles in waves: 108 SMs, 1.8 us of ramp and tail, 1.3 us between kernels; not run",
    "sampler_ms": {"graph and fused kernels": 46, "persistent kernels": 41},
    "frames_to_wave_ms": 55,
    "beside": "the paper states 580 ms on an A100; what it includes is not stated",
}
GOALS: Record = {
    "device": "H200, batch 1, 8.16 s of sound",
    "must": {"sampler_ms": 24, "frames_to_wave_ms": 32, "chain_times_eager": 4},
    "goal": {
        "sampler_ms": 16,
        "frames_to_wave_ms": 25,
        "file_to_mp4_ms": 80,
        "takes_per_s": 65,
        "sampler_times_eager": 6,
    },
}

TENSORRT = "sampler of cuda over that of tensorrt"
"""The ratio that must be 0.9 or more: TensorRT's sampler within 10 % of ours."""


def main() -> None:
    args = _arguments()
    if args.backend == "tensorrt" and not args.small:
        args.bundle = args.bundle or "default"
    try:
        plan, target = read_plan(args), read_target(args)
    except TaroError as error:
        raise SystemExit(f"gpu.py: {error}") from None
    unfinished = target.with_name(f"{target.stem}-unfinished.json")
    record = measure(plan, lambda record: write(record, unfinished))
    print(json.dumps(record, indent=1))
    failed = failures(record)
    if not record["parity"]["bfloat16"]["passed"]:
        raise SystemExit(f"not timed: {record['parity']['bfloat16']['why_not']}")
    write(record, target)
    for path in (unfinished, unfinished.with_name(f"{unfinished.stem}-profile.json")):
        path.unlink(missing_ok=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def read_plan(args: argparse.Namespace) -> Plan:
    """What to measure. Raises `OptionsError`."""
    if args.device == "cpu" and not args.small:
        raise OptionsError("device: expected --small with cpu, which only rehearses, got the published size")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise OptionsError(f"device cuda: {gpu.why_not() or 'this PyTorch is not built for CUDA'}")
    small = {"runs": args.runs or 2, "reference_runs": 2, "takes": (1, 2), "steps": 3, "gemm_side": 256}
    small |= {"copy_bytes": 1 << 22, "rehearsal": True} if args.device == "cpu" else {}
    bundle = args.bundle or ("default" if args.small else None)
    if args.backend == "tensorrt" and args.small:
        raise OptionsError("small: expected no rehearsal with tensorrt, whose plans there must be")
    if args.small:
        return Plan(args.device, bundle, **small)
    return Plan(
        args.device, bundle, runs=args.runs or 200, seconds=args.seconds, tensorrt=args.backend == "tensorrt"
    )


def read_target(args: argparse.Namespace) -> Path:
    """The file to write. Raises `OptionsError` for a rehearsal among results."""
    if args.output is None:
        if args.small:
            raise OptionsError("output: expected -o FILE with --small, which measures nothing to keep")
        name = f"gpu-{Bundle.open(args.bundle).manifest.name}" if args.bundle else "gpu"
        name += "-tensorrt" if args.backend == "tensorrt" else ""
        return RESULTS / device_slug() / f"{name}.json"
    target = Path(args.output).resolve()
    if args.small and RESULTS.resolve() in target.parents:
        raise OptionsError(
            f"output: expected no rehearsal under {RESULTS}, got {target}; choose another folder"
        )
    return target


def write(record: Record, target: Path) -> None:
    """The record to `target`, the profile in it beside that."""
    profile = record.get("profile", [])
    rest = {key: value for key, value in record.items() if key != "profile"}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rest, indent=1) + "\n")
    target.with_name(f"{target.stem}-profile.json").write_text(json.dumps(profile, indent=1) + "\n")


def measure(plan: Plan, keep: Callable[[Record], None] = lambda record: None) -> Record:
    """The record. Nothing is timed unless parity passes. `keep` gets it after every part: what a machine had
    measured when it was lost is not lost."""
    work = Work(plan)
    record: Record = {
        "rehearsal": plan.rehearsal,
        "device": describe_device(plan.device),
        "versions": versions(),
        "commit": commit(),
        "bundle": work.bundle.manifest.name if work.bundle else None,
        "workload": {
            "networks": plan.bundle or "published size, deterministic weights, not trained",
            "window_s": work.geometry.window_s,
            "sampler": vars(work.sampler),
            "batch": 1,
        },
        "goals": GOALS,
        "predictions": [PREDICTED],
    }
    say("parity")
    oracle = Oracle(work)
    released = oracle.released()
    most = released if plan.bundle else min(released, RELEASED)
    record["parity"] = {
        "released_trajectory": float(f"{released:.3g}"),
        "released_trajectory_of_the_script": RELEASED,
        "bfloat16": oracle.check("bfloat16", most),
    }
    if plan.device == "cuda" and (why_not := gpu.why_not(gpu.FP8)):
        record["parity"]["fp8"] = {"missing": why_not}
    else:
        record["parity"]["fp8"] = oracle.check("fp8", most)
    if not record["parity"]["bfloat16"]["passed"]:
        return record
    keep(record)
    del oracle
    timed(work, record, keep)
    record["seconds"] = round(plan.seconds - plan.left_s(), 1)
    return record


def timed(work: Work, record: Record, keep: Callable[[Record], None] = lambda record: None) -> None:
    """All that takes time, the longest last; what no time is left for says so."""
    record["ceilings"] = most = ceilings(work)
    in_fp8 = record["parity"]["fp8"]
    why_not_fp8 = in_fp8.get("missing") or in_fp8["why_not"]
    if work.plan.device == "cuda":  # of the pipeline alone, not of the oracle and the ceilings
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    loaded = work.load("bfloat16")
    load_s = round(time.perf_counter() - started, 3)
    parts: dict[str, Any] = {
        "chain": lambda: {"load_s": load_s, **chained.chain(work, loaded, most)},
        "memory": lambda: chained.memory(loaded, work.plan.device),
        "takes": lambda: list(chained.takes(work, loaded)),
        "file": lambda: chained.file_to_mp4(work, loaded),
        "profile": lambda: chained.profile(work, loaded),
        "reference": lambda: chained.reference_chain(work),
        "ablation": lambda: list(ablation(work, why_not_fp8)),
        "kernels": lambda: list(table(work, most)),
        "cold_start": lambda: chained.cold_start(work),
        "vocoders": lambda: list(vocoders(work, most)),
        "others": lambda: list(others(work)),
    }
    if work.plan.tensorrt and work.plan.bundle:
        plans_of = Bundle.open(work.plan.bundle)
        parts["tensorrt"] = lambda: tensorrt_rows.measure(plans_of)
    for name, make in parts.items():
        say(name)
        late = work.plan.left_s() <= 0
        record[name] = {"missing": "not run: no time was left"} if late else attempted(make)
        keep(record)
    record["ratios"] = ratios(record)
    record["reached"] = reached(record)
    for engine in loaded.graphs.values():
        engine.close()
    loaded.window.close()


def failures(record: Record) -> list[str]:
    """Parts, and rows of parts, that raised an error."""
    found = []
    for name, part in record.items():
        rows = part if isinstance(part, list) else [part]
        found += [f"{name}: {row['failed']}" for row in rows if isinstance(row, dict) and "failed" in row]
    if why_not := record.get("tensorrt", {}).get("parity", {}).get("why_not"):
        found.append(f"tensorrt: {why_not}")
    return found


def ratios(record: Record) -> Record:
    """How many times as fast as plain PyTorch in the same run, of the medians."""
    made: Record = {}
    chain, reference = record["chain"], record["reference"]
    if "frames_to_wave_ms" in chain and "frames_to_wave_ms" in reference:
        ours = chain["frames_to_wave_ms"]["p50"]
        made["frames_to_wave"] = round(reference["frames_to_wave_ms"]["p50"] / ours, 2)
    rows = record["ablation"] if isinstance(record["ablation"], list) else []
    base = next((r["sampler_ms"]["p50"] for r in rows if r["name"] == BASE and "sampler_ms" in r), None)
    for row in rows:
        if base and "sampler_ms" in row:
            made[row["name"]] = round(base / row["sampler_ms"]["p50"], 2)
    beside = record.get("tensorrt", {})
    if "sampler_ms" in beside and "stages_ms" in chain:
        ours = chain["stages_ms"]["sampler"]["p50"]
        made[TENSORRT] = round(ours / beside["sampler_ms"]["p50"], 3)
    return made


def reached(record: Record) -> Record:
    """Every goal with what was measured for it and whether that is as good; in words why not, where it was
    measured on another device or of other networks than the goals are for."""
    beside: Record = {}
    if (of_cuda := record["ratios"].get(TENSORRT)) is not None:
        beside[f"must: {TENSORRT}"] = {"wanted": 0.9, "measured": of_cuda, "is_met": of_cuda >= 0.9}
    if record["rehearsal"] or record["bundle"] or "H200" not in record["device"]["name"]:
        return {**beside, "not_judged": f"the goals are for {GOALS['device']}, and the published size"}

    def of(*path: str) -> Any:
        value: Any = record
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    rows = record["takes"] if isinstance(record["takes"], list) else []
    measured = {
        "sampler_ms": of("chain", "stages_ms", "sampler", "p50"),
        "frames_to_wave_ms": of("chain", "frames_to_wave_ms", "p50"),
        "chain_times_eager": of("ratios", "frames_to_wave"),
        "sampler_times_eager": of("ratios", OURS),
        "file_to_mp4_ms": of("file", "file_to_mp4_ms", "p50"),
        "takes_per_s": max((row["takes_per_s"] for row in rows if "takes_per_s" in row), default=None),
    }
    assert set(measured) == {name for kind in ("must", "goal") for name in GOALS[kind]}
    made = beside
    for kind in ("must", "goal"):
        for name, wanted in GOALS[kind].items():
            got = measured[name]
            is_met = got is not None and (got <= wanted if name.endswith("_ms") else got >= wanted)
            made[f"{kind}: {name}"] = {"wanted": wanted, "measured": got, "is_met": is_met}
    return made


def describe_device(device: str) -> Record:
    """What it was computed on."""
    if device == "cpu":
        return {"name": "processor, for a rehearsal"}
    found = torch.cuda.get_device_properties(0)
    about: Record = {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "memory_mb": found.total_memory >> 20,
        "multiprocessors": found.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    if shutil.which("nvidia-smi"):
        fields = ("driver_version", "power.limit", "clocks.max.sm", "clocks.max.mem")
        command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "-i", "0"]
        said = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        about |= dict(zip(fields, (part.strip() for part in said.split(",")), strict=False))
    return about


def device_slug() -> str:
    """The name of the device as that of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(0).lower()).strip("-")


def versions() -> Record:
    """Of what matters, as far as it is installed."""
    found: Record = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def say(what: str) -> None:
    """Where the work is."""
    print(f"gpu.py: {what}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--bundle", help="a bundle folder; the published size without trained weights if left out"
    )
    parser.add_argument("--backend", choices=("cuda", "tensorrt"), default="cuda", help="tensorrt: both")
    parser.add_argument("--small", action="store_true", help="the embedded bundle, and little of everything")
    parser.add_argument("--seconds", type=float, default=570.0, help="after this nothing new is begun")
    parser.add_argument("--runs", type=int, help="of the whole chain, 200 if left out")
    parser.add_argument("-o", "--output", help="another file than results/<device>/gpu.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
