"""The `cuda` backend: PyTorch with our Triton kernels on an NVIDIA GPU, replayed as CUDA graphs.

Each of the six graphs is an engine of its own, as with every backend: for clips of several windows, and for
options that no fixed loop of steps can follow. A clip of one window is a `Window` instead: nothing comes back
to the host between its frames and its sound. Importable without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array, Contract
from taro_rt.engines.cuda_graph import Device, Outlet, Recorded, Shelf, Work
from taro_rt.engines.cuda_nets import channels_last, rewrite
from taro_rt.engines.cuda_sampler import Sampler
from taro_rt.engines.cuda_window import CudaWindow
from taro_rt.engines.eager import load_networks
from taro_rt.engines.errors import BackendUnavailable, BuildError, EngineError
from taro_rt.engines.nets.networks import Networks
from taro_rt.engines.stages import GRAPHS

SHAPES = 6
"""Programs that an engine keeps, each for inputs of other sizes; the one not used for longest gives way."""
TYPES = {
    "float32": (torch.float32, torch.float32),
    "bfloat16": (torch.bfloat16, torch.float16),
    "fp8": (torch.bfloat16, torch.float16),
}
"""By precision: of the transformer, and of the four other networks, whose results 8 bits of mantissa would
make noisy. In fp8 the transformer's linear layers are narrower still."""
SPARE_BYTES = 512 << 20
"""Beside weights and what one window takes: the libraries' own workspaces."""
WINDOW_FLOATS = 160
"""Values of the widest network under way, for each value of a window's visual frames: an estimate."""


class CudaEngine:
    """One graph, recorded once for inputs of each size. Inputs and outputs are float32 on the host."""

    backend = "cuda"

    def __init__(self, work: Callable[..., Any], contract: Contract, device: Device) -> None:
        """`work` takes tensors by the names of `contract` and returns one, or a tuple of them."""
        self.contract = contract
        self._work: Callable[..., Any] | None = work
        self._device = device
        self._programs = Shelf(device, SHAPES)

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """The outputs by name. Raises `ContractError` for inputs that do not fit, else `EngineError`."""
        self.contract.check(inputs)
        if self._work is None:
            raise EngineError(f"{self.contract.graph}: this engine is closed; load it again")
        with self._device.active():
            program, inlets = self._recorded(self._work, inputs)
            for spec, inlet in zip(self.contract.inputs, inlets, strict=True):
                inlet.fill(inputs[spec.name])
            outlets = [Outlet(tensor) for tensor in program()]
            self._device.wait()
            names = [spec.name for spec in self.contract.outputs]
            return {name: outlet.read() for name, outlet in zip(names, outlets, strict=True)}

    def close(self) -> None:
        """Let weights and programs go."""
        self._programs.close()
        self._work = None

    def _recorded(self, work: Callable[..., Any], inputs: dict[str, Array]) -> Recorded:
        names = [spec.name for spec in self.contract.inputs]
        shapes = [inputs[name].shape for name in names]

        def make(*tensors: Tensor) -> Work:
            feed = dict(zip(names, tensors, strict=True))

            def run() -> tuple[Tensor, ...]:
                made = work(**feed)
                return tuple(t.float() for t in (made if isinstance(made, tuple) else (made,)))

            return run

        return self._programs.take(tuple(shapes), [(shape, np.float32) for shape in shapes], make)


@dataclass(frozen=True)
class Loaded:
    """What `load_cuda` made: the engines by graph, and all of them chained."""

    graphs: dict[str, CudaEngine]
    window: CudaWindow


def load_cuda(
    bundle: Bundle, precision: str = "bfloat16", device: str = "cuda", fused: bool | None = None
) -> Loaded:
    """The networks of a bundle on a device. Raises `BackendUnavailable`, `BuildError` or `BundleError`.

    Device "cpu" computes the same without graphs, as far as it can: for tests. `fused` as for `Sampler`.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(
            f"backend cuda: PyTorch {torch.__version__} reaches no NVIDIA GPU; "
            "install one built for CUDA (pip install 'taro-rt[gpu]'), and NVIDIA's driver"
        )
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        require_memory(needed_bytes(bundle), free)
    with suppress(torch.OutOfMemoryError):  # let go of, so that what was loaded goes, too
        return load_networks_on(load_networks(bundle, device), bundle.contracts(), precision, device, fused)
    torch.cuda.empty_cache()
    raise BuildError(
        f"backend cuda: the GPU's memory ran out; about {needed_bytes(bundle) >> 20} MB are needed"
    )


def load_networks_on(
    networks: Networks,
    contracts: dict[str, Contract],
    precision: str = "bfloat16",
    device: str = "cuda",
    fused: bool | None = None,
) -> Loaded:
    """The same for `networks`, norms folded, which are used up."""
    on = Device(device)
    wide, half = TYPES[precision]
    for net in networks.by_name().values():
        net.to(on.place)
    sampler = Sampler(networks.transformer, wide, fused, precision == "fp8")
    nets = networks.by_name()
    nets |= {name: rewrite(net, half, fused) for name, net in nets.items() if name != "transformer"}
    work: dict[str, Callable[..., Any]] = {
        "onset": _seeing(nets["onset"], half),
        "visual": _seeing(nets["visual"], half),
        "conditioner": sampler.condition,
        "denoiser": sampler.velocity,
        "decoder": lambda latents: nets["decoder"](latents.to(half)),
        "vocoder": lambda mel: nets["vocoder"](mel.to(half)),
    }
    on.settle()
    graphs = {name: CudaEngine(work[name], contracts[name], on) for name in GRAPHS}
    return Loaded(graphs, CudaWindow(on, networks.config.geometry(), nets, sampler, half))


def needed_bytes(bundle: Bundle) -> int:
    """Of a GPU's memory, about: weights while they are converted, one window of the widest network, and the
    libraries' own."""
    g, files = bundle.manifest.geometry, bundle.manifest.files
    stored = 2 if bundle.manifest.storage == "float16" else 4
    weights = sum(entry.bytes for name, entry in files.items() if name.endswith(".safetensors"))
    seen = 3 * g.visual_encode * g.visual_size**2
    return weights * 6 // stored + 2 * WINDOW_FLOATS * seen + SPARE_BYTES


def require_memory(needed: int, free: int) -> None:
    """Raise `BuildError` unless so many bytes are free."""
    if free < needed:
        raise BuildError(
            f"backend cuda: expected about {needed >> 20} MB of free GPU memory, got {free >> 20} MB; "
            "end what else uses the GPU, or take another backend"
        )


def _seeing(net: nn.Module, half: torch.dtype) -> Callable[..., Any]:
    return lambda frames: net(channels_last(frames.to(half)))
