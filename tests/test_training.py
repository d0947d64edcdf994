"""Training: the clips' ground truth, the mel, the paper's losses, and resuming."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from taro_rt.engines.eager import EagerEngine
from taro_rt.engines.nets.config import SMALL
from taro_rt.engines.nets.mmdit import MMDiT
from taro_rt.engines.nets.onset import OnsetNet
from taro_rt.engines.nets.vae import Vae
from taro_rt.engines.stages import contracts
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.prepare import OnsetLogits
from taro_rt.runtime.timing import Timings
from taro_rt.training.bundle import training_time
from taro_rt.training.clips import HELD_OUT, slot_times, sound, views, visual_frames
from taro_rt.training.data import PICTURES, open_sounds, open_views, scene_of
from taro_rt.training.fit import STATE, Ema, Figures, Recipe, averaged, fit, steps_of, write_state
from taro_rt.training.losses import (
    Aligned,
    Conditions,
    Head,
    Tra,
    alignment,
    flow_matching,
    interpolant,
    objective,
)
from taro_rt.training.mel import LogMel
from taro_rt.training.metrics import f1, mel_onsets
from taro_rt.training.parts import train
from taro_rt.training.perception import VisualTrainer, onset_targets
from taro_rt.training.scenes import KINDS, TEXTURES, make_scene
from taro_rt.training.transformer import open_examples


def test_mel_of_a_sine_has_the_published_values() -> None:
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    mel = LogMel()(torch.from_numpy(samples).float()[None])[0]
    assert mel.shape == (101, 64)
    published = [-10.182782, -9.374143, -8.765412, -3.482035, 1.085760, 0.979867]
    # The first three hold next to nothing: their logarithm moves with the processor's rounding.
    assert mel[50, [0, 1, 2, 7, 8, 9]].tolist() == pytest.approx(published, abs=2e-3)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in TEXTURES])
def test_every_kind_of_scene_sounds_at_its_contacts(kind: str) -> None:
    scores = []
    for seed in range(3):
        scene = make_scene(HELD_OUT + seed, 8.0, kind)
        assert scene.events
        heard = mel_onsets(LogMel()(torch.from_numpy(sound(scene))[None])[0].numpy())
        scores.append(f1(heard, np.array([e.time_s for e in scene.events]), 0.05))
    assert np.mean(scores) > 0.7


def test_same_seed_draws_the_same_clip_and_another_seed_does_not() -> None:
    first, again, other = (views(make_scene(seed, 2.0), SMALL).onset_frames for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_the_visual_encoders_own_pictures_show_what_those_beside_the_onset_frames_do(seed: int) -> None:
    scene = scene_of(seed)
    alone, beside = visual_frames(scene, SMALL).astype(float), views(scene, SMALL).visual_frames
    together = np.abs(alone - beside).mean()  # not 0: grain and compression are drawn anew
    assert together < 0.5 * np.abs(alone[1:] - beside[:-1]).mean()
    assert together < 0.5 * np.abs(alone[:-1] - beside[1:]).mean()


def test_the_visual_encoder_learns_from_pictures_and_sounds_of_scenes_of_its_own(tmp_path: Path) -> None:
    train("visual", tmp_path, Recipe(1), 8)
    seen = np.load(tmp_path / "pictures" / "visual_frames.npy", mmap_mode="r")
    heard = np.load(tmp_path / "picture-sounds" / "samples.npy", mmap_mode="r")
    materials = np.load(tmp_path / "pictures" / "materials.npy")
    scene = scene_of(PICTURES + 1)
    assert PICTURES > 20 * 3360  # far beyond the clips that the transformer learns from
    assert np.array_equal(seen[1], visual_frames(scene, SMALL))
    assert np.array_equal(heard[1], np.round(sound(scene) * 32767).astype(np.int16))
    assert materials[1, 0].sum() == len({event.material for event in scene.events})


def test_a_ball_is_lowest_when_it_is_heard() -> None:
    scene = make_scene(3, 8.0, "bounce")
    step = round(scene.events[0].time_s * 240)
    heights = [body.path[max(0, step - 12) : step + 13, 1] for body in scene.bodies if not body.still]
    assert any(np.argmax(h) in range(9, 16) for h in heights)


@pytest.mark.parametrize(
    ("rate", "fps", "frames"),
    [(4, 30.0, [3, 11, 18, 26, 33, 41]), (15, 30.0, [0, 2, 4, 6, 8, 10]), (15, 25.0, [0, 2, 4, 5, 7, 9])],
)
def test_training_sees_the_frames_the_released_system_selects(
    rate: int, fps: float, frames: list[int]
) -> None:
    assert np.round(slot_times(rate, 6, fps) * fps).astype(int).tolist() == frames


def test_onset_target_peaks_at_the_frame_of_the_contact_and_grows_with_strength() -> None:
    events = np.array([[[1.0, 0.2], [3.0, 0.9], [np.nan, np.nan]]])
    (target,) = onset_targets(events, 120, 15)
    assert target.shape == (120,)
    assert target[15] > 0.5 > target[11]
    assert target[45] > target[15]


@pytest.mark.parametrize("path", ["linear", "vp"])
def test_interpolant_derivatives_match_finite_differences(path: str) -> None:
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    alpha, sigma, d_alpha, d_sigma = interpolant(t, path)
    after = interpolant(t + 1e-6, path)
    assert torch.allclose((after[0] - alpha) / 1e-6, d_alpha, atol=1e-4)
    assert torch.allclose((after[1] - sigma) / 1e-6, d_sigma, atol=1e-4)


def test_alignment_is_weighted_by_how_clean_the_latents_are() -> None:
    teacher = torch.randn(4, 6, 8)
    t = torch.tensor([0.0, 0.25, 0.5, 1.0])
    assert alignment(teacher, teacher, t, Tra()).item() == pytest.approx(-(1 - t).mean().item(), abs=1e-5)
    assert alignment(-teacher, teacher, t, Tra()).item() == pytest.approx((1 - t).mean().item(), abs=1e-5)
    assert alignment(teacher, teacher, t, Tra(weighted=False)).item() == pytest.approx(-1, abs=1e-5)


def matched(match: Literal["interpolation", "pooling"], hidden: Tensor) -> Tensor:
    """What a head without its layers makes of 6 times of 2 bands for a teacher of 3 times of 4 bands."""
    head = Head(Tra(match=match, hidden=4), (6, 2), hidden.shape[2], (3, 4), 16)
    head.mlp = nn.Sequential()
    return head(hidden)


def test_interpolated_tokens_keep_their_place_in_time_and_in_frequency() -> None:
    times, bands = torch.arange(6.0).repeat_interleave(2), torch.tensor([10.0, 20.0]).repeat(6)
    made = matched("interpolation", torch.stack([times, bands], 1)[None])[0].unflatten(0, (3, 4))
    torch.testing.assert_close(made[..., 0], torch.tensor([0.5, 2.5, 4.5])[:, None].expand(3, 4))
    torch.testing.assert_close(made[..., 1], torch.tensor([10.0, 12.5, 17.5, 20.0]).expand(3, 4))


def test_pooled_tokens_are_one_on_either_side() -> None:
    hidden = torch.arange(12.0)[None, :, None].expand(1, 12, 8)
    torch.testing.assert_close(matched("pooling", hidden)[0, :, 0], torch.tensor([5.5]))
    pooled = Head(Tra(match="pooling", hidden=4), (6, 2), 8, (3, 4), 16)
    assert pooled(hidden).shape == pooled.teacher(torch.zeros(1, 12, 16)).shape == (1, 1, 16)


SMALL_TRA = Tra(block=1, hidden=32)


def small_aligned(tra: Tra | None = SMALL_TRA) -> Aligned:
    small = replace(SMALL.transformer, depth=2, width=64, heads=1, patch=(4, 16), time_positions=51)
    return Aligned(MMDiT(replace(SMALL, transformer=small)), tra, teacher_grid=(4, 2), teacher_dim=16)


def test_the_released_alignment_head_has_the_published_number_of_parameters() -> None:
    head = Head(Tra(), grid=(102, 8), width=768, teacher_grid=(52, 8), teacher_dim=768)
    assert sum(p.numel() for p in head.parameters()) == pytest.approx(7.68e6, rel=1e-3)


def test_dropped_conditions_reach_neither_stream() -> None:
    torch.manual_seed(0)
    net = small_aligned()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.05)
    latents, t = torch.randn(1, 8, 204, 16).repeat(2, 1, 1, 1), torch.full((2,), 0.5)
    on = Conditions(torch.randn(2, 120), torch.randn(2, 32, SMALL.visual.dim))
    dropped, _ = net(latents, t, on, torch.zeros(2))
    kept, _ = net(latents, t, on, torch.ones(2))
    assert torch.allclose(dropped[0], dropped[1], atol=1e-6)
    assert not torch.allclose(kept[0], kept[1], atol=1e-4)


def test_flow_matching_trains_the_transformer_and_its_alignment_head() -> None:
    torch.manual_seed(0)
    net = small_aligned()
    on = Conditions(torch.randn(2, 120), torch.randn(2, 32, SMALL.visual.dim))
    t = torch.tensor([0.3, 0.9])
    error, projected = flow_matching(net, torch.randn(2, 8, 204, 16), t, on, torch.ones(2))
    assert error.shape == (2,)
    assert error.mean().item() == pytest.approx(2.0, abs=0.2)  # zero start: E |eps - x|^2 = 2
    (error.mean() + alignment(projected, torch.randn(2, 8, 16), t, Tra())).backward()
    assert net.head.match[0].weight.grad.abs().sum() > 0
    assert net.net.final_layer.linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("match", ["conv1d", "interpolation", "pooling"])
def test_the_objective_adds_half_the_alignment_to_the_flow(
    match: Literal["conv1d", "interpolation", "pooling"],
) -> None:
    on = Conditions(torch.randn(2, 120), torch.randn(2, 32, SMALL.visual.dim))
    data, t, teacher = torch.randn(2, 8, 204, 16), torch.tensor([0.3, 0.9]), torch.randn(2, 8, 16)
    net = small_aligned(replace(SMALL_TRA, match=match))
    total, parts = objective(net, data, t, on, torch.ones(2), teacher)
    assert total.item() == pytest.approx((parts["flow"].mean() + 0.5 * parts["align"]).item(), abs=1e-6)
    assert parts["align"].item() != 0
    alone, parts = objective(small_aligned(None), data, t, on, torch.ones(2), teacher)
    assert alone.item() == parts["flow"].mean().item()


def test_interrupted_training_resumes_exactly_where_it_stopped(tmp_path: Path) -> None:
    def run(folder: Path, interrupt_at: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))  # parameters 0 to 11: not in order as words

        def loss(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Figures]:
            if step == interrupt_at:
                raise KeyboardInterrupt
            x = torch.randn(8, 4) + float(rng.random())
            return (net(x) - x.flip(1)).square().mean(), {}

        return fit(net, loss, Recipe(steps=20), folder)

    straight = run(tmp_path / "a", None)
    for step in (9, 15):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "b", step)
    resumed = run(tmp_path / "b", None)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    assert all(torch.equal(straight[key], value) for key, value in averaged(tmp_path / "b").items())


def test_an_interrupt_amid_an_update_leaves_the_state_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> None:
        net = nn.Linear(4, 4)
        fit(net, lambda step, rng: (net(torch.randn(8, 4)).square().mean(), {}), Recipe(20), tmp_path)

    class Torn(Ema):
        def update(self, net: nn.Module, decay: float) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("taro_rt.training.fit.Ema", Torn)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not (tmp_path / STATE).exists()
    run()
    assert steps_of(tmp_path) == 20


def test_the_last_steps_of_a_run_are_logged_too(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    fit(net, lambda step, rng: (net.weight.sum(), {}), Recipe(steps=53), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [50, 53]


@pytest.mark.parametrize(
    ("rows", "before", "said"),
    [
        ([(50, 30.0), (100, 60.0), (150, 20.0), (200, 120.0)], "", "200 steps in 3 minutes"),
        ([(50, 30.0), (100, 60.0)], "90 steps in 7 minutes", "100 steps in 1 minutes"),
        ([(50, 30.0), (100, 60.0)], "100 steps in 7 minutes", "100 steps in 1 minutes"),
        ([(150, 30.0), (200, 60.0)], "100 steps in 7 minutes", "200 steps in 8 minutes"),
        ([(150, 30.0), (200, 60.0)], "200 steps in 8 minutes", "200 steps in 8 minutes"),
        ([], "100 steps in 7 minutes", "100 steps in 7 minutes"),
    ],
)
def test_a_manifest_counts_all_minutes_of_a_training_that_went_on_from_the_kept_weights(
    tmp_path: Path, rows: list[tuple[int, float]], before: str, said: str
) -> None:
    write_state(tmp_path, rows[-1][0] if rows else 100)
    if rows:
        lines = [json.dumps({"step": step, "seconds": seconds}) for step, seconds in rows]
        (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert training_time(tmp_path, before) == said


def test_minutes_of_other_steps_are_not_taken_for_those_of_a_training(tmp_path: Path) -> None:
    write_state(tmp_path, 100)
    with pytest.raises(ValueError, match="expected a log of its 100 steps"):
        training_time(tmp_path, "90 steps in 7 minutes")


def test_examples_are_encoded_anew_once_a_network_that_sees_them_has_other_weights(tmp_path: Path) -> None:
    networks = {"vae": Vae(SMALL.vae, 1.0), "onset": OnsetNet(SMALL.onset), "visual": VisualTrainer(SMALL)}
    for part, net in networks.items():
        write_state(tmp_path / part, 100, ema=net.state_dict())
    seen, heard = open_views(tmp_path / "views", 1, SMALL), open_sounds(tmp_path / "sounds", 1)
    first = open_examples(SMALL, seen, heard, tmp_path, "examples")
    made_ns = (tmp_path / "examples.safetensors").stat().st_mtime_ns
    again = open_examples(SMALL, seen, heard, tmp_path, "examples")
    assert torch.equal(again.onset_logits, first.onset_logits)
    assert (tmp_path / "examples.safetensors").stat().st_mtime_ns == made_ns
    write_state(tmp_path / "onset", 100, ema=OnsetNet(SMALL.onset).state_dict())
    anew = open_examples(SMALL, seen, heard, tmp_path, "examples")
    assert not torch.equal(anew.onset_logits, first.onset_logits)
    assert torch.equal(anew.features, first.features)


def test_fewer_clips_are_the_first_examples_and_more_are_encoded_anew(tmp_path: Path) -> None:
    networks = {"vae": Vae(SMALL.vae, 1.0), "onset": OnsetNet(SMALL.onset), "visual": VisualTrainer(SMALL)}
    for part, net in networks.items():
        write_state(tmp_path / part, 100, ema=net.state_dict())
    made = {}
    for n in (1, 2, 1):
        seen, heard = open_views(tmp_path / f"views-{n}", n, SMALL), open_sounds(tmp_path / f"sounds-{n}", n)
        made[n] = open_examples(SMALL, seen, heard, tmp_path, "examples")
        assert len(made[n].latents) == made[n].features.shape[1] == n
    assert torch.equal(made[1].mels, made[2].mels[:1])
    assert torch.equal(made[1].onset_logits, made[2].onset_logits[:, :1])


def test_the_transformer_is_trained_on_the_onset_logits_that_the_pipeline_gives(tmp_path: Path) -> None:
    networks = {"vae": Vae(SMALL.vae, 1.0), "onset": OnsetNet(SMALL.onset), "visual": VisualTrainer(SMALL)}
    for part, net in networks.items():
        write_state(tmp_path / part, 100, ema=net.state_dict())
    seen, heard = open_views(tmp_path / "views", 1, SMALL), open_sounds(tmp_path / "sounds", 1)
    trained_on = open_examples(SMALL, seen, heard, tmp_path, "examples").onset_logits[0, 0]
    g, frames = SMALL.geometry(), np.array(seen.onset_frames[0])
    engine = EagerEngine(networks["onset"].eval(), contracts(g)["onset"])
    clip = Clip(None, frames, frames[:0])  # type: ignore[arg-type]  # only its frames are looked at
    given = OnsetLogits(engine, clip, g, Timings()).until(g.onset_values)
    assert np.ptp(given) > 0
    np.testing.assert_allclose(trained_on.numpy(), given, atol=1e-5)


FAULTS = """
import resource
import sys
import torch
from taro_rt.training.machine import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
faults = []
for _ in range(20):  # the allocator settles within the first half
    torch.ones(2**24)  # 64 MiB, given back at once
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-5])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_memory_that_training_frees_is_not_asked_for_again() -> None:
    again, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, check=True).stdout)
        for how in ("as it is", "kept")
    )
    assert kept < again / 10


def test_f1_counts_each_event_once() -> None:
    true = np.array([1.0, 2.0, 3.0])
    assert f1(true, true, 0.1) == 1.0
    assert f1(np.array([1.0, 1.05, 2.0, 9.0]), true, 0.1) == pytest.approx(2 * 2 / 7)
    assert f1(np.array([]), true, 0.1) == 0.0
    assert math.isclose(f1(true + 0.2, true, 0.1), 0.0)
