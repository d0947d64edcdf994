"""The embedded vocoder: its wave is the formula's, windows agree in phase, and any frequency can sound."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from make_tiny_bundle import tiny_config

from taro_rt.engines.eager import EagerEngine
from taro_rt.engines.nets.config import OscillatorConfig
from taro_rt.engines.nets.oscillators import GRAIN, HOP, RATE_HZ, OscillatorVocoder, carrier_frequencies
from taro_rt.engines.ort import OrtEngine
from taro_rt.engines.stages import contracts
from taro_rt.export.onnx import export_graph
from taro_rt.export.weights import write_weights

CONFIG = OscillatorConfig(width=16, dilations=(1, 2))
FREQUENCIES = carrier_frequencies(CONFIG.mel_bins, CONFIG.per_bin)


@pytest.fixture
def vocoder() -> OscillatorVocoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return OscillatorVocoder(CONFIG).eval().requires_grad_(False)


def mel_of(frames: int, seed: int = 1) -> torch.Tensor:
    return 0.5 * torch.randn(1, frames, 64, generator=torch.Generator().manual_seed(seed)) - 6.0


def test_the_wave_is_that_of_the_formula(vocoder: OscillatorVocoder) -> None:
    mel = mel_of(12)
    tone, hiss = (x[0].double().numpy() for x in vocoder.amplitudes(mel))
    noise = vocoder.noise.double().numpy()
    grains = np.arange(len(tone))[:, None]
    steady = np.exp(2j * np.pi * FREQUENCIES * grains * GRAIN / RATE_HZ)
    turning = tone * steady + hiss * (noise[0] + 1j * noise[1])[: len(tone)]
    wanted = np.zeros(GRAIN * (len(tone) + 1))
    n = np.arange(-GRAIN, GRAIN)
    waves = np.exp(2j * np.pi * FREQUENCIES[:, None] * n / RATE_HZ) * (1 - np.abs(n) / GRAIN)
    for j, row in enumerate(turning):
        wanted[GRAIN * j : GRAIN * (j + 2)] += (row @ waves).real
    wave = vocoder(mel)[0].numpy()
    assert wave.shape == (12 * HOP,)
    assert 0.05 < np.abs(wave).max() < 1.0
    np.testing.assert_allclose(wave, wanted[GRAIN // 2 :][: len(wave)], atol=1e-5)


def test_windows_two_seconds_apart_agree_in_phase(vocoder: OscillatorVocoder) -> None:
    mel, edge = mel_of(300), 4000
    first, second = vocoder(mel)[0], vocoder(mel[:, 200:])[0]
    torch.testing.assert_close(first[2 * RATE_HZ + edge :], second[edge:], atol=1e-6, rtol=0)


@pytest.mark.parametrize("carrier", [3, 40, 120])
def test_a_carrier_sounds_at_its_frequency_and_nowhere_else(vocoder: OscillatorVocoder, carrier: int) -> None:
    vocoder.levels.weight.zero_()
    vocoder.levels.bias.fill_(-40.0)
    vocoder.levels.bias[carrier] = 4.0
    wave = vocoder(torch.full((1, 400, 64), -6.0))[0].numpy()[: 2 * RATE_HZ]
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    assert np.argmax(power) / 2 == FREQUENCIES[carrier]
    assert power[np.argmax(power) - 2 :][:5].sum() > 0.999 * power.sum()


def test_noise_is_spread_over_its_band(vocoder: OscillatorVocoder) -> None:
    vocoder.levels.weight.zero_()
    vocoder.levels.bias.fill_(-40.0)
    vocoder.levels.bias[len(FREQUENCIES) :] = 2.0
    wave = vocoder(torch.full((1, 400, 64), -6.0))[0].numpy()[: 2 * RATE_HZ]
    power = np.abs(np.fft.rfft(wave)) ** 2
    edges = (2 * FREQUENCIES[::6]).astype(int)
    each = np.array([power[a:b].sum() for a, b in pairwise(edges)])
    assert each.max() < 8 * each.min()  # six carriers of equal power each


def test_onnx_runtime_computes_the_same_wave(vocoder: OscillatorVocoder, tmp_path: Path) -> None:
    config = replace(tiny_config(), vocoder=CONFIG)
    contract = contracts(config.geometry())["vocoder"]
    stored = write_weights(tmp_path / "vocoder.safetensors", vocoder, "float32")
    live = vocoder.state_dict(keep_vars=True)
    path = tmp_path / "vocoder.onnx"
    export_graph(path, vocoder, contract, {id(live[key]): place for key, place in stored.items()})
    assert path.stat().st_size < 200_000  # the tables are stored once, beside the graph
    mel = mel_of(config.mel_frames).numpy()
    got, want = (
        engine(mel=mel)["wave"]
        for engine in (OrtEngine(path, contract, threads=1), EagerEngine(vocoder, contract))
    )
    np.testing.assert_allclose(got, want, atol=1e-5)
