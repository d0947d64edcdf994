"""Cached rows of training data: made by several processes, resumed, told apart by their number."""

import os
from pathlib import Path

import numpy as np
import pytest
from rows import make

from taro_rt.training.data import Row, fill

COLUMNS = {"number": ((), np.int64), "threads": ((), np.int64), "process": ((), np.int64)}


@pytest.mark.parametrize("before", [None, "3"])
def test_workers_multiply_on_one_thread_each(
    tmp_path: Path, before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if before:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", before)
    rows = fill(tmp_path, COLUMNS, 16, make)
    assert set(rows["threads"]) == {1} and os.getpid() not in rows["process"]
    assert os.environ.get("OPENBLAS_NUM_THREADS") == before


def test_only_missing_rows_are_made(tmp_path: Path) -> None:
    made = []

    def noted(row: int) -> Row:
        made.append(row)
        return make(row)

    first = fill(tmp_path, COLUMNS, 5, noted)
    done = np.load(tmp_path / "done.npy", mmap_mode="r+")
    done[[1, 3]] = False
    again = fill(tmp_path, COLUMNS, 5, noted)
    assert made == [0, 1, 2, 3, 4, 1, 3]
    assert list(first["number"]) == list(again["number"]) == [0, 1, 2, 3, 4]


def test_a_folder_of_fewer_rows_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, COLUMNS, 3, make)
    with pytest.raises(ValueError, match="expected 4 rows, got 3"):
        fill(tmp_path, COLUMNS, 4, make)
