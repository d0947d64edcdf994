"""Networks rewritten for a GPU are the plain ones; so is the sampler's loop."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from make_tiny_bundle import GLOBAL, tiny_config, tiny_networks
from torch import nn

from taro_rt.engines.cuda_fp8 import Fp8Linear, quantised, to_fp8
from taro_rt.engines.cuda_nets import MULTIPLE, FrameConv, LastGroupNorm, TimeConv, channels_last, rewrite
from taro_rt.engines.cuda_sampler import Sampler, fused_step, n_noises, plain_step
from taro_rt.engines.errors import EngineError
from taro_rt.engines.nets.config import SMALL, HifiGanConfig, NetworkConfig
from taro_rt.engines.nets.frames import SpatialConv, TemporalConv
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.engines.nets.networks import Networks
from taro_rt.engines.stages import contracts, typical_inputs
from taro_rt.engines.window import Step

CONFIGS = {
    "frame-wise, HiFi-GAN": tiny_config(),
    "with attention in the decoder": replace(
        tiny_config(), vae=replace(tiny_config().vae, mid_attention=True, layers=2)
    ),
    "oscillators": replace(tiny_config(), vocoder=SMALL.vocoder),
    "dilated": replace(
        tiny_config(),
        vocoder=HifiGanConfig(
            channels=16, strides=(10, 16), kernels=(20, 32), resblock_kernels=(3, 7), dilations=(1, 3)
        ),
    ),
}
STEPS = (
    Step(1.0, 0.9, -0.1, 0.2),
    Step(0.6, 0.9, -0.15, 0.1, guidance=8.0),
    Step(0.1, 0.95, -0.1, 0.0, guidance=8.0),
)


def folded(config: NetworkConfig) -> Networks:
    has_oscillators = not isinstance(config.vocoder, HifiGanConfig)
    return (Networks.build(config) if has_oscillators else tiny_networks(config)).fold()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("graph", ["onset", "visual", "decoder", "vocoder"])
@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
@torch.inference_mode()
def test_a_rewritten_network_is_the_plain_one(name: str, graph: str, fused: bool) -> None:
    if fused:
        pytest.importorskip("triton")
    networks = folded(CONFIGS[name])
    contract = contracts(CONFIGS[name].geometry())[graph]
    feed = {k: torch.from_numpy(v) for k, v in typical_inputs(contract, seed=1, b=2, t=33).items()}
    net = networks.by_name()[graph]
    want = net(**feed)
    if "frames" in feed:
        feed["frames"] = channels_last(feed["frames"])
    got = rewrite(net, torch.float32, fused)(**feed)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-5 * float(want.abs().max()))
    assert not any(
        isinstance(m, SpatialConv | TemporalConv | nn.Conv1d | nn.GroupNorm) for m in net.modules()
    )


@torch.inference_mode()
def test_every_width_between_two_convolutions_is_filled_up() -> None:
    onset = rewrite(folded(tiny_config()).onset, torch.float32)
    widths = {m.weight.shape[1] for m in onset.modules() if isinstance(m, TimeConv)}
    assert widths == {8, 16} and all(width % MULTIPLE == 0 for width in widths)


def test_norms_that_are_not_folded_are_refused() -> None:
    with pytest.raises(ValueError, match="expected norms that are folded"):
        rewrite(tiny_networks(tiny_config()).onset, torch.float32)


@torch.inference_mode()
def test_a_convolution_over_time_copies_no_frame() -> None:
    """Where channels lie last, what it convolves is a view of its input, and its output lies so too."""
    plain = TemporalConv(8, 16)
    plain.bias = nn.Parameter(torch.zeros(16))
    time = rewrite(nn.Sequential(TimeConv(plain)), torch.float32)
    x = torch.randn(2, 5, 6, 4, 8).permute(0, 4, 1, 2, 3)  # [b, c, t, h, w]
    places = x.flatten(3)
    assert places.data_ptr() == x.data_ptr()
    assert places.is_contiguous(memory_format=torch.channels_last)
    assert time(x).is_contiguous(memory_format=torch.channels_last_3d)


@torch.inference_mode()
def test_channels_stay_last_from_the_pixels_to_the_end() -> None:
    networks = folded(tiny_config())
    seen: list[bool] = []

    def look(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last_3d))

    for net in (networks.onset, networks.visual):
        rewrite(net, torch.float32)
        for module in net.modules():
            if isinstance(module, FrameConv | TimeConv):
                module.register_forward_hook(look)
    g = tiny_config().geometry()
    networks.onset(torch.rand(1, 30, g.onset_crop, g.onset_crop, 3).permute(0, 4, 1, 2, 3))
    networks.visual(torch.rand(1, 40, g.visual_size, g.visual_size, 3).permute(0, 4, 1, 2, 3))
    assert len(seen) > 20 and all(seen)


@torch.inference_mode()
def test_group_norm_of_halves_sums_in_float32() -> None:
    norm = nn.GroupNorm(4, 32)
    torch.manual_seed(0)
    x = 1 + torch.randn(2, 32, 40, 30)
    got = LastGroupNorm(norm)(x.half())
    assert got.dtype == torch.float16
    torch.testing.assert_close(got.float(), norm(x.half().float()), rtol=0, atol=6e-3)


@pytest.mark.parametrize("transformer", [tiny_config().transformer, GLOBAL], ids=["frame-wise", "global"])
@torch.inference_mode()
def test_modulation_of_all_steps_is_that_of_each(transformer: object) -> None:
    net = folded(tiny_config(transformer)).transformer  # type: ignore[arg-type]
    g, times = net.geometry, torch.tensor([1.0, 0.5, 0.04])
    onset, features = torch.randn(1, g.onset_values), torch.randn(1, g.visual_frames, g.visual_dim)
    modulation, null, tokens = net.condition(times, onset, features)
    sampler = Sampler(copy.deepcopy(net), torch.float32, fused=False)
    both, rows = sampler.conditions(times, onset, features)
    torch.testing.assert_close(both[:, :1], modulation)
    torch.testing.assert_close(both[:, 1:], null.expand(-1, -1, modulation.shape[2], -1, -1))
    torch.testing.assert_close(rows, torch.cat([tokens, torch.zeros_like(tokens)]))
    for got, want in zip(sampler.condition(times, onset, features), (modulation, null, tokens), strict=True):
        torch.testing.assert_close(got, want)


def test_one_product_holds_no_weight_twice() -> None:
    net = folded(tiny_config()).transformer
    n_values = sum(p.numel() for p in net.parameters())
    sampler = Sampler(net, torch.float32, fused=False)
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in net.parameters()}
    assert sum(storages.values()) == 4 * n_values
    assert sampler._weight.data_ptr() in storages


@torch.inference_mode()
def test_the_loop_is_its_steps_for_every_take() -> None:
    net = folded(tiny_config()).transformer
    g, takes = net.geometry, 3
    sampler = Sampler(net, torch.float32, fused=False)
    times = torch.tensor([step.t for step in STEPS])
    onset, features = torch.randn(1, g.onset_values), torch.randn(1, g.visual_frames, g.visual_dim)
    modulation, tokens = sampler.conditions(times, onset, features)
    noise = torch.randn(n_noises(STEPS), takes, g.latent_channels, g.latent_frames, g.latent_bins)
    assert len(noise) == 3
    got = sampler.loop(modulation, tokens, noise, STEPS)
    for take in range(takes):
        x = noise[0, take : take + 1]
        for i, step in enumerate(STEPS):
            v = net.velocity(x, tokens[:1], modulation[i, :1])
            if step.guided:
                null = net.velocity(x, tokens[1:], modulation[i, 1:])
                v = null + 8 * (v - null)
            x = step.keep * x + step.push * v + (step.spread * noise[i + 1, take] if step.spread else 0)
        torch.testing.assert_close(got[take], x[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("transformer", [tiny_config().transformer, GLOBAL], ids=["frame-wise", "global"])
@torch.inference_mode()
def test_a_step_of_fused_kernels_is_the_plain_one(
    transformer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of their references: the kernels have tests of their own."""
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setenv("TARO_KERNELS", "off")
    net: MMDiT = folded(tiny_config(transformer)).transformer  # type: ignore[arg-type]
    sampler = Sampler(net, torch.float32, fused=False)
    g = net.geometry
    onset, features = torch.randn(1, g.onset_values), torch.randn(1, g.visual_frames, g.visual_dim)
    modulation, tokens = sampler.conditions(torch.tensor([0.6]), onset, features)
    latents, noise = torch.randn(2, 2, g.latent_channels, g.latent_frames, g.latent_bins)
    inputs = (latents, tokens.repeat_interleave(2, 0), modulation[0].repeat_interleave(2, 0), noise, STEPS[1])
    torch.testing.assert_close(fused_step(net)(*inputs), plain_step(net)(*inputs), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_eight_bits_keep_two_digits_of_every_row() -> None:
    linear = nn.Linear(64, 96).bfloat16()
    x = torch.randn(5, 7, 64).bfloat16() * torch.logspace(-3, 3, 7)[:, None].bfloat16()
    want, got = linear(x).float(), Fp8Linear(linear)(x).float()
    assert got.shape == want.shape
    error = (got - want).square().mean(-1).sqrt() / want.square().mean(-1).sqrt()
    assert float(error.min()) > 1e-4 and float(error.max()) < 0.06


def test_rows_of_zeros_stay_zeros_in_eight_bits() -> None:
    values, scale = quantised(torch.zeros(3, 16))
    assert not values.float().any() and bool(torch.isfinite(scale).all())


def test_eight_bits_take_the_place_of_all_products_of_the_blocks_but_one() -> None:
    net = folded(tiny_config()).transformer
    to_fp8(net)
    found = [name for name, m in net.named_modules() if isinstance(m, Fp8Linear)]
    assert len(found) == 4 * (2 * net.config.depth - 1)
    last = net.joint_blocks[-1].context_block
    assert isinstance(last.attn.qkv, nn.Linear)  # type: ignore[union-attr]


def test_a_width_that_eight_bits_cannot_take_is_refused() -> None:
    net = folded(tiny_config()).transformer
    net.config = replace(net.config, width=72)
    with pytest.raises(EngineError, match="precision fp8: expected a width that is a multiple of 16, got 72"):
        to_fp8(net)
