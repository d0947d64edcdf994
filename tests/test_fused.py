"""A step from fused kernels is the step of the plain transformer and sampler."""

import math
import os
from dataclasses import replace

import pytest
import torch
from kernel_cases import TYPES
from make_tiny_bundle import GLOBAL, tiny_config
from torch import Tensor

pytest.importorskip("triton")
from taro_rt.engines.fused import FusedDenoiser, update_of
from taro_rt.engines.nets.config import SMALL, NetworkConfig
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.kernels.launch import Launch
from taro_rt.kernels.switch import VARIABLE
from taro_rt.runtime.sampler import drift, guide

CONFIGS = {"embedded": SMALL, "tiny": tiny_config(), "tiny, global": tiny_config(GLOBAL)}
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
T, T_NEXT = 0.6, 0.56
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def shortened(config: NetworkConfig) -> NetworkConfig:
    """Two blocks, a second of sound and few visual features: the interpreter takes its time."""
    patch, rows = config.transformer.patch[0], config.transformer.time_positions
    transformer = replace(config.transformer, depth=2, time_positions=28 // patch if rows > 1 else 1)
    visual = replace(config.visual, frames=7, encode=7)
    return replace(config, transformer=transformer, visual=visual, mel_frames=112)


def random_net(config: NetworkConfig, device: str) -> MMDiT:
    """No layer at zero, as some are at the start of training."""
    torch.manual_seed(0)
    net = MMDiT(config).to(device)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return net.eval().requires_grad_(False)


def draw_inputs(net: MMDiT, device: str, batch: int) -> Inputs:
    """Latents, noise, tokens, modulation and the null row's."""
    g = net.geometry
    torch.manual_seed(1)
    latents, noise = torch.randn(2, batch, g.latent_channels, g.latent_frames, g.latent_bins, device=device)
    onset, features = torch.randn(batch, g.onset_values), torch.randn(batch, g.visual_frames, g.visual_dim)
    at = torch.tensor([T], device=device)
    modulation, null, tokens = net.condition(at, onset.to(device), features.to(device))
    return latents, noise, tokens, modulation[0], null[0].expand(batch, modulation.shape[2], -1, -1)


def plain_step(net: MMDiT, inputs: Inputs, guidance: float) -> Tensor:
    """What the sampler makes of the plain network's velocity."""
    latents, noise, tokens, modulation, null = inputs
    v = net.velocity(latents, tokens, modulation).cpu().numpy()
    if guidance > 1:
        v = guide(v, net.velocity(latents, torch.zeros_like(tokens), null).cpu().numpy(), guidance)
    x = latents.cpu().numpy()
    noisy = math.sqrt(2 * T * (T - T_NEXT)) * noise.cpu().numpy()
    return torch.from_numpy(x + (T_NEXT - T) * drift(x, v, T, "linear") + noisy)


def fused_step(net: MMDiT, inputs: Inputs, guidance: float, grouped: bool) -> Tensor:
    """The same from `FusedDenoiser`."""
    latents, noise, tokens, modulation, null = inputs
    if guidance > 1:
        tokens = torch.cat([tokens, torch.zeros_like(tokens)])
        modulation = torch.cat([modulation, null])
    update = update_of(T, T_NEXT, math.sqrt(2 * T * (T - T_NEXT)), guidance)
    return FusedDenoiser(net, grouped).step(latents, tokens, modulation.contiguous(), noise, update).cpu()


def assert_same_step(
    config: NetworkConfig, device: str, guidance: float, batch: int = 2, grouped: bool = True
) -> None:
    net = random_net(config, device)
    inputs = draw_inputs(net, device, batch)
    want = plain_step(net, inputs, guidance)
    difference = (fused_step(net, inputs, guidance, grouped) - want).abs().max()
    assert difference < 2e-5 * guidance * want.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("guidance", [1.0, 8.0], ids=["alone", "guided"])
def test_a_step_of_kernels_is_the_plain_step(config: NetworkConfig, guidance: float) -> None:
    sizes, device = (shortened(config), "cpu") if INTERPRETED else (config, "cuda")
    assert_same_step(sizes, device, guidance, batch=1 if guidance > 1 else 2)  # two rows


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_guided_step_of_kernels_in_the_types_that_are_shipped_is_near_the_plain_step(
    dtype: torch.dtype,
) -> None:
    sizes, device = (shortened(SMALL), "cpu") if INTERPRETED else (SMALL, "cuda")
    net = random_net(sizes, device)
    inputs = draw_inputs(net, device, 1)
    want = plain_step(net, inputs, 8.0)
    for part in (net.x_embedder, net.joint_blocks, net.final_layer):
        part.to(dtype)
    latents, noise, *conditions = inputs
    narrow = latents, noise, *(each.to(dtype) for each in conditions)
    got = fused_step(net, narrow, 8.0, grouped=True)
    assert (got - want).norm() < (1e-5 if dtype == torch.float32 else 0.03) * want.norm()


@pytest.mark.gpu
def test_the_layers_may_be_two_products_each() -> None:
    config = CONFIGS["tiny"]
    sizes, device = (shortened(config), "cpu") if INTERPRETED else (config, "cuda")
    assert_same_step(sizes, device, 8.0, batch=1, grouped=False)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("guidance", [1.0, 8.0])
def test_switched_off_a_step_of_references_is_the_plain_step(
    config: NetworkConfig, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    monkeypatch.setattr(Launch, "run", lambda self: pytest.fail("a kernel was launched"))
    assert_same_step(config, "cpu", guidance)


@pytest.mark.gpu
def test_a_step_is_seven_launches_a_block_and_two_more(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[Launch] = []
    monkeypatch.setattr(Launch, "run", lambda self: launched.append(self))
    net = random_net(SMALL, "cpu" if INTERPRETED else "cuda")
    fused_step(net, draw_inputs(net, str(net.pos_embed.device), 1), 8.0, grouped=True)
    assert len(launched) == 7 * SMALL.transformer.depth + 2
