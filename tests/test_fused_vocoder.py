"""The vocoder from one kernel is the plain vocoder."""

import os

import pytest
import torch

pytest.importorskip("triton")
from taro_rt.engines.fused_vocoder import FusedVocoder
from taro_rt.engines.nets.config import HifiGanConfig
from taro_rt.engines.nets.hifigan import HifiGan
from taro_rt.kernels.launch import Launch
from taro_rt.kernels.switch import VARIABLE

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CONFIGS = {
    "narrow": HifiGanConfig(channels=64, strides=(5, 2), kernels=(16, 4), resblock_kernels=(3, 7)),
    "tiny": HifiGanConfig(
        channels=16, strides=(10, 16), kernels=(21, 32), resblock_kernels=(3,), dilations=(1,)
    ),
}


def assert_same_wave(config: HifiGanConfig, device: str, frames: int) -> None:
    torch.manual_seed(0)
    net = HifiGan(config).eval().requires_grad_(False).to(device)
    mel = torch.randn(2, frames, config.mel_bins, device=device)
    want, got = net(mel), FusedVocoder(net)(mel)
    assert got.shape == want.shape
    assert (got - want).abs().max() < 1e-5 * want.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_vocoder_of_kernels_is_the_plain_vocoder(config: HifiGanConfig) -> None:
    assert_same_wave(config, "cpu" if INTERPRETED else "cuda", 9)


@pytest.mark.parametrize("config", [*CONFIGS.values(), HifiGanConfig()], ids=[*CONFIGS, "published"])
def test_switched_off_a_vocoder_of_references_is_the_plain_vocoder(
    config: HifiGanConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    monkeypatch.setattr(Launch, "run", lambda self: pytest.fail("a kernel was launched"))
    assert_same_wave(config, "cpu", 9)
