"""AdaLN of both streams in one launch against plain PyTorch."""

import pytest
import torch
from kernel_cases import assert_alike, drawn, exact, poisoned, types

pytest.importorskip("triton")
from taro_rt.kernels.rows import (
    Vectors,
    gate_modulate_streams,
    gate_modulate_streams_reference,
    modulate_streams,
    modulate_streams_reference,
)

pytestmark = pytest.mark.gpu
SIZES = [(2, 5, 17, 1), (1, 63, 65, 51), (2, 1, 30, 5), (1, 1, 1, 1)]
"""Batch, tokens of both streams, rows of modulation."""


@types
@pytest.mark.parametrize(("batch", "n", "m", "rows"), SIZES)
def test_modulation_of_both_streams(dtype: torch.dtype, batch: int, n: int, m: int, rows: int) -> None:
    width = 192
    inputs = (
        drawn(batch, n, width, dtype=dtype),
        drawn(batch, m, width, dtype=dtype, seed=1, spread=3.0),
        drawn(batch, rows, 8, width, dtype=dtype, seed=2),
        Vectors(0, 5),
    )
    with poisoned():
        made = modulate_streams(*inputs)
    assert_alike(made, exact(modulate_streams_reference, *inputs), dtype)


@types
@pytest.mark.parametrize(("batch", "n", "m", "rows"), SIZES)
def test_gated_updates_and_the_modulation_after_them(
    dtype: torch.dtype, batch: int, n: int, m: int, rows: int
) -> None:
    width = 96
    inputs = (
        drawn(batch, n, width, dtype=dtype),
        drawn(batch, m, width, dtype=dtype, seed=1),
        drawn(batch, n, width, dtype=dtype, seed=2),
        drawn(batch, m, width, dtype=dtype, seed=3),
        drawn(batch, rows, 12, width, dtype=dtype, seed=4),
        Vectors(3, 9, 2, 8),
    )
    with poisoned():
        made = gate_modulate_streams(*inputs)
    assert_alike(made, exact(gate_modulate_streams_reference, *inputs), dtype)


def test_all_tokens_of_the_published_size_find_their_row_of_modulation() -> None:
    inputs = (
        drawn(1, 32, 64, dtype=torch.float32),
        drawn(1, 816, 64, dtype=torch.float32, seed=1),
        drawn(1, 102, 4, 64, dtype=torch.float32, seed=2),
        Vectors(0, 2),
    )
    with poisoned():
        made = modulate_streams(*inputs)
    assert_alike(made, modulate_streams_reference(*inputs), torch.float32)


def test_a_context_that_has_ended_is_left_out() -> None:
    """After the last block only x goes on."""
    nothing, x = drawn(2, 0, 64, dtype=torch.float32), drawn(2, 30, 64, dtype=torch.float32)
    modulation = drawn(2, 5, 8, 64, dtype=torch.float32, seed=2)
    inputs = (nothing, x, nothing, x * 2, modulation, Vectors(0, 6, 0, 5))
    with poisoned():
        made = gate_modulate_streams(*inputs)
    assert_alike(made, gate_modulate_streams_reference(*inputs), torch.float32)
