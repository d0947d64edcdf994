"""The end of a step in one launch against plain PyTorch."""

import pytest
import torch
from kernel_cases import TOLERANCE, drawn, exact, off, poisoned, types

pytest.importorskip("triton")
from taro_rt.kernels.step import Update, finish_step, finish_step_reference

pytestmark = pytest.mark.gpu


@types
@pytest.mark.parametrize("guided", [False, True], ids=["alone", "guided"])
@pytest.mark.parametrize("patch", [(2, 2), (2, 8), (4, 8), (1, 1)], ids=str)
def test_the_end_of_a_step(dtype: torch.dtype, guided: bool, patch: tuple[int, int]) -> None:
    batch, channels, height, bins, width = 2, 8, 12, 16, 96
    p, q = patch
    m = height // p * (bins // q)
    inputs = (
        drawn(batch * (1 + guided), m, width, dtype=dtype),
        drawn(p * q * channels, width, dtype=dtype, seed=1, spread=0.1),
        drawn(p * q * channels, dtype=dtype, seed=2),
        drawn(batch, channels, height, bins, dtype=torch.float32, seed=3),
        drawn(batch, channels, height, bins, dtype=torch.float32, seed=4),
        list(patch),
        Update(0.96, -0.05, 0.3, 8.0),
    )
    with poisoned():
        made = finish_step(*inputs)
    assert made.dtype == torch.float32
    assert off(made, exact(finish_step_reference, *inputs)) < TOLERANCE[dtype]


def test_all_tokens_of_the_published_size_reach_their_place() -> None:
    inputs = (
        drawn(2, 816, 64, dtype=torch.float32),
        drawn(32, 64, dtype=torch.float32, seed=1),
        drawn(32, dtype=torch.float32, seed=2),
        drawn(1, 8, 204, 16, dtype=torch.float32, seed=3),
        drawn(1, 8, 204, 16, dtype=torch.float32, seed=4),
        [2, 2],
        Update(0.96, -0.05, 0.3, 8.0),
    )
    with poisoned():
        made = finish_step(*inputs)
    assert off(made, finish_step_reference(*inputs)) < TOLERANCE[torch.float32]


def test_a_patch_of_more_values_than_every_gpu_has_memory_for_is_refused() -> None:
    f32 = torch.float32
    tokens, weight, bias = drawn(1, 4, 32, dtype=f32), drawn(512, 32, dtype=f32), drawn(512, dtype=f32)
    latents = drawn(1, 8, 8, 32, dtype=f32)
    with pytest.raises(ValueError, match="a patch of at most 256 values, got 512"):
        finish_step(tokens, weight, bias, latents, latents, [4, 16], Update(1.0, 0.1, 0.0))
