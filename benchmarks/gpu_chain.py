"""The whole chain of gpu.py: one window from pixels to sound, several takes, a file, a start, and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from gpu_rows import Given
from gpu_work import Record, Work, percentiles_ms, synchronise, wall_times

from taro_rt.engines.backends import Choice, Engines
from taro_rt.engines.cuda import Loaded
from taro_rt.engines.flops import flops
from taro_rt.engines.released import ReleasedTransformer, head_of
from taro_rt.engines.stages import IMAGENET_MEAN, IMAGENET_STD

ROOT = Path(__file__).parents[1]


def chain(work: Work, loaded: Loaded, most: Record) -> Record:
    """Frames in the host's memory to the waveform in the host's memory; the host waits once, at the end."""
    scene, stages, walls = work.scene(), dict[str, list[float]](), []
    started = time.perf_counter()
    loaded.window(scene)
    first_s = time.perf_counter() - started
    for k in range(5 + work.plan.runs):
        started = time.perf_counter()
        sound = loaded.window(scene)
        if k >= 5:
            walls.append(time.perf_counter() - started)
            for stage, seconds in sound.seconds.items():
                stages.setdefault(stage, []).append(seconds)
    stages["host"] = [w - sum(parts) for w, *parts in zip(walls, *stages.values(), strict=True)]
    made: Record = {name: percentiles_ms(seconds) for name, seconds in stages.items()}
    for stage, gflop in operations(work).items():
        rate = gflop / made[stage]["p50"]  # GFLOP a millisecond: TFLOP/s
        made[stage] |= {"gflop": round(gflop, 1), "tflops": round(rate, 2)}
        made[stage]["of_gemm"] = round(rate / most["gemm_tflops"], 3)
    return {"first_call_s": round(first_s, 3), "frames_to_wave_ms": percentiles_ms(walls), "stages_ms": made}


def operations(work: Work) -> dict[str, float]:
    """GFLOP of each program."""
    g, config = work.geometry, work.config
    rows = sum(2 if step.guided else 1 for step in work.steps)
    segments = g.onset_values // g.onset_segment
    counts = {
        "watch": flops(config, "onset", b=segments) + flops(config, "visual", b=1, t=g.visual_encode),
        "sampler": flops(config, "denoiser", b=rows) + flops(config, "conditioner", b=2, s=len(work.steps)),
        "sound": flops(config, "decoder", b=1) + flops(config, "vocoder", b=1),
    }
    return {stage: n / 1e9 for stage, n in counts.items()}


@torch.inference_mode()
def reference_chain(work: Work) -> Record:
    """The released recipe by plain PyTorch, from the same pixels: transformer in bfloat16 with everything at
    every step, the rest in float32, its convolutions in TF32 as PyTorch has it. In its favour: norms folded,
    nothing written to files in between."""
    device, g, given, scene = work.plan.device, work.geometry, Given(work), work.scene()
    networks = work.networks()
    net = networks.transformer.bfloat16()
    net.t_embedder.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16(),))
    with torch.device(device):
        whole = ReleasedTransformer(net, head_of(work.config)).bfloat16()
    mean, std = (torch.from_numpy(v.copy()).to(device) for v in (IMAGENET_MEAN, IMAGENET_STD))
    assert scene.onset_frames is not None
    pixels = np.ascontiguousarray(scene.onset_frames), np.ascontiguousarray(scene.visual_frames)

    def run() -> np.ndarray:
        seen, looked = (torch.from_numpy(p).to(device).float() / 255 for p in pixels)
        segments = ((seen - mean) / std).permute(0, 4, 1, 2, 3).contiguous()
        onset = networks.onset(segments).flatten()[None, : g.onset_values].bfloat16()
        features = networks.visual(looked[None].permute(0, 4, 1, 2, 3).contiguous())
        features = features[:, : g.visual_frames].bfloat16()
        x, used = given.noise[0], 0
        for step in given.steps:
            rows = 2 if step.guided else 1
            times = torch.full((rows,), step.t, device=device)
            keep = torch.tensor([1.0, 0.0][:rows]).to(device).bfloat16()
            latents = x.bfloat16().repeat(rows, 1, 1, 1)
            v = whole(latents, times, onset.repeat(rows, 1), features.repeat(rows, 1, 1), keep).float()
            if step.guided:
                conditional, null = v.chunk(2)
                v = null + step.guidance * (conditional - null)
            x = step.keep * x + step.push * v
            if step.spread:
                used += 1
                x = x + step.spread * given.noise[used]
        return networks.vocoder(networks.decoder(x)).cpu().numpy()

    taken = wall_times(run, work.plan.reference_runs, device, warm=2)
    return {"name": "plain PyTorch, as released", "frames_to_wave_ms": percentiles_ms(taken)}


def takes(work: Work, loaded: Loaded) -> Iterator[Record]:
    """Several sounds of one window at once."""
    for n in work.plan.takes:
        scene = work.scene(n)
        taken = wall_times(
            lambda s=scene: loaded.window(s), max(3, work.plan.reference_runs // 2), "cpu", warm=2
        )
        milliseconds = percentiles_ms(taken)
        yield {
            "takes": n,
            "frames_to_wave_ms": milliseconds,
            "takes_per_s": round(1e3 * n / milliseconds["p50"], 2),
        }


def file_to_mp4(work: Work, loaded: Loaded) -> Record:
    """A silent film of 8 s and 360 lines to one with sound, engines loaded, decoding and muxing included."""
    if missing := [name for name in ("av", "soundfile") if not find_spec(name)]:
        return {"missing": f"{' and '.join(missing)} not installed"}
    from taro_rt.runtime.bench.workload import write_video
    from taro_rt.runtime.commands import Job, Machine, generate_file
    from taro_rt.runtime.options import Options
    from taro_rt.runtime.pipeline import Pipeline
    from taro_rt.runtime.progress import Silent

    choice = Choice("cuda", "bfloat16", "benchmark")
    engines = Engines(**loaded.graphs, window=loaded.window, choice=choice)
    machine = Machine.of(Pipeline(work.stand_in(), engines), "benchmark")
    job = Job(Options(steps=work.sampler.steps), force=True)
    stages = dict[str, list[float]]()
    with TemporaryDirectory() as folder:
        video, output = Path(folder, "clip.mp4"), Path(folder, "out.mp4")
        write_video(video, 2.0 if work.plan.rehearsal else 8.0, 360)

        def run() -> None:
            record, _ = generate_file(machine, video, output, job, Silent())
            for stage, seconds in record["timings_s"].items():
                stages.setdefault(stage, []).append(seconds)

        taken = wall_times(run, work.plan.reference_runs, "cpu", warm=2)
    medians = {stage: round(1e3 * float(np.median(seconds)), 2) for stage, seconds in stages.items()}
    return {"file_to_mp4_ms": percentiles_ms(taken), "stages_p50_ms": medians}


def cold_start(work: Work) -> Record:
    """A process of its own: the command on the sample video with the embedded bundle, start to file."""
    if missing := [name for name in ("av", "soundfile", "typer", "safetensors") if not find_spec(name)]:
        return {"missing": f"{' and '.join(missing)} not installed"}
    backend = "cuda" if work.plan.device == "cuda" else "eager"
    with TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "taro_rt", "generate", str(ROOT / "samples" / "drumstick.mp4"),
            "-o", str(Path(folder, "out.mp4")), "--backend", backend, "--steps", str(work.sampler.steps),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        wall = time.perf_counter() - started
    if done.returncode:
        return {"missing": f"the command failed: {done.stderr.strip().splitlines()[-1:]}"}
    return {"bundle": "embedded", "backend": backend, "process_to_file_s": round(wall, 3)}


def memory(loaded: Loaded, device: str) -> Record:
    """MB of the device."""
    made: Record = {"pipeline_mb": loaded.window.memory_mb}
    if device == "cuda":
        made["peak_allocated_mb"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
        made["peak_reserved_mb"] = round(torch.cuda.max_memory_reserved() / 1e6, 1)
    return made


def profile(work: Work, loaded: Loaded) -> list[Record]:
    """What one window launched, by name: how often, and microseconds on the device."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    on_gpu = work.plan.device == "cuda"
    scene = work.scene()
    loaded.window(scene)
    with profiler(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        loaded.window(scene)
        synchronise(work.plan.device)
    rows: list[Record] = []
    for event in found.key_averages():
        us: Any = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if us > 0:
            rows.append({"name": event.key, "calls": event.count, "us": round(float(us), 1)})
    return sorted(rows, key=lambda row: -row["us"])
