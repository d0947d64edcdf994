"""Ways of sampling side by side: plain PyTorch, with one optimisation after the other, and by other runtimes.

All sample one take from the same conditions and noise that already lie on the device. A way that cannot be
had is a row that says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from gpu_work import Record, Work, attempted, percentiles_ms, wall_times
from torch import Tensor, nn

from taro_rt.engines.cuda_graph import Device
from taro_rt.engines.cuda_sampler import Sampler
from taro_rt.engines.nets.mmdit import Denoiser
from taro_rt.engines.released import ReleasedTransformer, head_of
from taro_rt.engines.window import Step

COMPILE_S = 200.0
"""What torch.compile, and what an export to ONNX, may take: less time left, and the row is left out."""

BASE = "plain PyTorch in bfloat16, everything at every step, as released"
"""The row that the others are compared with."""
OURS = "+ linear layers of both streams in one launch, GELU within"
"""The row of the sampler as shipped."""


class Given:
    """Conditions and noise on the device."""

    def __init__(self, work: Work) -> None:
        device = work.plan.device
        self.onset, self.features = (torch.from_numpy(a).to(device) for a in work.conditions())
        self.noise = torch.from_numpy(work.start_and_steps()).to(device)
        self.times = torch.tensor([step.t for step in work.steps], device=device)
        self.steps = work.steps


def ablation(work: Work, why_not_fp8: str) -> Iterator[Record]:
    """The sampler with one optimisation after the other: ours as shipped, and after it what is not exact,
    unless there is a reason not to time that."""
    given = Given(work)
    yield {"name": BASE, **attempted(lambda: _timed(work, BASE, _as_released(work, given)))}
    for name, graph, fused, grouped, in_fp8 in (
        ("+ modulation of all steps in one product, embeddings once", False, False, False, False),
        ("+ the whole loop as one CUDA graph", True, False, False, False),
        ("+ fused kernels, linear layers by cuBLAS", True, True, False, False),
        (OURS, True, True, True, False),
        ("+ fp8 (another sound)", True, True, True, True),
    ):
        if fused and not find_spec("triton"):
            yield {"name": name, "missing": "triton is not installed"}
        elif in_fp8 and why_not_fp8:
            yield {"name": name, "missing": why_not_fp8}
        else:
            settings = (graph, fused, grouped, in_fp8)
            made = attempted(lambda n=name, s=settings: _timed(work, n, *_ours(work, given, *s)))
            yield {"name": name, **made}


def others(work: Work) -> Iterator[Record]:
    """torch.compile and ONNX Runtime, on the same device."""
    given = Given(work)
    for name, make in (
        ("torch.compile of a step in bfloat16", _compiled),
        ("ONNX Runtime, its denoiser step by step", _onnx),
    ):
        needed = 0.0 if work.plan.rehearsal else COMPILE_S
        if work.plan.left_s() < needed:
            yield {"name": name, "missing": f"not run: less than {needed:g} s were left"}
            continue
        with TemporaryDirectory() as folder:
            row = attempted(lambda n=name, m=make, f=folder: _other(work, given, n, m, Path(f)))
            yield {"name": name, **row}


Run = Callable[[], Any]
Maker = Callable[[Work, Given, Path], "tuple[Run, Record] | str"]


def _other(work: Work, given: Given, name: str, make: Maker, folder: Path) -> Record:
    made = make(work, given, folder)
    return {"missing": made} if isinstance(made, str) else _timed(work, name, *made)


def _timed(work: Work, name: str, run: Run, about: Record | None = None, close: Run | None = None) -> Record:
    started = time.perf_counter()
    with torch.inference_mode():
        run()
        first_s = round(time.perf_counter() - started, 3)
        taken = wall_times(run, work.plan.reference_runs, work.plan.device, warm=2)
    if close is not None:
        close()
    return {"name": name, "sampler_ms": percentiles_ms(taken), "first_call_s": first_s, **(about or {})}


def _as_released(work: Work, given: Given) -> Run:
    net = work.networks().transformer.bfloat16()
    net.t_embedder.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16(),))
    with torch.device(work.plan.device):
        whole = ReleasedTransformer(net, head_of(work.config)).bfloat16()
    onset, features = given.onset.bfloat16(), given.features.bfloat16()

    def velocity(x: Tensor, step: Step) -> Tensor:
        rows = 2 if step.guided else 1
        times = torch.full((rows,), step.t, device=x.device)
        keep = (
            torch.tensor([1.0, 0.0][:rows]).to(x.device).bfloat16()
        )  # copied every time, as the script does
        latents = x.bfloat16().repeat(rows, 1, 1, 1)
        return whole(latents, times, onset.repeat(rows, 1), features.repeat(rows, 1, 1), keep)

    return lambda: _sampled(given, velocity)


def _sampled(given: Given, velocity: Callable[[Tensor, Step], Tensor]) -> Tensor:
    """The loop for networks that give velocities, of both rows where a step is guided."""
    x, used = given.noise[0], 0
    for step in given.steps:
        v = velocity(x, step).float()
        if step.guided:
            conditional, null = v.chunk(2)
            v = null + step.guidance * (conditional - null)
        x = step.keep * x + step.push * v
        if step.spread:
            used += 1
            x = x + step.spread * given.noise[used]
    return x


def _ours(
    work: Work, given: Given, graph: bool, fused: bool, grouped: bool, in_fp8: bool
) -> tuple[Run, Record, Run]:
    sampler = Sampler(work.networks().transformer, torch.bfloat16, fused, in_fp8, grouped)

    def run() -> tuple[Tensor, ...]:
        conditions = sampler.conditions(given.times, given.onset, given.features)
        return (sampler.loop(*conditions, given.noise, given.steps),)

    if not graph:
        return run, {}, lambda: None
    device = Device(work.plan.device)
    device.settle()
    started = time.perf_counter()
    with device.active():
        program = device.record(run)
    about = {"record_s": round(time.perf_counter() - started, 3)}

    def replay() -> None:
        with device.active():
            program()

    return replay, about, program.close


def _compiled(work: Work, given: Given, folder: Path) -> tuple[Run, Record] | str:
    sampler = Sampler(work.networks().transformer, torch.bfloat16, fused=False)
    backend = {"backend": "eager"} if work.plan.rehearsal else {"mode": "reduce-overhead"}
    step = torch.compile(Denoiser(sampler.net), dynamic=False, **backend)
    modulation, tokens = sampler.conditions(given.times, given.onset, given.features)
    index = {step.t: i for i, step in enumerate(given.steps)}

    def velocity(x: Tensor, at: Step) -> Tensor:
        rows, i = (2 if at.guided else 1), index[at.t]
        latents = x.bfloat16().repeat(rows, 1, 1, 1)
        if not work.plan.rehearsal:
            torch.compiler.cudagraph_mark_step_begin()
        return step(latents=latents, tokens=tokens[:rows], modulation=modulation[i, :rows]).clone()

    return (lambda: _sampled(given, velocity)), {"mode": next(iter(backend.values()))}


def _onnx(work: Work, given: Given, folder: Path) -> tuple[Run, Record] | str:
    if not find_spec("onnxruntime"):
        return "onnxruntime-gpu is not installed"
    import onnxruntime as ort

    from taro_rt.engines.ort import FAILURES as ORT_FAILURES

    provider = "CUDAExecutionProvider" if work.plan.device == "cuda" else "CPUExecutionProvider"
    if provider not in ort.get_available_providers():
        return (
            f"this onnxruntime has no {provider}; pip install onnxruntime-gpu, without onnxruntime beside it"
        )
    made = _graph_of(work, folder)
    if isinstance(made, str):
        return made
    path, dtype = made
    try:
        session = ort.InferenceSession(path, providers=[provider])
    except ORT_FAILURES as error:
        return f"onnxruntime {ort.__version__} cannot load the graph: {error}"
    if provider not in session.get_providers():
        return f"onnxruntime could not load {provider}"
    sampler = Sampler(work.networks().transformer, torch.float32, fused=False)
    modulation, tokens = (t.to(dtype) for t in sampler.conditions(given.times, given.onset, given.features))
    index = {step.t: i for i, step in enumerate(given.steps)}
    element = np.float16 if dtype == torch.float16 else np.float32

    def velocity(x: Tensor, at: Step) -> Tensor:
        rows, i = (2 if at.guided else 1), index[at.t]
        latents = x.to(dtype).repeat(rows, 1, 1, 1).contiguous()
        out, binding = torch.empty_like(latents), session.io_binding()
        feed = {"latents": latents, "tokens": tokens[:rows], "modulation": modulation[i, :rows]}
        for name, t in feed.items():
            binding.bind_input(name, work.plan.device, 0, element, tuple(t.shape), t.data_ptr())
        binding.bind_output("velocity", work.plan.device, 0, element, tuple(out.shape), out.data_ptr())
        if work.plan.device == "cuda":
            torch.cuda.synchronize()  # it computes on a stream of its own
        session.run_with_iobinding(binding)
        return out

    about = {"version": ort.__version__, "type": str(dtype).removeprefix("torch.")}
    return (lambda: _sampled(given, velocity)), about


def _graph_of(work: Work, folder: Path) -> tuple[Path, torch.dtype] | str:
    """The bundle's denoiser in float32; without one, exported in half precision."""
    if work.bundle:
        return work.bundle.graph("denoiser"), torch.float32
    if missing := [name for name in ("onnx", "onnxscript") if not find_spec(name)]:
        return f"{' and '.join(missing)} not installed: no graph can be exported for it"
    path = folder / "denoiser.onnx"
    module: nn.Module = Denoiser(work.networks().transformer).half()
    feed = work.contracts["denoiser"].example(b=2, n=work.geometry.visual_frames)
    torch.onnx.export(
        module,
        (),
        kwargs={k: torch.from_numpy(v).to(work.plan.device).half() for k, v in feed.items()},
        f=path,
        input_names=list(feed),
        output_names=["velocity"],
        opset_version=23,
        dynamo=True,
        dynamic_shapes={k: {0: torch.export.Dim("b", min=1)} for k in feed},
        external_data=True,
        verbose=False,
    )
    return path, torch.float16
