"""One window from frames to sound without a word to the host in between: three programs, launched in a row.

The first sees (both encoders, side by side), the second samples, the third sounds. Noise is drawn while the
first runs. One thread does it: NumPy draws float32 without letting others go on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from taro_rt.engines.contract import Array
from taro_rt.engines.cuda_graph import Device, Inlet, Outlet, Shelf, Work
from taro_rt.engines.cuda_sampler import Sampler, n_noises
from taro_rt.engines.errors import EngineError
from taro_rt.engines.stages import FULL, IMAGENET_MEAN, IMAGENET_STD, Geometry
from taro_rt.engines.window import Scene, Sound, Step

Nets = dict[str, nn.Module]
TAKES = 16
"""Takes of one launch; more are made one launch after the other."""
PROGRAMS = 8
"""That are kept."""


class CudaWindow:
    """All networks chained on a device; a `Window`."""

    def __init__(
        self, device: Device, geometry: Geometry, nets: Nets, sampler: Sampler, half: torch.dtype
    ) -> None:
        """`nets` by the names of their weights, all but the transformer rewritten in `half`."""
        self.device, self._half, self._geometry = device, half, geometry
        self._loaded: tuple[Nets, Sampler] | None = (nets, sampler)
        self._programs = Shelf(device, PROGRAMS)
        g = self._geometry
        with device.active():
            self._onset = Inlet(device, (1, g.onset_values))
            self._features = torch.zeros(1, g.visual_frames, g.visual_dim, device=device.place)
            self._mean, self._std = (
                torch.from_numpy(values.copy()).to(device.place) for values in (IMAGENET_MEAN, IMAGENET_STD)
            )
        self._latents: dict[int, Tensor] = {}

    def __call__(self, scene: Scene) -> Sound:
        """Raises `EngineError`, also for too little memory."""
        device, waves = self.device, []
        with device.active():
            marks = [device.mark()]
            logits = self.watch(scene)
            marks.append(device.mark())
            for first in range(0, scene.takes, TAKES):
                n = min(TAKES, scene.takes - first)
                self.sample(scene, first, n)
                marks.append(device.mark())
                waves.append(self.sound(n))
                marks.append(device.mark())
            device.wait()  # the only time the host does
            seconds = {"watch": 0.0, "sampler": 0.0, "sound": 0.0}
            for k, start in enumerate(marks[:-1]):
                stage = "watch" if k == 0 else "sampler" if k % 2 else "sound"
                seconds[stage] += device.seconds(start, marks[k + 1])
            wave = np.concatenate([wave.read() for wave in waves])
            return Sound(None if logits is None else logits.read(), wave, seconds)

    def watch(self, scene: Scene) -> Outlet | None:
        """Launch both encoders: onset logits and features then lie on the device. The logits of all segments
        on their way to the host, where they are not given. Within `Device.active`, as the next two."""
        frames = [f for f in (scene.visual_frames, scene.onset_frames) if f is not None]
        inputs = [(f.shape, f.dtype.type) for f in frames]
        program, inlets = self._programs.take(("watch", *inputs), inputs, self._watching)
        for inlet, pixels in zip(inlets, frames, strict=True):
            inlet.fill(pixels)
        if scene.onset is not None:
            self._onset.fill(scene.onset)
        logits = program()
        return Outlet(logits[0]) if logits else None

    def put_conditions(self, onset: Array, features: Array) -> None:
        """In place of `watch`: onset logits [1, values] and features [1, n, dim] that were made elsewhere."""
        self._onset.fill(onset)
        self._features.copy_(torch.from_numpy(features))

    def sample(self, scene: Scene, first: int, n: int) -> Tensor:
        """Launch the whole loop for `n` takes from `first` on: latents [n, c, h, w], on the device."""
        g, steps = self._geometry, scene.steps
        shape = (n_noises(steps), n, g.latent_channels, g.latent_frames, g.latent_bins)
        make = lambda noise: self._sampling(noise, steps)  # noqa: E731
        program, (noise,) = self._programs.take(("sample", n, steps), [(shape, np.float32)], make)
        used = [0, *(i + 1 for i, step in enumerate(steps) if step.spread > 0)]
        for place, k in enumerate(used):
            noise.put(place, scene.noise(k, first, n))
        noise.send()
        program()
        return self._latents[n]

    def sound(self, n: int) -> Outlet:
        """Launch decoder and vocoder for the latents of `n` takes: their waves on the way to the host."""
        program, _ = self._programs.take(("sound", n), [], lambda: self._sounding(self._latents[n]))
        return Outlet(program()[0])

    @property
    def memory_mb(self) -> float:
        """Of the device: weights, buffers, and what recorded programs hold."""
        tensors = [self._features, *self._latents.values()]
        if self._loaded is not None:
            for net in self._loaded[0].values():
                tensors += [*net.parameters(), *net.buffers()]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return round((sum(storages.values()) + self._programs.n_bytes + self.device.graph_bytes) / 1e6, 1)

    def close(self) -> None:
        """Let everything go."""
        self._programs.close()
        self._latents.clear()
        self._loaded = None
        self.device.close()

    def _parts(self) -> tuple[Nets, Sampler]:
        if self._loaded is None:
            raise EngineError("window: this engine is closed; load it again")
        return self._loaded

    def _watching(self, visual: Tensor, onset: Tensor | None = None) -> Work:
        nets, g, half = self._parts()[0], self._geometry, self._half

        def look() -> Tensor:
            frames = (visual.float() / float(FULL)).to(half)[None]  # [1, t, h, w, 3]
            features: Tensor = nets["visual"](frames.permute(0, 4, 1, 2, 3))
            return features

        def listen() -> Tensor:
            assert onset is not None
            frames = (onset.float() / float(FULL) - self._mean) / self._std  # [segments, t, h, w, 3]
            logits: Tensor = nets["onset"](frames.to(half).permute(0, 4, 1, 2, 3))
            return logits

        def run() -> tuple[Tensor, ...]:
            if onset is None:
                self._features.copy_(look()[:, : g.visual_frames])
                return ()
            heard, features = self.device.side_by_side(listen, look)
            logits = heard.float().flatten()
            self._onset.tensor.copy_(logits[None, : g.onset_values])
            self._features.copy_(features[:, : g.visual_frames])
            return (logits,)

        return run

    def _sampling(self, noise: Tensor, steps: tuple[Step, ...]) -> Work:
        sampler, n = self._parts()[1], noise.shape[1]
        times = torch.tensor([step.t for step in steps], device=noise.device)
        latents = self._latents.setdefault(n, torch.zeros_like(noise[0]))

        def run() -> tuple[Tensor, ...]:
            conditions = sampler.conditions(times, self._onset.tensor, self._features)
            latents.copy_(sampler.loop(*conditions, noise, steps))
            return ()

        return run

    def _sounding(self, latents: Tensor) -> Work:
        nets, half = self._parts()[0], self._half

        def run() -> tuple[Tensor, ...]:
            mel = nets["decoder"](latents.to(half))
            return (nets["vocoder"](mel).float(),)

        return run
