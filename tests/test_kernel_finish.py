"""Bias, sums and LeakyReLU after a convolution in one launch against plain PyTorch."""

import pytest
import torch
from kernel_cases import assert_alike, drawn, exact, poisoned, types

pytest.importorskip("triton")
from taro_rt.kernels.finish import finish_conv, finish_conv_reference

pytestmark = pytest.mark.gpu


@types
@pytest.mark.parametrize("shape", [(1, 32, 1, 999), (2, 24, 5, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("others", [0, 1, 2])
@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)], ids=str)
def test_what_follows_a_convolution(
    dtype: torch.dtype, shape: tuple[int, ...], others: int, wanted: tuple[bool, bool]
) -> None:
    each = (drawn(*shape, dtype=dtype, seed=seed) for seed in range(3))
    x, skip, more = (values.contiguous(memory_format=torch.channels_last) for values in each)
    bias = drawn(shape[1], dtype=dtype, seed=3)
    given = (skip if others > 0 else None, more if others > 1 else None)
    inputs = (x, bias, *given, 0.5, 0.1, *wanted)
    with poisoned():
        made = finish_conv(*inputs)
    assert len(made) == sum(wanted)
    assert_alike(made, exact(finish_conv_reference, *inputs), dtype)


def test_values_that_lie_otherwise_are_the_same() -> None:
    """A skip may come from elsewhere."""
    x, skip = drawn(2, 8, 3, 5, dtype=torch.float32), drawn(2, 8, 5, 3, dtype=torch.float32).transpose(2, 3)
    bias = drawn(8, dtype=torch.float32)
    torch.testing.assert_close(finish_conv(x, bias, skip), finish_conv_reference(x, bias, skip))
