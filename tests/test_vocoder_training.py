"""What the vocoder learns from: log-mels of clips, and those that the VAE makes of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from taro_rt.engines.nets.config import SMALL
from taro_rt.engines.nets.vae import Vae
from taro_rt.training import autoencoder
from taro_rt.training.autoencoder import LEVELS, train_vocoder
from taro_rt.training.data import Sounds
from taro_rt.training.fit import Loss, Recipe


def test_half_of_a_batch_is_decoded_and_levels_differ_widely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = (3000 * np.random.default_rng(0).standard_normal((2, 130_560))).astype(np.int16)
    vae, heard, peaks = Vae(SMALL.vae, 1.0), list[torch.Tensor](), list[float]()
    vae.decoder.register_forward_hook(lambda _, inputs, output: heard.append(inputs[0]))

    def fit(net: torch.nn.Module, loss: Loss, *_: object) -> None:
        net.register_forward_pre_hook(lambda _, inputs: peaks.extend(inputs[0].amax((1, 2)).tolist()))
        for step in range(4):
            loss(step, np.random.default_rng(step))

    monkeypatch.setattr(autoencoder, "fit", fit)
    train_vocoder(SMALL, vae.eval(), Sounds(samples, np.zeros(2, np.int64)), Recipe(1), tmp_path)
    assert [len(latents) for latents in heard] == [4] * 4
    of_clips = [peak for k, peak in enumerate(peaks) if k % 8 >= 4]
    assert np.ptp(of_clips) > 0.5 * np.log(2.0) * (LEVELS[1] - LEVELS[0])
