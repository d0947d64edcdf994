"""The whole chain on the tiny bundle: real engines, random weights, in-memory clips."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from media import encode, numbered

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import Cancelled, EngineError, MediaError, OptionsError
from taro_rt.runtime import prepare
from taro_rt.runtime.audio import fit_length
from taro_rt.runtime.clip import Clip, open_reel
from taro_rt.runtime.loudness import CEILING, limit_peak
from taro_rt.runtime.noise import START, STEP, draw_noise
from taro_rt.runtime.onsets import Onset, curve, pick_onsets
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline, Result
from taro_rt.runtime.probe import VideoInfo, probe
from taro_rt.runtime.sampler import guide, sample, time_grid
from taro_rt.runtime.windows import merge, plan

QUICK = Options(steps=3)


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Iterator[Pipeline]:
    with Pipeline.load(tiny_bundle, backend="onnxruntime", threads=1) as loaded:
        yield loaded


def clip(pipeline: Pipeline, duration_s: float, seed: int = 0) -> Clip:
    """Random pictures, the same for the same seed."""
    rng, g = np.random.default_rng(seed), pipeline.geometry

    def frames(fps: int, side: int) -> prepare.Frames:
        return rng.integers(0, 256, (max(1, round(duration_s * fps)), side, side, 3), np.uint8)

    info = VideoInfo(
        path=Path("clip.mp4"),
        container="mp4",
        codec="h264",
        width=64,
        height=64,
        rotation_deg=0,
        n_frames=round(duration_s * 25),
        duration_s=duration_s,
        start_s=0.0,
        average_fps=25.0,
        has_audio=False,
        n_skipped_packets=0,
        n_hidden_packets=0,
        n_untimed_packets=0,
        n_subtitles=0,
    )
    return Clip(info, frames(g.onset_fps, g.onset_resize), frames(g.visual_fps, g.visual_size))


def samples(result: Result) -> list[Array]:
    return [take.samples for take in result.takes]


@pytest.mark.parametrize("duration_s", [1 / 30, 1.0, 3.37, 8.0, 8.17, 20.0])
def test_the_sound_is_exactly_as_long_as_the_picture(pipeline: Pipeline, duration_s: float) -> None:
    result = pipeline.generate(clip(pipeline, duration_s), QUICK)
    assert result.audio.rate_hz == 16000
    assert result.audio.samples.shape == (round(duration_s * 16000),)
    assert result.audio.samples.dtype == np.float32
    assert np.isfinite(result.audio.samples).all() and np.abs(result.audio.samples).max() <= CEILING + 1e-6
    assert len(result.onset_curve) == max(1, round(duration_s * 15))


@pytest.mark.parametrize("method", ["sde", "ode", "heun"])
def test_one_window_is_the_plain_chain_to_the_bit(pipeline: Pipeline, method: str) -> None:
    options = Options(steps=3, method=method, seed=4)  # type: ignore[arg-type]
    short = clip(pipeline, 8.0)
    result = pipeline.generate(short, options)

    g, engines, settings = (
        pipeline.geometry,
        pipeline.engines,
        options.resolve(pipeline.bundle.manifest.sampler),
    )
    segments = [prepare.onset_input(short.onset_frames, k, g) for k in range(0, 120, 30)]
    logits = np.concatenate([engines.onset(frames=frames)["logits"][0] for frames in segments])
    features = engines.visual(frames=prepare.visual_input(short.visual_frames, 0, g))["features"][:, :32]

    times = time_grid(settings.method, settings.steps)[:-1]
    made = engines.conditioner(times=times, onset=logits[None], features=features)

    def velocity(latents: Array, t: float, guided: bool) -> Array:
        i = times.tolist().index(t)
        tokens, modulation, null_row = made["tokens"], made["modulation"][i], made["null_modulation"][i]
        if not guided:
            return engines.denoiser(latents=latents, tokens=tokens, modulation=modulation)["velocity"]
        null = np.broadcast_to(null_row, modulation.shape)
        both = engines.denoiser(
            latents=np.concatenate([latents, latents]),
            tokens=np.concatenate([tokens, np.zeros_like(tokens)]),
            modulation=np.concatenate([modulation, null]),
        )["velocity"]
        return guide(both[:1], both[1:], settings.guidance)

    start = draw_noise((4,), START, 0, 0, 204, g)
    latents = sample(velocity, start, lambda i: draw_noise((4,), STEP, i, 0, 204, g), settings)
    mel = engines.decoder(latents=latents)["mel"]
    wave = engines.vocoder(mel=mel)["wave"][0]
    assert np.array_equal(result.audio.samples, limit_peak(fit_length(wave, 128000)))
    assert result.onset_curve == pytest.approx(curve(logits))
    assert result.onsets == tuple(pick_onsets(curve(logits), 15))


def test_a_file_that_is_decoded_on_the_way_gives_what_its_clip_in_memory_gives(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    path = encode(tmp_path / "a.mp4", numbered(250, 64, 48), b_frames=2)
    from_file, from_clip = (
        pipeline.generate(source, QUICK) for source in (path, Clip.read(path, pipeline.geometry))
    )
    assert np.array_equal(from_file.audio.samples, from_clip.audio.samples)
    assert np.array_equal(from_file.onset_curve, from_clip.onset_curve)
    assert from_file.audio.duration_s == 10.0


def test_the_same_seed_gives_the_same_samples(pipeline: Pipeline) -> None:
    first, again = (pipeline.generate(clip(pipeline, 2.0), Options(steps=3, seed=7)) for _ in range(2))
    assert np.array_equal(first.audio.samples, again.audio.samples)


def test_another_seed_gives_other_samples(pipeline: Pipeline) -> None:
    one, two = (pipeline.generate(clip(pipeline, 2.0), Options(steps=3, seed=seed)) for seed in (0, 1))
    assert np.abs(one.audio.samples - two.audio.samples).max() > 0.01


def test_another_picture_gives_another_sound(pipeline: Pipeline) -> None:
    one, two = (pipeline.generate(clip(pipeline, 2.0, seed), QUICK) for seed in (0, 1))
    assert np.abs(one.audio.samples - two.audio.samples).max() > 1e-4


@pytest.mark.parametrize("duration_s", [2.0, 9.0])
def test_a_take_can_be_made_again_alone(pipeline: Pipeline, duration_s: float) -> None:
    several = pipeline.generate(clip(pipeline, duration_s), Options(steps=3, seed=5, takes=3))
    assert several.seeds == (5, 6, 7)
    alone = pipeline.generate(clip(pipeline, duration_s), Options(steps=3, seed=6))
    np.testing.assert_allclose(samples(several)[1], alone.audio.samples, rtol=0, atol=1e-4)
    assert np.abs(samples(several)[0] - samples(several)[1]).max() > 0.01


def test_noise_at_a_moment_depends_on_seed_stream_step_and_moment_alone(pipeline: Pipeline) -> None:
    g = pipeline.geometry
    several, alone = draw_noise((3, 4), STEP, 9, 0, 750, g), draw_noise((4,), STEP, 9, 130, 304, g)
    assert np.array_equal(several[1, :, 130:304], alone[0])
    assert not np.array_equal(draw_noise((4,), STEP, 8, 130, 304, g), alone)
    assert not np.array_equal(draw_noise((4,), START, 9, 130, 304, g), alone)
    assert not np.array_equal(several[1, :, :25], several[1, :, 25:50])
    assert several.std() == pytest.approx(1, abs=0.01)


def test_given_onsets_take_the_place_of_the_onset_network(pipeline: Pipeline) -> None:
    still = clip(pipeline, 3.0)
    given = Options(steps=3, onsets=(Onset(1.0, 0.8),))
    result = pipeline.generate(still, given)
    assert "onset" not in result.timings and result.onsets == (Onset(1.0, 0.8),)
    assert result.onset_curve[15] == pytest.approx(0.8, abs=1e-5)
    moved = pipeline.generate(still, Options(steps=3, onsets=(Onset(2.0, 0.8),)))
    assert np.abs(result.audio.samples - moved.audio.samples).max() > 1e-4


def test_an_empty_list_of_onsets_means_none_at_all(pipeline: Pipeline) -> None:
    result = pipeline.generate(clip(pipeline, 2.0), Options(steps=1, onsets=()))
    assert result.onsets == () and result.onset_curve.max() < 0.01


def test_onsets_beyond_the_clip_are_refused(pipeline: Pipeline) -> None:
    with pytest.raises(OptionsError, match="within the clip's 2 s"):
        pipeline.generate(clip(pipeline, 2.0), Options(onsets=(Onset(2.5),)))


def test_no_step_is_heard_where_windows_meet(pipeline: Pipeline) -> None:
    long = clip(pipeline, 20.0)
    wave = pipeline.generate(long, QUICK).audio.samples
    steps = np.abs(np.diff(wave))
    starts = plan(20.0, pipeline.geometry).sample_offsets[1:]
    ends = [offset + 816 * 160 for offset in plan(20.0, pipeline.geometry).sample_offsets[:-1]]
    typical = np.quantile(steps, 0.999)
    for seam in starts + ends:
        assert steps[seam - 40 : seam + 40].max() <= 2 * typical


def test_a_seam_of_the_networks_own_edges_is_not_heard(pipeline: Pipeline) -> None:
    """Latents and mels that never change must give such mels and waves, but at the clip's ends."""
    w, g, engines = plan(20.0, pipeline.geometry), pipeline.geometry, pipeline.engines
    assert len(w) == 3
    mel_part = engines.decoder(latents=np.zeros((1, 8, 204, 16), np.float32))["mel"][0]
    mel = np.concatenate(list(merge([mel_part] * 3, w.mel_offsets, axis=0)))
    edge = np.abs(mel[0] - mel[1000]).max()
    assert np.abs(mel[100:1900] - mel[1000]).max() < edge / 100
    still = np.broadcast_to(mel[1000], (1, g.mel_frames, g.mel_bins)).copy()
    wave = np.concatenate(list(merge([engines.vocoder(mel=still)["wave"][0]] * 3, w.sample_offsets, axis=0)))
    by_frame = np.abs(wave[160:] - wave[:-160])[: 20 * 16000]
    assert by_frame[3200:-3200].max() < by_frame[:3200].max() / 100


def test_a_sound_in_a_folder_is_the_sound_in_memory_before_its_peak_is_limited(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    whole = clip(pipeline, 9.0)
    in_memory = pipeline.generate(whole, QUICK).audio.samples
    in_file = pipeline.generate(whole, QUICK, folder=tmp_path).audio
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    assert np.array_equal(in_memory, limit_peak(np.array(in_file.samples)))
    assert np.array_equal(np.concatenate(list(in_file.blocks())), in_file.samples)


def test_a_long_clip_starts_like_its_first_window_alone(pipeline: Pipeline) -> None:
    """Only the overlap may differ: without neighbours a window hears the same conditions and noise."""
    whole = clip(pipeline, 20.0)
    head = Clip(clip(pipeline, 8.16).info, whole.onset_frames[: 15 * 10], whole.visual_frames[: 4 * 10])
    ode = Options(steps=1, method="ode")
    long, short = (pipeline.generate(c, ode).audio.samples for c in (whole, head))
    assert (
        np.abs(long[:64000] - short[:64000]).max() < np.abs(long[112000:128000] - short[112000:128000]).max()
    )
    assert np.corrcoef(long[:64000], short[:64000])[0, 1] > 0.9


def test_progress_rises_from_zero_to_one(pipeline: Pipeline) -> None:
    seen: list[tuple[str, float]] = []
    pipeline.generate(clip(pipeline, 9.0), QUICK, lambda stage, fraction: seen.append((stage, fraction)))
    fractions = [fraction for _, fraction in seen]
    assert {stage for stage, _ in seen} == {"generate"}
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert len(set(fractions)) > 3


@pytest.mark.parametrize("reached", [0.0, 0.3, 1.0])
def test_a_progress_callback_that_answers_false_stops_the_work(pipeline: Pipeline, reached: float) -> None:
    with pytest.raises(Cancelled, match="generate"):
        pipeline.generate(clip(pipeline, 2.0), QUICK, lambda _, fraction: fraction < reached)


def test_seconds_are_told_by_stage(pipeline: Pipeline) -> None:
    timings = pipeline.generate(clip(pipeline, 2.0), QUICK).timings
    assert set(timings) == {"read", "onset", "visual", "conditioner", "denoiser", "decoder", "vocoder"}
    assert all(seconds >= 0 for seconds in timings.values())


def test_onsets_alone_are_those_of_a_generation(pipeline: Pipeline) -> None:
    values, onsets = pipeline.onsets(clip(pipeline, 3.0))
    result = pipeline.generate(clip(pipeline, 3.0), Options(steps=1))
    assert np.array_equal(values, result.onset_curve) and onsets == result.onsets


def test_frames_for_another_bundle_are_refused(pipeline: Pipeline) -> None:
    good = clip(pipeline, 2.0)
    odd = Clip(good.info, good.onset_frames[:, 1:], good.visual_frames)
    with pytest.raises(OptionsError, match="onset_frames"):
        pipeline.generate(odd)


def test_a_missing_video_is_named(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"none\.mp4"):
        pipeline.generate(tmp_path / "none.mp4")


def test_a_closed_pipeline_says_so(tiny_bundle: Path) -> None:
    with Pipeline.load(tiny_bundle, backend="onnxruntime", threads=1) as short_lived:
        made = clip(short_lived, 1.0)
    with pytest.raises(EngineError, match="closed"):
        short_lived.generate(made, QUICK)


@pytest.mark.parametrize("says_no", [False, True])
def test_a_generation_that_is_over_holds_no_decoder(
    pipeline: Pipeline, tmp_path: Path, says_no: bool
) -> None:
    """Else its threads and pictures stay until Python looks for cycles, which large programs seldom do."""
    info = probe(encode(tmp_path / "a.mp4", numbered(50, 64, 48), fps=10))
    gc.collect()
    gc.disable()
    try:
        with open_reel(info, pipeline.geometry) as reel, suppress(Cancelled):
            pipeline.generate(reel, QUICK, lambda stage, fraction: not says_no or fraction == 0)
        left = weakref.ref(reel)
        del reel
        assert left() is None
    finally:
        gc.enable()
