"""Procedural clips: what is seen is heard at the same time, and held-out looks stay apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from taro_rt.engines.nets.config import SMALL
from taro_rt.training.camera import Camera
from taro_rt.training.clips import HELD_OUT, Views, film, sound, views, write_video
from taro_rt.training.fields import overlay
from taro_rt.training.film import compressed, shrunk
from taro_rt.training.looks import BACKGROUNDS, KINDS, MODELS, SHADINGS, STEPS_HZ, TEXTURES
from taro_rt.training.render import draw
from taro_rt.training.scenes import Scene, make_scene
from taro_rt.training.sheet import sheet, write_sheet
from taro_rt.training.sounds import MATERIALS, RATE_HZ, VOICES, Event, strike
from taro_rt.training.textures import wind
from taro_rt.training.world import World

EVENT_KINDS = KINDS[:10]
Samples = npt.NDArray[np.float32]


@cache
def scene_of(kind: str, seed: int = 7) -> Scene:
    return make_scene(seed, 8.16, kind)


@cache
def sound_of(kind: str, seed: int = 7) -> Samples:
    return sound(scene_of(kind, seed))


@cache
def views_of(kind: str, seed: int = 7) -> Views:
    return views(scene_of(kind, seed), SMALL)


def calm(scene: Scene) -> Scene:
    """The scene filmed by a camera at rest with a clear lens, nothing passing behind."""
    n = len(scene.look.shake)
    still = replace(scene.look, shake=np.zeros((n, 2)), grain=0.0, flicker=0.0, shutter=0.0)
    return replace(scene, look=still)


def centroid_hz(samples: Samples) -> float:
    power = np.abs(np.fft.rfft(samples, 1 << 16)) ** 2
    return float((power * np.fft.rfftfreq(1 << 16, 1 / RATE_HZ)).sum() / power.sum())


def test_there_are_ten_kinds_of_event_and_four_textures_in_a_fixed_order() -> None:
    events = "bounce hammer footsteps drumstick drop door glasses clap marbles ratchet"
    assert " ".join(KINDS) == f"{events} rain wind fire water"
    assert KINDS[10:] == TEXTURES
    assert set(MODELS) == set(KINDS) and set(VOICES) == set(EVENT_KINDS)


def test_random_scenes_cover_all_kinds() -> None:
    assert {make_scene(seed, 1.0).kind for seed in range(120)} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_clip_with_sound_and_another_seed_does_not(kind: str) -> None:
    again = make_scene(7, 8.16, kind)
    assert again.events == scene_of(kind).events
    assert np.array_equal(sound(again), sound_of(kind))
    assert not np.array_equal(sound(make_scene(8, 8.16, kind)), sound_of(kind))


@pytest.mark.parametrize("kind", ["ratchet", "rain"])
def test_same_seed_gives_the_same_pictures(kind: str) -> None:
    again = views(make_scene(7, 8.16, kind), SMALL)
    assert np.array_equal(again.onset_frames, views_of(kind).onset_frames)
    assert np.array_equal(again.visual_frames, views_of(kind).visual_frames)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held_out", [False, True])
def test_every_kind_is_drawn_at_any_size(kind: str, held_out: bool) -> None:
    scene = make_scene(11, 2.0, kind, held_out)
    for height, width in ((31, 57), (64, 64), (90, 33)):
        frames = draw(scene, np.array([0.3, 1.1]), height, width, 1 / 25)
        assert frames.shape == (2, height, width, 3)
        assert np.isfinite(frames).all()
        assert frames.std() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_finite_sound_at_half_scale_without_dc(kind: str) -> None:
    samples = sound_of(kind)
    assert samples.shape == (130560,)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() == pytest.approx(0.5, abs=1e-3)
    assert abs(float(samples.mean())) < 1e-4


def test_views_have_the_sizes_of_the_networks_and_know_the_events() -> None:
    seen = views_of("hammer")
    assert seen.onset_frames.shape == (120, 48, 48, 3) and seen.onset_frames.dtype == np.uint8
    assert seen.visual_frames.shape == (32, 64, 64, 3) and seen.visual_frames.dtype == np.uint8
    assert seen.event_times_s.tolist() == pytest.approx([e.time_s for e in scene_of("hammer").events])
    assert len(seen.event_strengths) == len(seen.event_times_s)


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_sound_rises_at_every_loud_event(kind: str) -> None:
    rises = []
    for seed in range(3):
        samples, events = sound_of(kind, seed), scene_of(kind, seed).events
        for before, event in zip((None, *events), events, strict=False):
            if event.strength < 0.3 or (before and event.time_s - before.time_s < 0.1):
                continue
            at = round(event.time_s * RATE_HZ)
            # Differences, because a contact is bright: rings from before are not.
            quiet, loud = np.diff(samples[max(0, at - 320) : at]), np.diff(samples[at : at + 320])
            rises.append(np.square(loud).mean() > 2 * np.square(quiet).mean())
    assert np.mean(rises) > 0.8


@pytest.mark.parametrize("kind", ["hammer", "clap", "glasses", "drop", "ratchet", "bounce", "drumstick"])
def test_pictures_change_more_near_events_than_between_them(kind: str) -> None:
    ratios = []
    for seed in range(4):
        scene = calm(make_scene(seed, 4.0, kind))
        times = np.arange(60) / 15
        change = np.abs(np.diff(draw(scene, times, 32, 32), axis=0)).mean((1, 2, 3))
        gap = np.abs(times[1:, None] - [e.time_s for e in scene.events]).min(1)
        if (gap > 0.2).sum() > 3:
            ratios.append(change[gap < 0.08].mean() / (change[gap > 0.2].mean() + 1e-9))
    assert np.median(ratios) > 1.2


@pytest.mark.parametrize("kind", ["bounce", "drop", "footsteps", "hammer", "clap", "glasses", "drumstick"])
def test_what_sounds_is_in_the_picture(kind: str) -> None:
    inside = []
    for seed in range(25):
        scene = make_scene(seed, 8.16, kind)
        camera = Camera.of(scene, 64, 64)
        for event in scene.events:
            now, before = (max(0, round((event.time_s - d) * 240)) for d in (0.0, 0.05))
            paths = np.stack([b.path[[before, now]] for b in scene.bodies if not b.still])
            # The ball on the floor, of whatever else the thing that moved most.
            way = paths[:, 1, 1] if kind == "bounce" else np.abs(paths[:, 1] - paths[:, 0]).max(1)
            moved = paths[np.argmax(way), 1]
            away = moved - camera.corner - scene.look.shake[now]
            pixel = np.linalg.solve(camera.pixels, away)
            inside.append(bool(np.all((pixel > 0) & (pixel < 64))))
    assert np.mean(inside) > 0.95


def test_hammer_is_lowest_when_it_is_heard() -> None:
    scene = make_scene(3, 8.0, "hammer")
    head = scene.bodies[-3]
    for event in scene.events:
        step = round(event.time_s * 240)
        near = head.path[step - 24 : step + 25, 1]
        assert abs(int(np.argmax(near)) - 24) <= 1


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_nothing_is_heard_before_the_first_event(kind: str) -> None:
    if kind == "marbles":
        pytest.skip("marbles roll, and are heard rolling, before they click")
    first = scene_of(kind).events[0]
    before = sound_of(kind)[: round((first.time_s - 0.01) * RATE_HZ)]
    assert np.sqrt(np.square(before).mean()) < 0.5 * 10 ** (-60 / 20)


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_a_second_without_events_is_silent_once_things_have_rung_out(kind: str) -> None:
    scene = make_scene(5, 10.0, kind)
    early = tuple(e for e in scene.events if e.time_s < 4.0)
    still = scene.intensity if scene.intensity is None else 0 * scene.intensity
    samples = sound(replace(scene, events=early, intensity=still))
    assert np.abs(samples[-2 * RATE_HZ :]).max() < 0.5 * 10 ** (-45 / 20)


@pytest.mark.parametrize("kind", TEXTURES)
def test_textures_sound_all_the_time_and_count_no_events(kind: str) -> None:
    for seed in range(3):
        assert not scene_of(kind, seed).events
        samples = sound_of(kind, seed)
        level = np.sqrt(np.square(samples[: len(samples) // 4000 * 4000].reshape(-1, 4000)).mean(1))
        assert level.min() > 10 ** (-40 / 20) * level.max()


@pytest.mark.parametrize("kind", TEXTURES)
def test_level_of_a_texture_follows_its_intensity(kind: str) -> None:
    for seed in range(3):
        scene, samples = scene_of(kind, seed), sound_of(kind, seed)
        level = np.log(np.square(samples[: 32 * 4000].reshape(32, 4000)).mean(1))
        assert scene.intensity is not None
        intensity = scene.intensity[: 32 * 60].reshape(32, 60).mean(1)
        assert np.corrcoef(level, intensity)[0, 1] > 0.6


@pytest.mark.parametrize("kind", ["fire", "rain", "water"])
def test_intensity_of_a_texture_changes_the_picture(kind: str) -> None:
    scene = calm(scene_of(kind))
    assert scene.intensity is not None
    order = np.argsort(scene.intensity)
    weak, strong = order[50:1000:120] / 240, order[-1000:-50:120] / 240
    pictures = [draw(scene, np.sort(times), 48, 48).mean(0) for times in (weak, strong)]
    assert np.abs(pictures[0] - pictures[1]).max() > 0.05


def test_material_changes_the_spectrum_and_size_the_pitch() -> None:
    def heard(material: str, size: float) -> Samples:
        return strike(Event(0.0, 0.7, material, size), np.random.default_rng(0))

    tones = [centroid_hz(heard(m, 0.5)) for m in ("drum", "wood", "metal", "glass")]
    assert tones == sorted(tones)
    lengths = [
        int(np.argmax(np.cumsum(np.square(s)) > 0.9 * np.square(s).sum()))
        for s in (heard("stone", 0.5), heard("wood", 0.5), heard("metal", 0.5))
    ]
    assert lengths == sorted(lengths)
    for material in MATERIALS:
        assert centroid_hz(heard(material, 0.0)) > centroid_hz(heard(material, 1.0))


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_every_voice_starts_at_once_and_ends_without_a_click(kind: str) -> None:
    for material in MATERIALS:
        samples = VOICES[kind](Event(0.0, 0.8, material, 0.4), np.random.default_rng(1), MODELS[kind][0][0])
        peak = np.abs(samples).max()
        assert np.abs(samples[:640]).max() > 0.3 * peak
        assert np.abs(samples[-32:]).max() < 1e-2 * peak


def test_held_out_looks_share_no_family_with_training() -> None:
    for split in (BACKGROUNDS, SHADINGS, *MODELS.values()):
        assert split[0] and split[1] and not set(split[0]) & set(split[1])
    for seed in range(60):
        kind = KINDS[seed % len(KINDS)]
        for scene, side in ((make_scene(seed, 0.5, kind), 0), (make_scene(HELD_OUT + seed, 0.5, kind), 1)):
            assert scene.held_out == bool(side)
            assert scene.look.background in BACKGROUNDS[side]
            assert scene.look.shading in SHADINGS[side]
            assert scene.model in MODELS[kind][side]


def test_low_seeds_can_be_given_a_held_out_look() -> None:
    scene = make_scene(4, 1.0, "clap", held_out=True)
    assert scene.held_out and scene.model in MODELS["clap"][1]


def test_distractors_leave_the_sound_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = next(s for s in range(50) if len(make_scene(s, 1.0, "drop").bodies) > 3)
    heard = sound(make_scene(seed, 4.0, "drop"))
    monkeypatch.setattr(World, "distract", lambda world: None)
    monkeypatch.setattr(World, "clutter", lambda world: None)
    bare = make_scene(seed, 4.0, "drop")
    assert np.array_equal(sound(bare), heard)


def test_compression_keeps_the_number_and_rough_look_of_the_frames() -> None:
    frames = shrunk(
        (draw(scene_of("bounce"), np.arange(20) / 15, 64, 64) * 255).clip(0, 255).astype(np.uint8), 48
    )
    for codec, quality in (("libx264", 20), ("libx264", 34), ("mpeg4", 20), ("mpeg4", 34)):
        coded = compressed(frames, codec, quality)
        assert coded.shape == frames.shape
        error = np.abs(coded.astype(int) - frames).mean()
        assert 0 < error < 20


def test_shrinking_keeps_means_and_flat_areas() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 60, 90, 3)).astype(np.uint8)
    assert shrunk(frames, 24).mean() == pytest.approx(frames.mean(), abs=0.5)
    assert np.all(shrunk(np.full((1, 37, 53, 3), 99, np.uint8), 24) == 99)


def test_film_of_an_odd_rate_has_all_its_frames() -> None:
    blocks = list(film(make_scene(2, 1.3, "glasses"), 33, 47, 24000 / 1001))
    assert sum(len(block) for block in blocks) == round(1.3 * 24000 / 1001)


def test_video_is_a_real_silent_file_of_its_scene(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    scene = write_video(path, HELD_OUT + 3, 2.0, height=77, fps=24, kind="ratchet")
    assert scene.kind == "ratchet" and scene.held_out and scene.events
    with av.open(str(path)) as container:
        assert not container.streams.audio
        assert sum(1 for _ in container.decode(container.streams.video[0])) == 48


def test_video_of_a_scene_is_the_same_file_every_time(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.mp4", "b.mp4")]
    for path in files:
        write_video(path, HELD_OUT + 1400, 2.0, height=180, fps=24, kind="door")
    assert files[0].read_bytes() == files[1].read_bytes()


LEAF = (0.025, 0.011)


def strongest_and_weakest(kind: str, model: str) -> Iterator[tuple[Scene, npt.NDArray[np.int64]]]:
    """Three scenes with a model, each with the two steps of most and of least intensity."""
    seeds = (seed for first in (0, HELD_OUT) for seed in range(first, first + 60))
    found = (scene for seed in seeds if (scene := make_scene(seed, 8.0, kind)).model == model)
    for scene in islice(found, 3):
        assert scene.intensity is not None
        level = scene.intensity[STEPS_HZ : 7 * STEPS_HZ]
        yield scene, STEPS_HZ + np.array([np.argmax(level), np.argmin(level)])


@pytest.mark.parametrize("model", [*MODELS["wind"][0], *MODELS["wind"][1]])
def test_more_moves_the_harder_the_wind_blows(model: str) -> None:
    changes = []
    for scene, steps in strongest_and_weakest("wind", model):
        world = World(scene.seed, "wind", 8.0, scene.aspect, scene.held_out)  # without what moves in any wind
        wind(world)
        bodies = tuple(body for body in world.bodies if body.extent != LEAF)
        still = np.zeros_like(scene.look.shake)
        steady = replace(scene, look=replace(scene.look, shake=still), bodies=bodies)
        frames = draw(steady, np.concatenate([steps, steps + 10]) / STEPS_HZ, 48, 48)
        changes.append(np.abs(frames[2:] - frames[:2]).mean((1, 2, 3)))
    strong, weak = np.mean(changes, axis=0)
    assert strong > 1.3 * weak


@pytest.mark.parametrize("model", [*MODELS["fire"][0], *MODELS["fire"][1]])
def test_flames_cover_more_the_harder_it_burns(model: str) -> None:
    y, x = np.mgrid[0:1:64j, 0:2:128j].astype(np.float32)[:, None]
    covers = [
        sum(overlay(flame, steps, x, y)[1].mean((1, 2, 3)) for flame in scene.fields)
        for scene, steps in strongest_and_weakest("fire", model)
    ]
    strong, weak = np.mean(covers, axis=0)
    assert strong > 1.3 * weak > 0


def test_contact_sheet_shows_every_kind(tmp_path: Path) -> None:
    picture = sheet(0, held_out=True)
    assert picture.shape == (len(KINDS) * 100, 6 * 148, 3)
    write_sheet(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes()[1:4] == b"PNG"
