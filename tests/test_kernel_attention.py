"""Attention over both streams against plain PyTorch."""

import math

import pytest
import torch
from kernel_cases import DEVICE, TOLERANCE, assert_alike, drawn, exact, off, poisoned, types

pytest.importorskip("triton")
from taro_rt.kernels.attention import TILES, Tiles, joint_attention, joint_attention_reference

pytestmark = pytest.mark.gpu
TOKENS = [(32, 816), (63, 65), (1, 848), (1, 1)]
"""Context and x: the published numbers (848 together), awkward ones, and the null context as one token."""


@types
@pytest.mark.parametrize(("n", "m"), TOKENS)
@pytest.mark.parametrize(
    ("asks", "with_bias"), [(True, False), (True, True), (False, False)], ids=["full", "bias", "last block"]
)
def test_attention_over_both_streams(dtype: torch.dtype, n: int, m: int, asks: bool, with_bias: bool) -> None:
    batch, heads, width = (2, 2, 64) if m < 100 else (1, 1, 64)
    context = drawn(batch, n, (3 if asks else 2) * width, dtype=dtype)
    x, bias = drawn(batch, m, 3 * width, dtype=dtype, seed=1), drawn(n + m, dtype=torch.float32, seed=2)
    inputs = (context, x, heads, bias if with_bias else None)
    with poisoned():
        made = joint_attention(*inputs)
    assert_alike(made, exact(joint_attention_reference, *inputs), dtype)


@pytest.mark.parametrize("tiles", [*TILES, Tiles(16, 16, 4, 1)], ids=str)
def test_every_tile_gives_the_same_attention(tiles: Tiles) -> None:
    inputs = (drawn(1, 32, 192, dtype=torch.float16), drawn(1, 100, 192, dtype=torch.float16, seed=1), 1)
    with poisoned():
        made = joint_attention(*inputs, tiles=tiles)
    assert_alike(made, exact(joint_attention_reference, *inputs), torch.float16)


@pytest.mark.parametrize("width", [16, 32, 128])
def test_heads_of_other_widths(width: int) -> None:
    context = drawn(1, 5, 6 * width, dtype=torch.float16)
    x = drawn(1, 70, 6 * width, dtype=torch.float16, seed=1)
    with poisoned():
        made = joint_attention(context, x, 2)
    assert_alike(made, exact(joint_attention_reference, context, x, 2), torch.float16)


def test_one_null_token_with_a_bias_of_log_32_is_32_alike() -> None:
    """What the null condition's context is: its tokens stay alike through all blocks (spec D4)."""
    token, x = drawn(1, 1, 192, dtype=torch.float32), drawn(1, 60, 192, dtype=torch.float32, seed=1)
    bias = torch.zeros(61, device=DEVICE)
    bias[0] = math.log(32)
    one = joint_attention(token, x, 1, bias)
    all_of_them = joint_attention_reference(token.expand(1, 32, -1), x, 1)
    assert off(one[1], all_of_them[1]) < TOLERANCE[torch.float32]
    assert off(one[0].expand(1, 32, -1), all_of_them[0]) < TOLERANCE[torch.float32]


def test_a_key_with_a_bias_of_minus_infinity_is_not_there() -> None:
    """Even where a whole turn of the loop has none left."""
    context, x = drawn(1, 3, 192, dtype=torch.float32), drawn(1, 60, 192, dtype=torch.float32, seed=1)
    bias = torch.zeros(63, device=DEVICE)
    bias[:3] = -math.inf
    got = joint_attention(context, x, 1, bias)[1]
    q, k, v = x.chunk(3, -1)
    assert off(got, torch.softmax(q @ k.mT / 8, -1) @ v) < TOLERANCE[torch.float32]
