import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taro_rt.engines.errors import OptionsError
from taro_rt.runtime.onsets import (
    FLOOR_LOGIT,
    THRESHOLD,
    Onset,
    as_json,
    check_within,
    curve,
    pick_onsets,
    read_onsets,
    render_logits,
)

FPS = 15


@st.composite
def spaced_onsets(draw: st.DrawFn) -> list[Onset]:
    gaps = draw(st.lists(st.floats(min_value=3.1 / FPS, max_value=1.0), min_size=0, max_size=20))
    strengths = st.floats(min_value=THRESHOLD + 0.05, max_value=0.98)
    return [Onset(float(time_s), draw(strengths)) for time_s in np.cumsum([0.1, *gaps])[1:]]


@given(spaced_onsets())
def test_rendered_onsets_are_picked_again(onsets: list[Onset]) -> None:
    n_values = int(FPS * (onsets[-1].time_s if onsets else 0)) + 4
    picked = pick_onsets(curve(render_logits(onsets, n_values, FPS)), FPS)
    assert [onset.time_s for onset in picked] == pytest.approx([onset.time_s for onset in onsets], abs=1e-3)
    assert [onset.strength for onset in picked] == pytest.approx([o.strength for o in onsets], abs=1e-3)


def test_rendering_keeps_quiet_where_nothing_happens_and_peaks_at_the_onset() -> None:
    logits = render_logits([Onset(2.0, 0.9)], 120, FPS)
    assert logits.dtype == np.float32
    assert logits[30] == pytest.approx(np.log(9), abs=1e-5)
    assert logits.argmax() == 30
    assert (logits[:29] == FLOOR_LOGIT).all() and (logits[32:] == FLOOR_LOGIT).all()


def test_rendered_strength_is_kept_within_what_the_network_gives() -> None:
    loud, faint = (render_logits([Onset(1.0, strength)], 30, FPS).max() for strength in (1.0, 0.0))
    assert curve(loud) == pytest.approx(0.98, abs=1e-5)
    assert curve(faint) == pytest.approx(0.02, abs=1e-5)


def test_an_onset_outside_the_values_leaves_them_at_the_floor() -> None:
    assert (render_logits([Onset(9.0)], 120, FPS) == FLOOR_LOGIT).all()


def test_the_curve_is_the_sigmoid_and_does_not_overflow() -> None:
    logits = np.array([-200, -1, 0, 3, 200], np.float32)
    np.testing.assert_allclose(curve(logits), 1 / (1 + np.exp(-logits.astype(np.float64))), atol=1e-6)


def test_the_stronger_of_two_close_peaks_is_picked() -> None:
    values = np.full(40, 0.01, np.float32)
    values[[10, 12, 20]] = 0.6, 0.8, 0.7
    assert [round(o.time_s * FPS) for o in pick_onsets(values, FPS, min_distance_s=0.2)] == [12, 20]


def test_peaks_below_the_threshold_are_left() -> None:
    values = np.full(40, 0.01, np.float32)
    values[[10, 20]] = 0.2, 0.5
    assert [onset.strength for onset in pick_onsets(values, FPS)] == [0.5]
    assert len(pick_onsets(values, FPS, threshold=0.1)) == 2


def test_peaks_at_both_ends_are_picked() -> None:
    values = np.full(10, 0.01, np.float32)
    values[[0, 9]] = 0.9
    assert [onset.time_s for onset in pick_onsets(values, FPS)] == pytest.approx([0.0, 9 / FPS], abs=1e-6)


def test_a_written_file_is_read_back(tmp_path: Path) -> None:
    onsets = (Onset(0.25, 0.5), Onset(1.5))
    path = tmp_path / "onsets.json"
    path.write_text(json.dumps({"onsets": as_json(onsets), "curve": [0.1]}))
    assert read_onsets(path) == onsets


def test_an_entry_may_leave_the_strength_out(tmp_path: Path) -> None:
    path = tmp_path / "onsets.json"
    path.write_text('{"onsets": [{"time_s": 1}]}')
    assert read_onsets(path) == (Onset(1, 0.9),)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("not json", "expected a JSON file"),
        ("\xff", "expected a JSON file"),
        ("[" * 100_000, "expected a JSON file"),
        ("[1, 2]", '{"onsets": '),
        ('{"onsets": 3}', '{"onsets": '),
        ('{"onsets": [1.5]}', "onset 0"),
        ('{"onsets": [{"time_s": 1}, {"strength": 1}]}', "onset 1"),
        ('{"onsets": [{"time_s": 1, "strenght": 1}]}', "onset 0"),
        ('{"onsets": [{"time_s": -1}]}', "time_s to be 0 or more, got -1"),
        ('{"onsets": [{"time_s": NaN}]}', "time_s to be 0 or more, got nan"),
        ('{"onsets": [{"time_s": "1"}]}', "a number for time_s"),
        ('{"onsets": [{"time_s": true}]}', "a number for time_s"),
        ('{"onsets": [{"time_s": 1, "strength": 2}]}', "strength to be between 0 and 1"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(OptionsError) as caught:
        read_onsets(path)
    assert str(path) in str(caught.value) and fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"none\.json: no such onset file"):
        read_onsets(tmp_path / "none.json")


def test_a_folder_is_no_onset_file(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="cannot be read"):
        read_onsets(tmp_path)


def test_onsets_beyond_the_clip_are_refused() -> None:
    check_within([Onset(2.0)], 2.0)
    with pytest.raises(OptionsError, match=r"within the clip's 2 s, got 2\.5, 3"):
        check_within([Onset(1.0), Onset(2.5), Onset(3.0)], 2.0)
