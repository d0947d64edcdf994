"""A caller who edits an onset hears the edit: in small, with the embedded bundle; and the judging itself."""

from __future__ import annotations

from pathlib import Path

import edits
import numpy as np
import pytest
import table

from taro_rt.runtime.onsets import Onset
from taro_rt.runtime.options import Options
from taro_rt.runtime.pipeline import Pipeline
from taro_rt.runtime.source import Span
from taro_rt.training.metrics import mel_onsets
from taro_rt.training.scores import mel_of

ONSETS = (Onset(1.0, 0.5), Onset(2.0), Onset(2.1), Onset(5.0))


def test_the_sound_follows_edits_of_every_sort_and_did_not_sound_so_before() -> None:
    """Were onsets ignored, the edited sounds would be judged as those before the edits are."""
    with Pipeline.load() as pipeline:
        found = list(edits.trials(pipeline, 6))
    assert sorted(row["sort"] for row in found) == sorted(2 * list(edits.SORTS))
    assert sum(row["followed"] for row in found) >= 4, found
    assert sum(row["before"] for row in found) <= 2, found


def test_a_moved_onset_moves_the_sound_of_its_part_and_leaves_the_rest() -> None:
    sample = Path(__file__).parents[1] / "samples" / "drumstick.mp4"
    with Pipeline.load() as pipeline:
        before = pipeline.generate(sample)
        k = len(before.onsets) // 2
        old_s = before.onsets[k].time_s
        new_s = old_s + 0.25
        moved = (*before.onsets[:k], Onset(new_s), *before.onsets[k + 1 :])
        assert before.onsets[k + 1].time_s - new_s > 0.2, "the sample has room there"
        part = Span(old_s - 0.2, new_s + 0.2)
        after = pipeline.regenerate(sample, before.audio, part, Options(onsets=moved))
    old, new = (mel_onsets(mel_of(result.audio.samples)) for result in (before, after))
    assert np.abs(old - old_s).min() < 0.05 < np.abs(old - new_s).min()
    assert np.abs(new - new_s).min() < 0.05 < np.abs(new - old_s).min()
    low, high = round(part.start_s * 16000), round((new_s + 0.2) * 16000)
    assert np.array_equal(after.audio.samples[:low], before.audio.samples[:low])
    assert np.array_equal(after.audio.samples[high:], before.audio.samples[high:])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("sort", edits.SORTS)
def test_an_edit_changes_one_onset_and_keeps_clear_of_the_others(sort: edits.Sort, seed: int) -> None:
    made = edits.edit(sort, ONSETS, np.random.default_rng(seed), 8.0)
    assert made is not None
    gone, come = set(ONSETS) - set(made.onsets), set(made.onsets) - set(ONSETS)
    assert len(gone) == (sort != "added") and len(come) == (sort != "removed")
    assert list(made.onsets) == sorted(made.onsets, key=lambda onset: onset.time_s)
    assert made.old_s == next((onset.time_s for onset in gone), None)
    assert made.new_s == next((onset.time_s for onset in come), None)
    if sort == "moved":
        assert 0.15 <= abs(made.new_s - made.old_s) <= 0.5  # type: ignore[operator]
        assert next(iter(gone)).strength == next(iter(come)).strength
    if made.new_s is not None:
        assert 0.2 <= made.new_s <= 7.8
        assert all(abs(o.time_s - made.new_s) >= 0.15 for o in ONSETS if o not in gone)


def test_where_nothing_can_be_edited_there_is_no_edit() -> None:
    rng = np.random.default_rng(0)
    assert edits.edit("removed", (), rng, 8.0) is None
    assert edits.edit("moved", (Onset(1.0), Onset(1.1)), rng, 8.0) is None
    assert edits.edit("added", tuple(Onset(t / 10) for t in range(80)), rng, 8.0) is None


@pytest.mark.parametrize(
    ("old_s", "new_s", "heard_s", "followed"),
    [
        (1.0, 2.0, [2.04], True),
        (1.0, 2.0, [2.06], False),
        (1.0, 2.0, [1.04, 2.0], False),
        (1.0, 2.0, [], False),
        (1.0, None, [], True),
        (1.0, None, [0.94, 1.06], True),
        (1.0, None, [1.0], False),
        (None, 2.0, [1.96], True),
        (None, 2.0, [1.0], False),
        (3.02, None, [3.0], True),  # another onset stands there
    ],
)
def test_an_edit_is_followed_within_50_ms(
    old_s: float | None, new_s: float | None, heard_s: list[float], followed: bool
) -> None:
    made = edits.Edit("moved", (Onset(3.0),), old_s, new_s)
    assert edits.is_followed(made, np.array(heard_s)) is followed


def test_a_record_of_edits_is_a_row_of_the_readme() -> None:
    rows = [
        {"sort": "moved", "followed": True, "before": False},
        {"sort": "removed", "followed": False, "before": False},
    ]
    (row,) = table.edits({"shares": edits.shares(rows)})
    assert "2 edits" in row and "50% (moved 100%, removed 0%; before the edit 0%)" in row
    assert table.edits(None) == []
