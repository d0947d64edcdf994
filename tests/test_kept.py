"""Weights kept between runs, and clips rendered once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from taro_rt.training.data import fill
from taro_rt.training.fit import STATE, Recipe, averaged, fit, steps_of, write_state
from taro_rt.training.kept import keep, kept, kept_steps, start_from_kept


def test_a_part_without_a_checkpoint_goes_on_from_the_kept_weights(tmp_path: Path) -> None:
    state = {"weight": torch.randn(3, 4).half().float(), "bias": torch.randn(3)}
    write_state(tmp_path / "runs" / "teacher", 7, net=state, ema=state)
    assert keep(tmp_path / "runs", tmp_path / "kept.safetensors") == {"teacher": 7}
    start_from_kept("teacher", tmp_path / "other" / "teacher", tmp_path / "kept.safetensors")
    net = torch.nn.Linear(4, 3)
    fit(net, lambda step, rng: (net.weight.sum() * 0, {}), Recipe(steps=7), tmp_path / "other" / "teacher")
    assert steps_of(tmp_path / "other" / "teacher") == 7
    assert torch.equal(net.weight, state["weight"]) and torch.equal(net.bias, state["bias"])


def test_a_checkpoint_is_never_replaced_by_kept_weights(tmp_path: Path) -> None:
    old, new = {"w": torch.zeros(2, 2)}, {"w": torch.ones(2, 2)}
    write_state(tmp_path / "runs" / "vae", 1, net=old, ema=old)
    keep(tmp_path / "runs", tmp_path / "kept.safetensors")
    write_state(tmp_path / "runs" / "vae", 2, net=new, ema=new)
    start_from_kept("vae", tmp_path / "runs" / "vae", tmp_path / "kept.safetensors")
    assert torch.equal(averaged(tmp_path / "runs" / "vae")["w"], new["w"])


def test_parts_that_were_not_trained_stay_as_they_were_kept(tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    for part, value in (("vae", 1.0), ("onset", 2.0)):
        state = {"w": torch.full((2, 2), value)}
        write_state(tmp_path / part / part, 5, net=state, ema=state)
        keep(tmp_path / part, path)
    assert kept_steps(path) == {"vae": 5, "onset": 5}
    assert kept("vae", path)["w"].unique().item() == 1.0


def test_what_the_bundle_holds_is_not_kept_twice(tmp_path: Path) -> None:
    state = {"net.a.weight": torch.ones(2, 2), "head.mlp.0.weight": torch.ones(2, 2)}
    write_state(tmp_path / "transformer", 3, net=state, ema=state)
    keep(tmp_path, tmp_path / "kept.safetensors")
    assert set(kept("transformer", tmp_path / "kept.safetensors")) == {"head.mlp.0.weight"}
    assert (tmp_path / "transformer" / STATE).exists()


def row(k: int) -> dict[str, object]:
    return {"square": k * k}


def refuse(k: int) -> dict[str, object]:
    raise AssertionError(f"row {k} was made twice")


def test_rows_are_made_once_and_only_where_they_are_missing(tmp_path: Path) -> None:
    columns = {"square": ((), np.int64)}
    made = fill(tmp_path, columns, 5, row)
    assert made["square"].tolist() == [0, 1, 4, 9, 16]
    assert fill(tmp_path, columns, 5, refuse)["square"].tolist() == [0, 1, 4, 9, 16]
    done = np.load(tmp_path / "done.npy", mmap_mode="r+")
    done[3] = False
    np.load(tmp_path / "square.npy", mmap_mode="r+")[3] = -1
    assert fill(tmp_path, columns, 5, row)["square"].tolist() == [0, 1, 4, 9, 16]


def test_a_cache_of_fewer_rows_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"square": ((), np.int64)}, 2, row)
    with pytest.raises(ValueError, match="expected 3 rows, got 2"):
        fill(tmp_path, {"square": ((), np.int64)}, 3, row)
