"""Group norm with SiLU over channels that lie side by side against plain PyTorch."""

import pytest
import torch
from kernel_cases import assert_alike, drawn, exact, poisoned, types

pytest.importorskip("triton")
from taro_rt.kernels.norm import group_norm, group_norm_reference

pytestmark = pytest.mark.gpu


@types
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((1, 64, 51, 8), 32), ((2, 128, 7, 5), 8), ((1, 16, 1, 1), 4), ((1, 512, 3, 9), 32)],
)
@pytest.mark.parametrize("silu", [False, True], ids=["plain", "silu"])
@pytest.mark.parametrize("biased", [False, True], ids=["", "biased"])
def test_group_norm_of_both_kinds(
    dtype: torch.dtype, shape: tuple[int, ...], groups: int, silu: bool, biased: bool
) -> None:
    x = drawn(*shape, dtype=dtype, spread=3.0).contiguous(memory_format=torch.channels_last)
    weight, shift, bias = (drawn(shape[1], dtype=dtype, seed=seed) for seed in (1, 2, 3))
    inputs = (x, weight, shift, groups, 1e-6, bias if biased else None, silu)
    with poisoned():
        made = group_norm(*inputs)
    assert_alike([made], [exact(group_norm_reference, *inputs)], dtype)
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_a_large_mean_leaves_the_spread() -> None:
    """Squares are summed in float32: 100 spreads away from zero costs a few digits, not the result."""
    x = drawn(1, 32, 40, 16, dtype=torch.float32) + 100
    ones = torch.ones(32, device=x.device)
    inputs = (x.contiguous(memory_format=torch.channels_last), ones, 0 * ones, 8, 1e-6, None, False)
    made, want = group_norm(*inputs), group_norm_reference(*inputs)
    assert (made - want).abs().max() < 0.05
