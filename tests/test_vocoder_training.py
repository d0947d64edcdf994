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
    vae, decoded, heard = Vae(SMALL.vae, 1.0), list[torch.Tensor](), list[torch.Tensor]()
    vae.decoder.register_forward_hook(lambda _, inputs, output: decoded.append(output))

    def fit(net: torch.nn.Module, loss: Loss, *_: object) -> None:
        net.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0].clone()))
        for step in range(4):
            loss(step, np.random.default_rng(step))

    monkeypatch.setattr(autoencoder, "fit", fit)
    train_vocoder(SMALL, vae.eval(), Sounds(samples, np.zeros(2, np.int64)), Recipe(1), tmp_path)
    for mel, made in zip(heard, decoded, strict=True):
        assert torch.equal(mel[:4], made.reshape(mel[:4].shape))
    peaks = torch.cat([mel[4:] for mel in heard]).amax((1, 2)).numpy()
    assert np.ptp(peaks) > 0.5 * np.log(2.0) * (LEVELS[1] - LEVELS[0])
