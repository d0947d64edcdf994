"""The networks: sizes as published, batch norms folded exactly, one set of weights behind every view."""

import hashlib
from dataclasses import replace

import pytest
import torch
from make_tiny_bundle import FRAME_WISE, GLOBAL, tiny_config, tiny_networks
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from taro_rt.engines.nets.blocks import gated, modulate
from taro_rt.engines.nets.config import PUBLISHED, SMALL, TransformerConfig
from taro_rt.engines.nets.hifigan import HifiGan
from taro_rt.engines.nets.mmdit import MMDiT, PatchEmbed
from taro_rt.engines.nets.networks import Networks, load_weights
from taro_rt.engines.nets.onset import OnsetNet
from taro_rt.engines.nets.vae import Vae, VaeDecoder
from taro_rt.engines.nets.visual import VisualNet

SIZES = {
    "onset": (lambda: OnsetNet(PUBLISHED.onset), 31_365_918),
    "transformer": (lambda: MMDiT(PUBLISHED), 250_501_664),
    "visual": (lambda: VisualNet(PUBLISHED.visual), 32_683_584),
    "vae": (lambda: Vae(PUBLISHED.vae, 1.0), 55_376_873),
    "decoder": (lambda: VaeDecoder(PUBLISHED.vae, 1.0), 32_981_577),
    "vocoder": (lambda: HifiGan(PUBLISHED.vocoder), 55_264_897),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_published_network_has_the_released_number_of_parameters(name: str) -> None:
    build, expected = SIZES[name]
    with torch.device("meta"):
        net: nn.Module = build()
    assert sum(p.numel() for p in net.parameters()) == expected


LAYOUTS = {
    "onset": "599400a1067fc311",
    "transformer": "ea34d9842943e4f8",
    "visual": "83df942815343e6b",
    "vae": "d185f349c5611613",
    "vocoder": "1b84c4e6bcc3faf9",
}
"""sha256 over the keys and shapes of the released files, less what only training needs."""


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_network_has_the_released_keys_and_shapes(name: str) -> None:
    with torch.device("meta"):
        net: nn.Module = SIZES[name][0]()
    lines = [f"{key} {list(value.shape)}" for key, value in sorted(net.state_dict().items())]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest().startswith(LAYOUTS[name])


def test_the_small_networks_fit_the_embedded_bundle() -> None:
    with torch.device("meta"):
        networks = Networks.build(SMALL)
    n = sum(p.numel() for net in networks.by_name().values() for p in net.parameters())
    assert 4 * n < 40e6  # bytes in the wheel


@pytest.mark.parametrize("name", ["onset", "visual"])
def test_folding_the_norms_changes_nothing(name: str) -> None:
    net = tiny_networks(tiny_config()).by_name()[name].eval()
    g = tiny_config().geometry()
    size, length = (g.onset_crop, g.onset_seen) if name == "onset" else (g.visual_size, 8)
    frames = torch.rand(2, 3, length, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = net(frames)
    Networks.fold(tiny := tiny_networks(tiny_config()))
    folded = tiny.by_name()[name]
    assert not any(isinstance(module, nn.BatchNorm3d) for module in folded.modules())
    with torch.inference_mode():
        torch.testing.assert_close(folded(frames), before, rtol=0, atol=1e-5)


def test_a_wide_margin_makes_the_onset_logits_of_a_clip_the_same_wherever_it_is_cut() -> None:
    reach = 9  # the stem and four blocks of two, a frame each
    config = replace(tiny_config(), onset=replace(tiny_config().onset, margin=reach))
    net = tiny_networks(config).onset.eval()
    frames = torch.rand(1, 3, 60 + 2 * reach, 24, 24, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = net(frames)
        parts = [net(frames[:, :, start : start + 30 + 2 * reach]) for start in (0, 30)]
    assert whole.shape == (1, 60)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("transformer", [FRAME_WISE, GLOBAL], ids=["frame-wise", "global"])
def test_training_and_inference_see_one_transformer(transformer: TransformerConfig) -> None:
    net = tiny_networks(tiny_config(transformer)).transformer.eval()
    g = net.geometry
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, g.latent_channels, g.latent_frames, g.latent_bins, generator=generator)
    onset = torch.randn(2, g.onset_values, generator=generator)
    features = torch.randn(2, g.visual_frames, g.visual_dim, generator=generator)
    t = torch.tensor([0.36])
    with torch.inference_mode():
        trained = net(latents, t.expand(2), onset, features, keep=torch.tensor([1.0, 0.0]))
        modulation, null, tokens = net.condition(t, onset[:1], features[:1])
        conditional = net.velocity(latents[:1], tokens, modulation[0])
        null_rows = null[0].expand(-1, transformer.time_positions, -1, -1)
        unconditional = net.velocity(latents[1:], torch.zeros_like(tokens), null_rows)
    torch.testing.assert_close(trained, torch.cat([conditional, unconditional]), rtol=0, atol=1e-4)
    assert (trained[:1] - trained[1:]).abs().mean() > 0.01  # the conditions matter


def test_the_last_block_computes_no_context_queries() -> None:
    net = tiny_networks(tiny_config(GLOBAL)).transformer.eval()
    c, g = net.config, net.geometry
    n_context, n_x = g.visual_frames, net.grid[0] * net.grid[1]
    tokens = torch.zeros(1, n_context, c.width)
    modulation = torch.zeros(1, 1, c.modulation_vectors, c.width)
    latents = torch.zeros(1, g.latent_channels, g.latent_frames, g.latent_bins)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net.velocity(latents, tokens, modulation)
    whole = (3 + 1 + 8) * c.width**2  # qkv, projection, MLP: products per token and full stream
    last_context = 2 * c.width**2  # keys and values alone
    patches = 2 * c.width * g.latent_channels * c.patch[0] * c.patch[1]
    products = n_x * (c.depth * whole + patches) + n_context * ((c.depth - 1) * whole + last_context)
    counts = counter.get_flop_counts()["Global"]
    attention = sum(n for op, n in counts.items() if "attention" in str(op))
    assert (counter.get_total_flops() - attention) == 2 * products


def test_frame_wise_modulation_listens_to_the_onsets_of_its_own_time() -> None:
    net = tiny_networks(tiny_config(FRAME_WISE)).transformer.eval()
    g = net.geometry
    onset = torch.zeros(2, g.onset_values)
    onset[1, 60] = 5.0  # 4 s into the window
    with torch.inference_mode():
        rows = net.condition(torch.tensor([0.5]), onset, torch.zeros(2, g.visual_frames, g.visual_dim))[0][0]
    changed = (
        (rows[1] - rows[0]).abs().amax((1, 2)).nonzero().flatten() * g.window_s / FRAME_WISE.time_positions
    )
    reach_s = FRAME_WISE.onset_window * FRAME_WISE.onset_step_s / 2 + 1 / g.onset_fps
    assert len(changed) > 0
    assert changed.min() > 4.0 - reach_s - 0.2 and changed.max() < 4.0 + reach_s


def test_building_networks_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Networks.build(tiny_config())
    assert torch.equal(torch.rand(3), expected)


def test_load_weights_lists_every_fault_and_copies_nothing_then() -> None:
    net = nn.Linear(2, 3)
    before = net.weight.detach().clone()
    faults = load_weights(net, {"weight": torch.zeros(3, 3), "scale": torch.zeros(1)})
    assert faults == ["missing bias", "unexpected scale", "weight: expected shape [3, 2], got [3, 3]"]
    assert torch.equal(net.weight, before)


def test_the_geometry_follows_from_the_networks() -> None:
    assert PUBLISHED.geometry().wave_tail == 32
    assert PUBLISHED.geometry().resize == "released"
    assert replace(SMALL, mel_frames=408).geometry().latent_frames == 102


@pytest.mark.parametrize("patch", [(2, 2), (2, 8)])
def test_patches_are_embedded_as_by_a_convolution_in_bfloat16_too(patch: tuple[int, int]) -> None:
    """As a convolution, 8 channels and a wide patch come out wrong in bfloat16 on processors with AMX."""
    embed, latents = PatchEmbed(8, 64, patch), torch.randn(2, 8, 204, 16)
    with torch.inference_mode():
        want = embed.proj(latents).flatten(2).transpose(1, 2)
        torch.testing.assert_close(embed(latents), want)
        rounded = embed.bfloat16()(latents.bfloat16()).float()
    assert (rounded - want).norm() < 0.01 * want.norm()


@pytest.mark.parametrize("n_rows", [1, 3, 6, 12])
def test_a_row_of_modulation_serves_the_tokens_of_its_time(n_rows: int) -> None:
    torch.manual_seed(0)
    x, (shift, scale, gate) = torch.randn(2, 12, 8), torch.randn(3, 2, n_rows, 8)
    each = [rows.repeat_interleave(12 // n_rows, 1) for rows in (shift, scale, gate)]
    assert torch.equal(modulate(x, shift, scale), modulate(x, each[0], each[1]))
    assert torch.equal(gated(x, gate), x * each[2])
