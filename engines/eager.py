"""The `eager` backend: the networks as plain PyTorch, oracle of parity and baseline of benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array, Contract
from taro_rt.engines.errors import BackendUnavailable, BundleError, EngineError
from taro_rt.engines.nets.networks import Networks, load_weights


class EagerEngine:
    """One graph run by PyTorch, in the type of its weights; inputs and outputs are float32."""

    backend = "eager"

    def __init__(self, module: nn.Module, contract: Contract, device: str = "cpu") -> None:
        self.contract = contract
        self._module: nn.Module | None = module.to(device)
        self._device = device
        self._dtype = next((p.dtype for p in module.parameters()), torch.float32)

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """The outputs by name. Raises `ContractError` for inputs that do not fit."""
        self.contract.check(inputs)
        if self._module is None:
            raise EngineError(f"{self.contract.graph}: this engine is closed; load it again")
        feed = {name: torch.from_numpy(array).to(self._device, self._dtype) for name, array in inputs.items()}
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            made = self._module(**feed)
        outputs: tuple[Tensor, ...] = made if isinstance(made, tuple) else (made,)
        names = [spec.name for spec in self.contract.outputs]
        return {name: tensor.float().cpu().numpy() for name, tensor in zip(names, outputs, strict=True)}

    def close(self) -> None:
        """Let the weights go."""
        self._module = None


def load_networks(bundle: Bundle, device: str = "cpu") -> Networks:
    """Build the bundle's networks on a device, batch norms folded, with its weights as float32.

    Raises `BundleError` naming every tensor that is missing, unexpected or misshapen.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with torch.device(device):
        networks = Networks.build(bundle.manifest.networks).fold()
    faults = []
    for name, net in networks.by_name().items():
        path = bundle.weights(name)
        try:
            state = {key: tensor.float() for key, tensor in load_file(path, device).items()}
        except SafetensorError as error:
            faults.append(f"{path.name}: expected a safetensors file ({error})")
            continue
        faults += [f"{path.name}: {fault}" for fault in load_weights(net, state)]
    if faults:
        raise BundleError(f"bundle {bundle.folder}: {'; '.join(faults)}")
    return networks


def load_eager(bundle: Bundle, device: str = "cpu", threads: int | None = None) -> dict[str, EagerEngine]:
    """An `EagerEngine` for each graph. `threads` holds for all of PyTorch in this process."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(
            "device cuda: this PyTorch finds no NVIDIA GPU; use device cpu, or: pip install 'taro-rt[gpu]'"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    contracts = bundle.contracts()
    graphs = load_networks(bundle).graphs()
    return {name: EagerEngine(module, contracts[name], device) for name, module in graphs.items()}
