"""Batches that the transformer is trained on: what belongs together moves together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from taro_rt.engines.nets.config import SMALL
from taro_rt.runtime.onsets import FLOOR_LOGIT
from taro_rt.training import transformer
from taro_rt.training.fit import Loss, Recipe
from taro_rt.training.losses import Aligned, Tra
from taro_rt.training.transformer import Examples, Objective, batch, start_from_waves, train_transformer

STRUCK_S = 2.0
G = SMALL.geometry()


@pytest.fixture
def examples() -> Examples:
    """One clip with a single blow: every kind of row is 1 where it falls and 0 elsewhere."""

    def struck(n: int, rate_hz: float) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(round(STRUCK_S * rate_hz)), n).float()

    latents = struck(G.latent_frames, G.latent_fps)[None, :, None].expand(
        1, G.latent_channels, -1, G.latent_bins
    )
    mels = struck(G.mel_frames, G.rate_hz / G.hop)[None, :, None].expand(1, -1, 64)
    features = struck(G.visual_frames, G.visual_fps)[None, :, None].expand(1, 1, -1, SMALL.visual.dim)
    return Examples(
        latents=latents,
        spread=torch.zeros_like(latents),
        mels=mels.half(),
        features=features,
        onset_logits=struck(G.onset_values, G.onset_fps)[None, None],
        events=torch.tensor([[[STRUCK_S, 0.5], [float("nan"), float("nan")]]]),
        kinds=torch.zeros(1, dtype=torch.long),
    )


def test_sound_picture_and_onsets_are_rotated_by_the_same_time(examples: Examples) -> None:
    data, on, mels = batch(SMALL, examples, Objective(), np.random.default_rng(0))
    places_s = {
        "latents": data[:, 0, :, 0].argmax(1) / G.latent_fps,
        "mel": mels[:, :, 0].argmax(1) * G.hop / G.rate_hz,
        "onset": on.onset.argmax(1) / G.onset_fps,
        "features": on.features[:, :, 0].argmax(1) / G.visual_fps,
    }
    assert len(set(places_s["features"].tolist())) > 4
    for name, at_s in places_s.items():
        assert (at_s - places_s["features"]).abs().max() < 0.08, name


def test_what_is_conditioned_on_changes_no_draw(examples: Examples) -> None:
    with_onsets, without = (
        batch(SMALL, examples, Objective(onset=onset), np.random.default_rng(3)) for onset in (True, False)
    )
    assert torch.equal(with_onsets[0], without[0]) and torch.equal(with_onsets[2], without[2])
    assert torch.equal(with_onsets[1].features, without[1].features)
    assert (without[1].onset == FLOOR_LOGIT).all() and not torch.equal(with_onsets[1].onset, without[1].onset)


def test_a_seed_gives_the_same_start_values_whatever_is_trained(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    def fit(net: Aligned, *_: object) -> None:
        starts.append({key: value.clone() for key, value in net.net.state_dict().items()})

    monkeypatch.setattr(transformer, "fit", fit)
    monkeypatch.setattr(transformer, "read_teacher", lambda folder: nn.Identity())
    small = replace(SMALL, transformer=replace(SMALL.transformer, depth=2, width=64, heads=1))
    for what in (Objective(), Objective(tra=None), Objective(onset=False)):
        train_transformer(small, examples, tmp_path, what, Recipe(1, seed=5), tmp_path)
        torch.randn(7)  # what was trained before must not matter
    assert all(torch.equal(value, other[key]) for other in starts[1:] for key, value in starts[0].items())


@pytest.mark.parametrize(("near_noise", "mean"), [(True, 2 / 3), (False, 1 / 2)])
def test_times_are_drawn_near_noise_or_evenly(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near_noise: bool, mean: float
) -> None:
    times: list[torch.Tensor] = []

    def fit(net: Aligned, loss: Loss, *_: object) -> None:
        for step in range(20):
            loss(step, np.random.default_rng(step))

    def objective(net: Aligned, data: torch.Tensor, t: torch.Tensor, *_: object) -> object:
        times.append(t)
        return t.mean(), {"flow": t, "align": t.mean()}

    monkeypatch.setattr(transformer, "fit", fit)
    monkeypatch.setattr(transformer, "objective", objective)
    small = replace(SMALL, transformer=replace(SMALL.transformer, depth=2, width=64, heads=1))
    what = Objective(tra=None, near_noise=near_noise)
    train_transformer(small, examples, tmp_path, what, Recipe(1), tmp_path)
    assert torch.cat(times).mean().item() == pytest.approx(mean, abs=0.04)


@pytest.mark.parametrize("centred", [False, True])
def test_a_centred_teacher_says_nothing_that_it_says_of_every_clip(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, centred: bool
) -> None:
    """Of two clips, 3 and 1 everywhere, the mean is 2."""
    said: list[torch.Tensor] = []

    def fit(net: Aligned, loss: Loss, *_: object) -> None:
        loss(0, np.random.default_rng(0))

    def objective(net: Aligned, data: torch.Tensor, t: torch.Tensor, *rest: torch.Tensor) -> object:
        said.append(rest[-1])
        return t.mean(), {"flow": t, "align": t.mean()}

    monkeypatch.setattr(transformer, "fit", fit)
    monkeypatch.setattr(transformer, "objective", objective)
    monkeypatch.setattr(transformer, "read_teacher", lambda folder: nn.Identity())
    two = replace(
        examples, mels=torch.cat([torch.full_like(examples.mels, 3), torch.full_like(examples.mels, 1)])
    )
    small = replace(SMALL, transformer=replace(SMALL.transformer, depth=2, width=64, heads=1))
    what = Objective(tra=Tra(block=1, hidden=8, centred=centred))
    train_transformer(small, two, tmp_path, what, Recipe(1), tmp_path)
    assert said[0].unique().tolist() == ([1.0] if centred else [3.0])  # the first clip alone is drawn


def test_a_layer_that_starts_from_waves_tells_places_apart() -> None:
    layer = nn.Linear(120, 96)
    start_from_waves(layer)
    seen = layer.weight.T @ layer.weight  # likeness of every two onset values
    assert seen.diagonal().std() < 1e-4
    assert (seen.argmax(0) == torch.arange(120)).all()
