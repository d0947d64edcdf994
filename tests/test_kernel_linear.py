"""The linear layers of both streams in one launch against plain PyTorch."""

from itertools import pairwise

import pytest
import torch
from kernel_cases import INTERPRETED, assert_alike, drawn, exact, poisoned, types
from torch import Tensor

pytest.importorskip("triton")
from taro_rt.kernels.launch import can_overlap
from taro_rt.kernels.linear import (
    COPIED_TILES,
    LINEAR_TILES,
    LinearTiles,
    filling_tiles,
    linear_streams,
    linear_streams_launch,
    linear_streams_reference,
)

pytestmark = pytest.mark.gpu


def layer(outputs: int, width: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    """Weight and bias that keep the spread of what they are given."""
    weight = drawn(outputs, width, dtype=dtype, seed=seed, spread=width**-0.5)
    return weight, drawn(outputs, dtype=dtype, seed=seed + 1)


@types
@pytest.mark.parametrize(("batch", "n", "m"), [(1, 32, 816), (2, 63, 65), (1, 1, 1), (2, 0, 9)])
@pytest.mark.parametrize(("gelu", "width"), [(False, 128), (True, 96)], ids=["plain", "gelu"])
def test_linear_layers_of_both_streams(
    dtype: torch.dtype, batch: int, n: int, m: int, gelu: bool, width: int
) -> None:
    inputs = (
        drawn(batch, n, width, dtype=dtype),
        drawn(batch, m, width, dtype=dtype, seed=1),
        layer(80, width, dtype, 2),
        layer(144, width, dtype, 4),
        gelu,
    )
    with poisoned():
        made = linear_streams(*inputs)
    assert_alike(made, exact(linear_streams_reference, *inputs), dtype)


@pytest.mark.parametrize("tiles", LINEAR_TILES, ids=str)
def test_every_tile_gives_the_same_values(tiles: LinearTiles) -> None:
    dtype = torch.float16
    inputs = (drawn(1, 5, 192, dtype=dtype), drawn(1, 150, 192, dtype=dtype, seed=1))
    layers = (layer(200, 192, dtype, 2), layer(136, 192, dtype, 4), True)
    with poisoned():
        made = inputs[1].new_empty(1, 5, 200), inputs[1].new_empty(1, 150, 136)
        linear_streams_launch(*inputs, *layers, made, tiles).run()  # by threads, whatever the GPU
    assert_alike(made, exact(linear_streams_reference, *inputs, *layers), dtype)


@types
@pytest.mark.parametrize("tiles", COPIED_TILES, ids=str)
@pytest.mark.parametrize("n", [0, 5, 130])
def test_tiles_brought_by_the_copy_engine_give_the_same_values(
    dtype: torch.dtype, tiles: LinearTiles, n: int
) -> None:
    context, x = drawn(2, n, 192, dtype=dtype), drawn(2, 75, 192, dtype=dtype, seed=1)
    if not (INTERPRETED or (can_overlap(x) and dtype != torch.float32)):
        pytest.skip("gpu: this one has no copy engine")
    layers = (layer(200, 192, dtype, 2), layer(136, 192, dtype, 4))
    with poisoned():
        outputs = x.new_empty(2, n, 200), x.new_empty(2, 75, 136)
        linear_streams_launch(context, x, *layers, True, outputs, tiles, copied=True).run()
    assert_alike(outputs, exact(linear_streams_reference, context, x, *layers, True), dtype)


def test_gelu_of_large_values_neither_overflows_nor_leaks() -> None:
    one, nothing = torch.ones(1, 1, 1), torch.zeros(1)
    values = torch.tensor([[[-80.0], [-9.0], [9.0], [80.0]]])
    plain = (one[0], nothing)
    device = drawn(1, dtype=torch.float32).device
    moved = [t.to(device) for t in (one, values, *plain)]
    made = linear_streams(moved[0], moved[1], (moved[2], moved[3]), (moved[2], moved[3]), gelu=True)[1]
    assert made.flatten().tolist() == pytest.approx([0, 0, 9, 80], abs=1e-6)


def test_tiles_shrink_with_the_work() -> None:
    """Few tokens are cut finely, so that every multiprocessor has some."""
    rows = []
    for m in (4096, 816, 100, 1):
        x = torch.empty(1, m, 768)
        weights = (torch.empty(768, 768), torch.empty(768))
        rows.append(filling_tiles(x[:, :1], x, weights, weights).rows)
    assert all(a >= b for a, b in pairwise(rows)) and rows[0] > rows[-1]
