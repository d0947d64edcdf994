"""A part of a sound made anew: the rest to the bit, no clicks, the level of what is around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import encode, numbered

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.clip import Clip, open_reel
from taro_rt.runtime.loudness import CEILING
from taro_rt.runtime.onsets import Onset
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.runtime.probe import probe
from taro_rt.runtime.region import EDGE_S, Region, with_part
from taro_rt.runtime.source import Span

RATE_HZ = 16000
ODE = Options(steps=2, method="ode")


def noise(duration_s: float, seed: int, rms: float = 0.1, rate_hz: int = RATE_HZ) -> Audio:
    """Noise without much above 1 kHz, as a room has."""
    rng = np.random.default_rng(seed)
    n = round(duration_s * rate_hz)
    smooth = np.convolve(rng.standard_normal(n + 15), np.hanning(16), "valid")[:n]
    return Audio((smooth * rms / smooth.std()).astype(np.float32), rate_hz)


def rms(samples: Array) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def bits(samples: Array) -> Array:
    return np.asarray(samples, np.float32).view(np.uint32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Audio, Audio, Region, float]:
    """A sound at any rate, a new one over a stretch of it, and a region within that."""
    rate_hz = draw(st.sampled_from([16000, 44100, 48000]))
    duration_s = draw(st.integers(20, 300)) / 100
    low_s = draw(st.floats(0, duration_s - 0.01))
    high_s = draw(st.floats(low_s + 0.005, duration_s))
    start_s = draw(st.sampled_from([0.0, float(int(low_s))]))
    previous = noise(duration_s, draw(st.integers(0, 99)), draw(st.sampled_from([1e-9, 0.01, 0.3])), rate_hz)
    new = noise(8.16, draw(st.integers(100, 199)), draw(st.sampled_from([1e-9, 0.02, 0.2])))
    n_total = len(previous.samples)
    region = Region.of(Span(low_s, high_s), n_total, rate_hz, duration_s, draw(st.sampled_from([0, EDGE_S])))
    return previous, new, region, start_s


@given(cases())
def test_outside_the_region_every_bit_stays(case: tuple[Audio, Audio, Region, float]) -> None:
    previous, new, region, start_s = case
    made = with_part(previous, new, start_s, region)
    assert made.rate_hz == previous.rate_hz and made.samples.dtype == np.float32
    assert np.array_equal(bits(made.samples[: region.low]), bits(previous.samples[: region.low]))
    assert np.array_equal(bits(made.samples[region.high :]), bits(previous.samples[region.high :]))
    assert np.isfinite(made.samples).all()


@given(cases())
def test_inside_the_region_nothing_is_louder_than_what_it_is_blended_of(
    case: tuple[Audio, Audio, Region, float],
) -> None:
    previous, new, region, start_s = case
    made = with_part(previous, new, start_s, region).samples[region.low : region.high]
    assert np.abs(made).max() <= max(float(np.abs(previous.samples).max()), CEILING) + 1e-6


@pytest.mark.parametrize("rate_hz", [16000, 48000])
@pytest.mark.parametrize("seed", range(5))
def test_no_click_at_the_edges(seed: int, rate_hz: int) -> None:
    previous, new = noise(4, seed, rate_hz=rate_hz), noise(4, seed + 50)
    region = Region.of(Span(1.3, 2.4), len(previous.samples), rate_hz, 4.0)
    made = with_part(previous, new, 0.0, region).samples
    jumps = np.abs(np.diff(made))
    n = round(EDGE_S * rate_hz)
    inside = jumps[region.low + n : region.high - n].max()
    around = max(inside, jumps[: region.low - 1].max())
    for edge in (region.low, region.high):
        assert jumps[edge - 2 : edge + 2].max() <= around
        assert jumps[edge - n : edge + n].max() <= 1.2 * around


def test_the_region_is_the_new_sound_but_for_its_edges() -> None:
    previous, new = noise(4, 1), noise(4, 2)
    region = Region.of(Span(1.0, 2.0), 64000, RATE_HZ, 4.0)
    made = with_part(previous, new, 0.0, region).samples
    middle = slice(region.low + region.n_edge, region.high - region.n_edge)
    assert np.corrcoef(made[middle], new.samples[middle])[0, 1] > 0.9999


@pytest.mark.parametrize(("start_s", "end_s", "where"), [(0.0, 1.0, 0), (3.0, None, -1), (3.0, 4.0, -1)])
def test_at_the_ends_of_the_clip_there_is_nothing_to_blend_with(
    start_s: float, end_s: float | None, where: int
) -> None:
    shares = Region.of(Span(start_s, end_s), 64000, RATE_HZ, 4.0).shares()
    assert shares[where] == 1 and shares[-1 - where] < 0.01


def test_edges_in_a_short_region_meet_in_its_middle() -> None:
    region = Region.of(Span(1.0, 1.01), 64000, RATE_HZ, 4.0)
    shares = region.shares()
    assert region.n_edge == 80 and len(shares) == 160
    assert shares.argmax() in (79, 80) and shares == pytest.approx(shares[::-1])


@pytest.mark.parametrize("level", [0.02, 0.5, 3.0])
def test_a_sound_that_is_the_same_at_another_level_changes_nothing(level: float) -> None:
    new = noise(4, 1)
    previous = Audio(np.float32(level) * new.samples, RATE_HZ)
    made = with_part(previous, new, 0.0, Region.of(Span(1, 3), 64000, RATE_HZ, 4.0))
    if level < 1:
        assert np.abs(made.samples - previous.samples).max() < 1e-4 * level
    else:  # louder than the limiter lets through
        assert np.abs(made.samples[17600:46400]).max() <= CEILING + 1e-6


def blows(times_s: list[float], level: float, seed: int) -> Audio:
    """Blows over a faint noise."""
    made = noise(8, seed, 0.01).samples.copy()
    for time_s in times_s:
        n = round(time_s * RATE_HZ)
        made[n : n + 3200] += np.sin(np.arange(3200) * 0.4) * np.exp(-np.arange(3200) / 500)
    return Audio(np.float32(level) * made, RATE_HZ)


@pytest.mark.parametrize("seed", [0, 9])
def test_a_blow_added_beside_others_is_as_loud_as_they_are(seed: int) -> None:
    previous, new = blows([1, 6], 0.1, 0), blows([1, 3, 6], 0.4, seed)
    made = with_part(previous, new, 0.0, Region.of(Span(2.5, 4), 128000, RATE_HZ, 8.0)).samples
    assert rms(made[48000:51200]) == pytest.approx(rms(made[16000:19200]), rel=0.05)


@pytest.mark.parametrize(("before", "after"), [([3.0], []), ([], [3.0]), ([3.0], [3.4])])
def test_the_only_blow_is_taken_away_put_there_or_moved_at_its_level(
    before: list[float], after: list[float]
) -> None:
    """Of the same noise: what is faint beside the part tells the level all the same."""
    previous, new = blows(before, 0.1, 0), blows(after, 0.4, 0)
    made = with_part(previous, new, 0.0, Region.of(Span(2.5, 4), 128000, RATE_HZ, 8.0)).samples
    expected = blows(after, 0.1, 0).samples
    assert np.abs(made[42000:60000] - expected[42000:60000]).max() < 0.01


def test_faint_noise_of_another_seed_does_not_decide_on_the_level_of_a_blow() -> None:
    previous, new = blows([3.0], 0.1, 0), blows([3.4], 0.4, 1)
    faint = Audio(np.where(np.abs(new.samples) < 0.03, np.float32(0.1) * new.samples, new.samples), RATE_HZ)
    made = with_part(previous, faint, 0.0, Region.of(Span(2.5, 4), 128000, RATE_HZ, 8.0)).samples
    assert np.abs(made).max() == pytest.approx(0.1, rel=0.2)


def test_beside_a_silent_sound_the_new_one_is_as_it_was_made() -> None:
    previous, new = Audio(np.zeros(64000, np.float32), RATE_HZ), noise(4, 1)
    made = with_part(previous, new, 0.0, Region.of(Span(1, 2), 64000, RATE_HZ, 4.0)).samples
    assert np.abs(made[17600:30400] - new.samples[17600:30400]).max() < 1e-6


@pytest.mark.parametrize(
    ("span", "n_total", "edge_s", "fault"),
    [
        (Span(1, 2), 63000, 0.05, r"expected 4\.000 s, as long as the clip, got 3\.938 s; take one"),
        (Span(1, 2), 65000, 0.05, r"got 4\.062 s"),
        (Span(5, 6), 64000, 0.05, r"within the clip's 4\.000 s, got 5 s to 6 s; choose an earlier start"),
        (Span(3, 4.5), 64000, 0.05, r"got 3 s to 4\.5 s; choose an earlier end"),
        (Span(1, 1.00005), 64000, 0.05, "two samples or more"),
        (Span(1, 2), 64000, -1, "edge: expected 0 or more seconds, got -1"),
        (Span(1, 2), 64000, float("nan"), "edge: .*got nan"),
    ],
)
def test_a_region_that_does_not_fit_is_refused(span: Span, n_total: int, edge_s: float, fault: str) -> None:
    with pytest.raises(OptionsError, match=fault):
        Region.of(span, n_total, RATE_HZ, 4.0, edge_s)


@pytest.fixture(scope="module")
def long(pipeline: Pipeline) -> Clip:
    """Thirty seconds: five windows."""
    return Clip.from_frames(numbered(300, 64, 48), np.arange(300) / 10, pipeline.geometry)


def test_a_regenerated_part_changes_and_the_rest_stays(pipeline: Pipeline, clip: Clip) -> None:
    before = pipeline.generate(clip, Options(steps=3, seed=1)).audio.samples
    result = pipeline.regenerate(clip, Audio(before, RATE_HZ), Span(1, 2), Options(steps=3, seed=2, takes=2))
    assert result.seeds == (2, 3) and result.start_s == 0
    for take in result.takes:
        assert np.array_equal(bits(take.samples[:16000]), bits(before[:16000]))
        assert np.array_equal(bits(take.samples[32000:]), bits(before[32000:]))
        assert np.abs(take.samples - before)[17000:31000].max() > 1e-3
    assert not np.array_equal(result.takes[0].samples, result.takes[1].samples)


def test_edited_onsets_are_heard_in_the_part(pipeline: Pipeline, clip: Clip) -> None:
    before = pipeline.generate(clip, Options(steps=3))
    edited = Options(steps=3, onsets=(Onset(1.5),))
    result = pipeline.regenerate(clip, before.audio, Span(1, 2), edited)
    assert result.onsets == (Onset(1.5),)
    assert np.abs(result.audio.samples - before.audio.samples)[17000:31000].max() > 1e-4


def test_the_same_generation_again_changes_next_to_nothing(pipeline: Pipeline, clip: Clip) -> None:
    before = pipeline.generate(clip, ODE).audio
    quieter = Audio(before.samples * np.float32(0.25), RATE_HZ)
    again = pipeline.regenerate(clip, quieter, Span(0.5, 2.5), ODE).audio
    assert np.abs(again.samples - quieter.samples).max() < 1e-5


def test_of_a_long_clip_only_the_windows_around_the_part_are_made(pipeline: Pipeline, long: Clip) -> None:
    whole = pipeline.generate(long, ODE)
    part = pipeline.generate(long, ODE, around=Span(13.0, 14.0))
    assert part.start_s > 4 and part.audio.duration_s < 17
    first = round(part.start_s * RATE_HZ)
    inside = slice(13 * RATE_HZ, 14 * RATE_HZ)
    moved = slice(inside.start - first, inside.stop - first)
    assert np.corrcoef(whole.audio.samples[inside], part.audio.samples[moved])[0, 1] > 0.9
    n = len(part.onset_curve)
    assert n < len(whole.onset_curve) and np.array_equal(part.onset_curve, whole.onset_curve[:n])


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 1.0), (5.9, 6.2), (13.0, 21.0), (29.0, None)])
def test_a_part_of_a_long_clip_is_put_at_its_place(
    pipeline: Pipeline, long: Clip, start_s: float, end_s: float | None
) -> None:
    before = pipeline.generate(long, ODE).audio
    again = pipeline.regenerate(long, before, Span(start_s, end_s), ODE).audio.samples
    low, high = round(start_s * RATE_HZ), round((end_s or 30) * RATE_HZ)
    assert np.array_equal(again[:low], before.samples[:low])
    assert np.array_equal(again[high:], before.samples[high:])
    assert len(again) == 30 * RATE_HZ
    assert np.corrcoef(again[low:high], before.samples[low:high])[0, 1] > 0.9


def test_a_part_is_made_of_a_file_as_of_a_clip(pipeline: Pipeline, encoded: Path) -> None:
    clip = Clip.read(encoded, pipeline.geometry)
    before = pipeline.generate(clip, ODE).audio
    edited = Options(steps=2, onsets=(Onset(0.6),))
    made = [pipeline.regenerate(source, before, Span(0.4, 0.9), edited) for source in (clip, encoded)]
    assert np.array_equal(made[0].audio.samples, made[1].audio.samples)


@pytest.mark.parametrize("around", [None, Span(24.0, 25.0)])
def test_a_file_that_is_decoded_on_the_way_has_the_onset_curve_of_a_clip_in_memory(
    pipeline: Pipeline, tmp_path: Path, around: Span | None
) -> None:
    path = encode(tmp_path / "long.mp4", numbered(300, 64, 48), fps=10)
    whole = Clip.read(path, pipeline.geometry)
    curves = [
        pipeline.generate(source, Options(steps=1), around=around).onset_curve for source in (whole, path)
    ]
    assert np.ptp(curves[0]) > 0.01
    np.testing.assert_array_equal(curves[1], curves[0])


@pytest.mark.parametrize("onsets", [None, (Onset(25.0),)])
@pytest.mark.parametrize("around", [None, Span(24.0, 25.0)])
def test_frames_are_forgotten_on_the_way_whatever_is_asked(
    pipeline: Pipeline, tmp_path: Path, onsets: tuple[Onset, ...] | None, around: Span | None
) -> None:
    path = encode(tmp_path / "long.mp4", numbered(300, 64, 48), fps=10)
    held: list[int] = []
    with open_reel(probe(path), pipeline.geometry) as reel:

        def progress(stage: str, fraction: float) -> None:
            held.append(len(reel._onset._slots) + len(reel._visual._slots))

        pipeline.generate(reel, Options(steps=1, onsets=onsets), progress, around=around)
    assert max(held[:-1]) < 30 * 19 / 2, "half of the clip at both rates"


def test_a_sound_of_another_clip_is_refused_before_the_work(pipeline: Pipeline, clip: Clip) -> None:
    def never(stage: str, fraction: float) -> None:
        raise AssertionError("it began")

    with pytest.raises(OptionsError, match="as long as the clip"):
        pipeline.regenerate(clip, noise(2.5, 1), Span(1, 2), progress=never)
    with pytest.raises(OptionsError, match="within the clip's"):
        pipeline.generate(clip, around=Span(7, 8), progress=never)
