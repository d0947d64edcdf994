"""A step from fused kernels is the step of the plain transformer and sampler."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported
pytest.importorskip("triton")

from taro_rt.engines.fused import FusedDenoiser, update_of
from taro_rt.engines.nets.config import SMALL, NetworkConfig
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.runtime.sampler import drift, guide

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = replace(SMALL.transformer, depth=3, width=64, heads=2, patch=(4, 16))
FORMS = {
    "frame-wise": replace(SIZES, time_positions=51),
    "global": replace(SIZES, time_positions=1, onset_window=SIZES.onset_values),
}


@pytest.fixture(params=FORMS)
def net(request: pytest.FixtureRequest) -> MMDiT:
    torch.manual_seed(0)
    made = MMDiT(NetworkConfig(**{**vars(SMALL), "transformer": FORMS[request.param]})).to(DEVICE)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("guidance", [1.0, 8.0])
def test_a_fused_step_is_the_plain_step(net: MMDiT, guidance: float) -> None:
    g, t, t_next = net.geometry, 0.6, 0.56
    torch.manual_seed(1)
    latents, noise = torch.randn(2, 2, g.latent_channels, g.latent_frames, g.latent_bins, device=DEVICE)
    onset, features = torch.randn(2, g.onset_values), torch.randn(2, g.visual_frames, g.visual_dim)
    at = torch.tensor([t], device=DEVICE)
    modulation, null, tokens = net.condition(at, onset.to(DEVICE), features.to(DEVICE))
    modulation, null = modulation[0], null[0].expand(2, modulation.shape[2], -1, -1)
    v = net.velocity(latents, tokens, modulation).cpu().numpy()
    if guidance > 1:
        v = guide(v, net.velocity(latents, torch.zeros_like(tokens), null).cpu().numpy(), guidance)
        tokens = torch.cat([tokens, torch.zeros_like(tokens)])
        modulation = torch.cat([modulation, null]).contiguous()
    dt, spread = t_next - t, math.sqrt(2 * t * (t - t_next))
    x = latents.cpu().numpy()
    want = x + dt * drift(x, v, t, "linear") + spread * noise.cpu().numpy()
    got = FusedDenoiser(net).step(
        latents, tokens.contiguous(), modulation.contiguous(), noise, update_of(t, t_next, spread, guidance)
    )
    assert float(abs(got.cpu().numpy() - want).max()) < 2e-5 * guidance * float(abs(want).max())
