from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taro_rt.engines.contract import Array
from taro_rt.engines.errors import BundleError, MediaError
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.windows import Windows, alignment_s, bump, cut, merge, plan, regroup

GEOMETRY = Geometry()


def whole(parts: Sequence[Array], offsets: Sequence[int], axis: int) -> Array:
    return np.concatenate(list(merge(parts, offsets, axis)), axis)


def merged_at_once(parts: Sequence[Array], offsets: Sequence[int]) -> Array:
    """The definition of `merge` along the first axis, with the whole canvas in memory."""
    weight, length = bump(len(parts[0])), len(parts[0])
    total = np.zeros(offsets[-1] + length)
    for offset in offsets:
        total[offset : offset + length] += weight
    merged = np.zeros((len(total), *parts[0].shape[1:]), np.float32)
    for part, offset in zip(parts, offsets, strict=True):
        share = (weight / total[offset : offset + length]).astype(np.float32)
        merged[offset : offset + length] += part * share[:, None]
    return merged


def test_windows_start_where_all_frame_grids_meet() -> None:
    assert alignment_s(GEOMETRY) == 2


def test_alignment_follows_the_geometry() -> None:
    assert alignment_s(Geometry(onset_segment=6)) == 2
    assert alignment_s(Geometry(onset_segment=45, visual_fps=5)) == 3


@pytest.mark.parametrize("duration_s", [1 / 16000, 0.1, 1.0, 8.0, 8.16])
def test_a_clip_that_fits_has_one_window(duration_s: float) -> None:
    assert plan(duration_s, GEOMETRY).starts_s == (0,)


def test_a_sample_more_needs_a_second_window() -> None:
    assert plan(8.16 + 1 / 16000, GEOMETRY).starts_s == (0, 2)


def test_windows_are_spread_evenly() -> None:
    assert plan(15.0, GEOMETRY).starts_s == (0, 4, 8)
    assert plan(20.0, GEOMETRY).starts_s == (0, 6, 12)


@given(st.floats(min_value=0.001, max_value=4000))
def test_windows_cover_the_clip_overlap_and_do_not_start_later_than_needed(duration_s: float) -> None:
    windows = plan(duration_s, GEOMETRY)
    starts, length = windows.starts_s, Fraction(816, 100)
    n_samples = round(duration_s * 16000)
    assert starts[0] == 0
    assert windows.sample_offsets[-1] + 816 * 160 >= n_samples
    assert len(starts) == 1 or starts[-1] - 2 + length < Fraction(n_samples, 16000)
    assert all(2 <= b - a <= 6 for a, b in pairwise(starts))
    for offsets, rate in (
        (windows.onset_offsets, 15),
        (windows.visual_offsets, 4),
        (windows.latent_offsets, 25),
        (windows.mel_offsets, 100),
        (windows.sample_offsets, 16000),
    ):
        assert offsets == [start * rate for start in starts]


def test_a_clip_without_a_sample_is_refused() -> None:
    with pytest.raises(MediaError, match="at least one sample"):
        plan(0.0, GEOMETRY)


def test_a_window_shorter_than_the_alignment_takes_short_clips_only() -> None:
    small = Geometry(mel_frames=80)
    assert len(plan(0.8, small)) == 1
    with pytest.raises(BundleError, match="cannot overlap"):
        plan(0.9, small)


def test_merging_one_part_changes_no_bit() -> None:
    part = np.random.default_rng(0).standard_normal((2, 8, 204, 16), np.float32)
    assert np.array_equal(whole([part], [0], axis=2), part)


@given(st.floats(min_value=8.2, max_value=60))
def test_merging_what_was_cut_gives_the_canvas_back(duration_s: float) -> None:
    windows = plan(duration_s, GEOMETRY)
    canvas = np.random.default_rng(1).standard_normal((3, windows.latent_length, 2), np.float32)
    parts = [cut(canvas, offset, 204, axis=1) for offset in windows.latent_offsets]
    np.testing.assert_allclose(whole(parts, windows.latent_offsets, axis=1), canvas, atol=1e-6)


def test_windows_that_disagree_fade_into_each_other_without_a_step() -> None:
    windows = Windows((Fraction(0), Fraction(6), Fraction(12)), GEOMETRY)
    parts = [np.full(816, level, np.float32) for level in (0.0, 1.0, 0.0)]
    merged = whole(parts, windows.mel_offsets, axis=0)
    assert merged.min() == 0 and merged.max() == 1
    assert np.abs(np.diff(merged)).max() < 0.02
    assert abs(merged[600]) < 1e-4, "a part enters with next to no weight: its edge is not heard"


@given(st.floats(min_value=0.1, max_value=60))
def test_merging_piece_by_piece_equals_merging_at_once_to_the_bit(duration_s: float) -> None:
    offsets = plan(duration_s, GEOMETRY).latent_offsets
    rng = np.random.default_rng(2)
    parts = [rng.standard_normal((204, 2), np.float32) for _ in offsets]
    assert np.array_equal(whole(parts, offsets, axis=0), merged_at_once(parts, offsets))


def test_a_piece_is_given_as_soon_as_no_later_window_touches_it() -> None:
    taken: list[int] = []

    def parts() -> Iterator[Array]:
        for k in range(3):
            taken.append(k)
            yield np.zeros((204, 1), np.float32)

    pieces = merge(parts(), [0, 150, 300], axis=0)
    assert len(next(pieces)) == 150 and taken == [0]
    assert [len(piece) for piece in pieces] == [150, 204]


@given(st.floats(min_value=0.1, max_value=60), st.lists(st.integers(1, 400), min_size=1))
def test_regrouping_gives_the_windows_of_any_pieces(duration_s: float, sizes: list[int]) -> None:
    windows = plan(duration_s, GEOMETRY)
    canvas = np.arange(windows.latent_length, dtype=np.float32)[None]
    edges = [edge for edge in np.cumsum(sizes) if edge < windows.latent_length]
    pieces = np.split(canvas, edges, axis=1)
    got = list(regroup(pieces, windows.latent_offsets, 204, axis=1))
    assert len(got) == len(windows)
    for window, offset in zip(got, windows.latent_offsets, strict=True):
        assert np.array_equal(window, cut(canvas, offset, 204, axis=1))


@given(st.floats(min_value=0.5, max_value=60), st.floats(0, 1), st.floats(0, 1))
def test_the_windows_over_a_part_are_those_that_cover_any_of_it(
    duration_s: float, a: float, b: float
) -> None:
    windows, (start_s, end_s) = plan(duration_s, GEOMETRY), sorted((a * duration_s, b * duration_s))
    end_s = max(end_s, start_s + 0.001)
    chosen = windows.over(start_s, end_s).starts_s
    covers = [s for s in windows.starts_s if float(s) < end_s and float(s) + GEOMETRY.window_s > start_s]
    assert chosen == tuple(covers) and chosen
