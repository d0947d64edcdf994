from dataclasses import replace

import numpy as np
import pytest

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import OptionsError
from taro_rt.engines.stages import Geometry, contracts
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.prepare import Frames, OnsetLogits, check_frames, onset_input, onset_pixels, visual_input
from taro_rt.runtime.timing import Timings

GEOMETRY = Geometry()
PUBLISHED_MEAN, PUBLISHED_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def frames(count: int, side: int) -> Frames:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def test_onset_frames_are_cropped_in_the_centre_and_normalised() -> None:
    clip = frames(60, 128)
    got = onset_input(clip, 30, GEOMETRY)
    assert got.shape == (1, 3, 30, 112, 112) and got.dtype == np.float32
    assert got.flags.c_contiguous
    for channel in range(3):
        want = (clip[31, 8 + 5, 8 + 7, channel] / 255 - PUBLISHED_MEAN[channel]) / PUBLISHED_STD[channel]
        assert got[0, channel, 1, 5, 7] == pytest.approx(want, abs=1e-5)


def test_visual_frames_are_scaled_to_one_and_nothing_else() -> None:
    clip = frames(60, 224)
    got = visual_input(clip, 8, GEOMETRY)
    assert got.shape == (1, 3, 40, 224, 224) and got.dtype == np.float32
    assert got[0, 2, 3, 4, 5] == np.float32(clip[11, 4, 5, 2]) / np.float32(255)


def test_a_clip_stands_still_beyond_its_end() -> None:
    clip = frames(10, 224)
    got = visual_input(clip, 8, GEOMETRY)[0].transpose(1, 2, 3, 0)  # [n, h, w, c]
    np.testing.assert_array_equal(got[1], clip[9].astype(np.float32) / 255)
    assert (got[1:] == got[1]).all() and (got[0] != got[1]).any()


@pytest.mark.parametrize(("n_frames", "encoded"), [(10, 32), (35, 35), (60, 40)])
def test_only_frames_that_exist_are_looked_ahead_to(n_frames: int, encoded: int) -> None:
    assert visual_input(frames(n_frames, 8), 0, replace(GEOMETRY, visual_size=8)).shape[2] == encoded


def test_a_segment_wholly_beyond_the_end_is_the_last_frame() -> None:
    got = onset_input(frames(10, 128), 90, GEOMETRY)
    np.testing.assert_array_equal(got[:, :, :1], onset_input(frames(10, 128)[9:], 0, GEOMETRY)[:, :, :1])
    assert (got == got[:, :, :1]).all()


def test_a_segment_is_seen_with_its_margins_and_stands_still_beyond_the_clip() -> None:
    shown = np.arange(50, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 128, 128, 3), np.uint8)
    geometry = replace(GEOMETRY, onset_margin=3)
    seen = [onset_pixels(shown, first, geometry)[:, 0, 0, 0].tolist() for first in (0, 15, 30)]
    assert seen[0] == [0, 0, 0, *range(33)]
    assert seen[1] == list(range(12, 48))
    assert seen[2] == [*range(27, 50), *[49] * 13]


class MeanOnset:
    """An engine whose logits are the mean of each frame."""

    backend = "hand-made"

    def __init__(self, geometry: Geometry) -> None:
        self.contract = contracts(geometry)["onset"]
        self._kept = slice(geometry.onset_margin, geometry.onset_margin + geometry.onset_segment)

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        self.contract.check(inputs)
        return {"logits": inputs["frames"].mean(axis=(1, 3, 4))[:, self._kept]}

    def close(self) -> None:
        pass


@pytest.mark.parametrize("margin", [0, 5])
def test_logits_are_made_segment_by_segment_as_far_as_they_are_asked_for(margin: int) -> None:
    geometry = replace(GEOMETRY, onset_margin=margin)
    pixels = np.arange(135, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 128, 128, 3), np.uint8)
    clip = Clip(None, pixels, pixels[:0])  # type: ignore[arg-type]  # only its frames are looked at
    timings = Timings()
    logits = OnsetLogits(MeanOnset(geometry), clip, geometry, timings)
    assert logits.until(40).shape == (40,) and logits._n_made == 60
    values = logits.until(150)
    assert (
        values.shape == (150,) and (np.diff(values[:135]) > 0).all() and (values[135:] == values[134]).all()
    )
    assert set(timings.seconds) == {"read", "onset"}


@pytest.mark.parametrize("margin", [0, 5])
def test_logits_go_on_from_those_that_were_made_elsewhere(margin: int) -> None:
    geometry = replace(GEOMETRY, onset_margin=margin)
    pixels = np.arange(135, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 128, 128, 3), np.uint8)
    engine = MeanOnset(geometry)
    clips = [Clip(None, pixels, pixels[:0]) for _ in range(2)]  # type: ignore[arg-type]
    want = OnsetLogits(engine, clips[0], geometry, Timings()).until(150)
    logits = OnsetLogits(engine, clips[1], geometry, Timings())
    segments = logits.pixels_until(120)
    assert segments.shape == (4, 30 + 2 * margin, 112, 112, 3) and segments.dtype == np.uint8
    assert segments[1, :, 0, 0, 0].tolist() == list(range(30 - margin, 60 + margin))
    cropped = replace(geometry, onset_resize=112)
    made = [engine(frames=onset_input(s, margin, cropped))["logits"][0] for s in segments]
    logits.add(np.concatenate(made))
    np.testing.assert_array_equal(logits.until(150), want)


@pytest.mark.parametrize(
    ("onset", "visual", "named"),
    [
        (frames(2, 112), frames(2, 224), r"onset_frames as uint8 .* 128, 128, 3\], got uint8 \[2, 112"),
        (frames(2, 128), frames(0, 224), r"visual_frames .* got uint8 \[0, 224"),
        (frames(2, 128), frames(2, 224)[..., 0], "visual_frames"),
        (frames(2, 128) / 255, frames(2, 224), "onset_frames .* got float64"),
    ],
)
def test_frames_of_another_size_or_kind_are_refused(onset: Frames, visual: Frames, named: str) -> None:
    with pytest.raises(OptionsError, match=named):
        check_frames(onset, visual, replace(GEOMETRY, resize="fast"))


def test_released_arithmetic_gives_onset_frames_as_float32_and_nothing_else_is_taken() -> None:
    check_frames(frames(2, 128).astype(np.float32), frames(2, 224), GEOMETRY)
    with pytest.raises(OptionsError, match=r"onset_frames as float32 .* got uint8"):
        check_frames(frames(2, 128), frames(2, 224), GEOMETRY)
