"""The gate of gpu.py: what does not compute the same within its tolerance is not timed.

Held against plain PyTorch in float32 on the same device: each network, and the whole trajectory for given
conditions and noise. The released recipe stands beside it, with the same weights.
"""

from __future__ import annotations

import numpy as np
import torch
from gpu_work import Record, Work

from taro_rt.engines.cuda_window import CudaWindow
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.engines.nets.networks import Networks
from taro_rt.engines.released import ReleasedTransformer, head_of
from taro_rt.engines.stages import typical_inputs
from taro_rt.runtime.bench import gate, released
from taro_rt.runtime.sampler import guide, sample, time_grid

RELEASED = 0.014
"""Relative rms of the released script's own trajectory as the specification has it (C3). The gate is that of
its recipe with the same weights on the same device."""
NETS = ("onset", "visual", "decoder", "vocoder")


class Oracle:
    """Outputs in float32 that everything is held against; made once, kept on the host."""

    def __init__(self, work: Work) -> None:
        self._work = work
        networks = work.networks()
        self.nets = {name: _output(work, networks, name) for name in NETS}
        self.trajectory = self._plain(networks.transformer)

    def check(self, precision: str, most: float) -> Record:
        """Deviations of the cuda backend, its programs replayed, and what is wrong with them; in bfloat16 the
        trajectory's may be `most`."""
        work, loaded = self._work, self._work.load(precision)
        found = {}
        for name in NETS:
            engine = loaded.graphs[name]
            output = next(iter(engine(**_inputs(work, name)).values()))
            found[name] = gate.relative_rms(output, self.nets[name])
        found["trajectory"] = gate.relative_rms(_trajectory(work, loaded.window), self.trajectory)
        for engine in loaded.graphs.values():
            engine.close()
        loaded.window.close()
        limits = gate.tolerances(precision, most)
        limits = {name: limit for name, limit in limits.items() if name in found}
        wrong = gate.faults(found, limits)
        rounded = {name: float(f"{value:.3g}") for name, value in found.items()}
        return {"deviation": rounded, "tolerance": limits, "passed": not wrong, "why_not": "; ".join(wrong)}

    def released(self) -> float:
        """Relative rms of the released recipe's trajectory: network, state, grid and noise in bfloat16."""
        work, device = self._work, self._work.plan.device
        onset, features = (torch.from_numpy(a).to(device).bfloat16() for a in work.conditions())
        net = work.networks().transformer.bfloat16()
        # the features of a time are float32 whatever the network is
        net.t_embedder.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16(),))
        with torch.device(device):
            whole = ReleasedTransformer(net, head_of(work.config)).bfloat16()

        @torch.inference_mode()
        def velocities(x: np.ndarray, t: float, guided: bool) -> list[np.ndarray]:
            rows = 2 if guided else 1
            latents = torch.from_numpy(x).to(device).bfloat16().repeat(rows, 1, 1, 1)
            times = torch.full((rows,), t, device=device)
            keep = torch.tensor([1.0, 0.0][:rows], device=device).bfloat16()
            v = whole(latents, times, onset.repeat(rows, 1), features.repeat(rows, 1, 1), keep)
            return [row[None].float().cpu().numpy() for row in v]

        made = released.sample(
            velocities, work.noise(0, 0, 1), lambda i: work.noise(i + 1, 0, 1), work.sampler
        )
        return gate.relative_rms(made, self.trajectory)

    @torch.inference_mode()
    def _plain(self, net: MMDiT) -> np.ndarray:
        work, device = self._work, self._work.plan.device
        onset, features = (torch.from_numpy(a).to(device) for a in work.conditions())
        times = time_grid(work.sampler.method, work.sampler.steps)[:-1]
        index = {float(t): i for i, t in enumerate(times)}
        modulation, null, tokens = net.condition(torch.from_numpy(times).to(device), onset, features)

        def velocity(x: np.ndarray, t: float, guided: bool) -> np.ndarray:
            latents, i = torch.from_numpy(x).to(device), index[t]
            v = net.velocity(latents, tokens, modulation[i]).cpu().numpy()
            if not guided:
                return v
            rows = null[i].expand(-1, modulation.shape[2], -1, -1)
            other = net.velocity(latents, torch.zeros_like(tokens), rows).cpu().numpy()
            return guide(v, other, work.sampler.guidance)

        return sample(velocity, work.noise(0, 0, 1), lambda i: work.noise(i + 1, 0, 1), work.sampler)


def _inputs(work: Work, name: str) -> dict[str, np.ndarray]:
    free = {"t": work.geometry.visual_encode} if name == "visual" else {}
    return typical_inputs(work.contracts[name], seed=1, b=1, **free)


@torch.inference_mode()
def _output(work: Work, networks: Networks, name: str) -> np.ndarray:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        feed = {k: torch.from_numpy(v).to(work.plan.device) for k, v in _inputs(work, name).items()}
        return networks.by_name()[name](**feed).float().cpu().numpy()


def _trajectory(work: Work, window: CudaWindow) -> np.ndarray:
    """Of the window's own program, for given conditions."""
    device, scene = window.device, work.scene()
    onset, features = work.conditions()
    with device.active():
        window.put_conditions(onset, features)
        latents = window.sample(scene, 0, 1)
        device.wait()
        return latents.float().cpu().numpy()
