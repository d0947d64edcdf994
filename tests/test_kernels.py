"""The Triton kernels against their references, on a GPU or in Triton's interpreter (float32 and float16)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported
pytest.importorskip("triton")

from taro_rt.kernels import attention, rows, step  # noqa: E402
from taro_rt.kernels.attention import Tiles, joint_attention, joint_attention_reference  # noqa: E402
from taro_rt.kernels.rows import (  # noqa: E402
    Vectors,
    gate_modulate_streams,
    gate_modulate_streams_reference,
    modulate_streams,
    modulate_streams_reference,
)
from taro_rt.kernels.step import Update, finish_step, finish_step_reference  # noqa: E402
from taro_rt.kernels.switch import VARIABLE  # noqa: E402

DEVICE = "cuda" if ON_GPU else "cpu"
TYPES = [torch.float32, torch.float16, *([torch.bfloat16] if ON_GPU else [])]
"""The interpreter has no bfloat16."""
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
TOKENS = [(32, 816), (40, 848), (63, 65), (1, 816), (1, 1)]
"""Context and x: the published numbers, awkward ones, and the null context as one token."""


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel must fill holds NaN, so that what it leaves out is seen."""
    for name in ("empty", "empty_like"):
        plain: Callable[..., Tensor] = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, plain=plain, **k: plain(*a, **k).fill_(float("nan")))
    plain_new = Tensor.new_empty
    monkeypatch.setattr(
        Tensor, "new_empty", lambda self, *a, **k: plain_new(self, *a, **k).fill_(float("nan"))
    )


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(*shape, generator=generator)).to(DEVICE, dtype)


def off(got: Tensor, want: Tensor) -> float:
    """Relative rms difference; NaN counts as endless."""
    difference = (got.float() - want.float()).square().mean().sqrt() / want.float().square().mean().sqrt()
    return float(difference.nan_to_num(float("inf")))


def exact(reference: Callable[..., Any], *tensors: Any) -> Any:
    """What the reference gives in float32 for the same values."""
    return reference(*(t.float() if isinstance(t, Tensor) and t.is_floating_point() else t for t in tensors))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("n", "m"), TOKENS)
@pytest.mark.parametrize("n_rows", [1, 51])
def test_modulation_of_both_streams(dtype: torch.dtype, n: int, m: int, n_rows: int) -> None:
    width = 192
    inputs = (
        drawn(2, n, width, dtype=dtype),
        drawn(2, m, width, dtype=dtype, seed=1, spread=3.0),
        drawn(2, n_rows, 8, width, dtype=dtype, seed=2),
        Vectors(0, 5),
    )
    made = modulate_streams(*inputs)
    for got, want in zip(made, exact(modulate_streams_reference, *inputs), strict=True):
        assert got.dtype == dtype and off(got, want) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("n", "m"), TOKENS)
def test_gated_updates_and_the_modulation_after_them(dtype: torch.dtype, n: int, m: int) -> None:
    width = 96  # no power of two
    inputs = (
        drawn(1, n, width, dtype=dtype),
        drawn(1, m, width, dtype=dtype, seed=1),
        drawn(1, n, width, dtype=dtype, seed=2),
        drawn(1, m, width, dtype=dtype, seed=3),
        drawn(1, 51, 12, width, dtype=dtype, seed=4),
        Vectors(3, 9, 2, 8),
    )
    made = gate_modulate_streams(*inputs)
    for got, want in zip(made, exact(gate_modulate_streams_reference, *inputs), strict=True):
        assert got.dtype == dtype and off(got, want) < TOLERANCE[dtype]


def test_a_context_that_has_ended_is_left_out() -> None:
    """After the last block only x goes on."""
    nothing, x = drawn(2, 0, 64, dtype=torch.float32), drawn(2, 30, 64, dtype=torch.float32)
    inputs = (
        nothing,
        x,
        nothing,
        x * 2,
        drawn(2, 5, 8, 64, dtype=torch.float32, seed=2),
        Vectors(0, 6, 0, 5),
    )
    context, total, _, made = gate_modulate_streams(*inputs)
    want = gate_modulate_streams_reference(*inputs)
    assert context.shape == (2, 0, 64)
    assert off(total, want[1]) < TOLERANCE[torch.float32] and off(made, want[3]) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("n", "m"), [(32, 204), (63, 65), (1, 130), (1, 1)])
@pytest.mark.parametrize("asks", [True, False], ids=["full", "keys and values alone"])
@pytest.mark.parametrize("with_bias", [False, True], ids=["plain", "bias"])
def test_attention_over_both_streams(dtype: torch.dtype, n: int, m: int, asks: bool, with_bias: bool) -> None:
    heads, width = 2, 64
    context = drawn(2, n, (3 if asks else 2) * width, dtype=dtype)
    x, bias = drawn(2, m, 3 * width, dtype=dtype, seed=1), drawn(n + m, dtype=torch.float32, seed=2)
    inputs = (context, x, heads, bias if with_bias else None)
    made = joint_attention(*inputs)
    for got, want in zip(made, exact(joint_attention_reference, *inputs), strict=True):
        assert got.shape == want.shape and got.dtype == dtype
        assert not want.numel() or off(got, want) < TOLERANCE[dtype]


@pytest.mark.parametrize("tiles", [Tiles(16, 16, 4, 1), Tiles(64, 64, 4, 2), Tiles(128, 64, 8, 2)], ids=str)
def test_every_tile_gives_the_same_attention(tiles: Tiles) -> None:
    inputs = (drawn(1, 32, 192, dtype=torch.float32), drawn(1, 100, 192, dtype=torch.float32, seed=1), 1)
    for got, want in zip(
        joint_attention(*inputs, tiles=tiles), joint_attention_reference(*inputs), strict=True
    ):
        assert off(got, want) < TOLERANCE[torch.float32]


def test_one_null_token_with_a_bias_of_log_32_is_32_alike() -> None:
    """What the null condition's context is (its tokens stay alike through all blocks)."""
    token, x = drawn(1, 1, 192, dtype=torch.float32), drawn(1, 60, 192, dtype=torch.float32, seed=1)
    bias = torch.zeros(61, device=DEVICE)
    bias[0] = float(torch.log(torch.tensor(32.0)))
    one = joint_attention(token, x, 3, bias)
    all_of_them = joint_attention_reference(token.expand(1, 32, -1), x, 3)
    assert off(one[1], all_of_them[1]) < TOLERANCE[torch.float32]
    assert off(one[0].expand(1, 32, -1), all_of_them[0]) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("guided", [False, True], ids=["alone", "guided"])
@pytest.mark.parametrize("patch", [(2, 2), (2, 8), (4, 16), (1, 1)], ids=str)
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
        list(patch), Update(0.96, -0.05, 0.3, 8.0),
    )  # fmt: skip
    assert off(finish_step(*inputs), exact(finish_step_reference, *inputs)) < TOLERANCE[dtype]


def test_switched_off_the_reference_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    for module, name in (
        (attention, "_joint_attention"),
        (rows, "_modulate_streams"),
        (step, "_finish_step"),
    ):
        monkeypatch.setattr(module, name, None)
    made = joint_attention(drawn(1, 4, 192, dtype=torch.float32), drawn(1, 8, 192, dtype=torch.float32), 1)
    assert made[0].shape == (1, 4, 64)


FIRST, SAME = Vectors(0, 0), Update(1.0, 1.0, 1.0)
REFUSED: list[tuple[Callable[[Callable[..., Tensor]], Any], str]] = [
    (lambda t: modulate_streams(t(1, 4, 8), t(1, 5, 16), t(1, 1, 2, 8), FIRST), "expected streams"),
    (
        lambda t: modulate_streams(t(1, 4, 8), t(1, 5, 8), t(1, 1, 2, 8), Vectors(0, 3)),
        "5 vectors or more, 8",
    ),
    (lambda t: modulate_streams(t(1, 4, 8), t(1, 5, 8), t(2, 6, 6, 8), FIRST), r"\[1, rows, 2 vectors"),
    (lambda t: modulate_streams(t(1, 8, 4).mT, t(1, 5, 8), t(1, 1, 2, 8), FIRST), "contiguous"),
    (lambda t: joint_attention(t(1, 4, 30), t(1, 5, 30), 1), "heads of width 16, 32, 64, 128, got 10"),
    (lambda t: joint_attention(t(1, 4, 64), t(1, 5, 192), 1), r"a context \[b, n, 192\]"),
    (lambda t: joint_attention(t(1, 4, 192), t(1, 5, 192), 1, t(8)), r"a bias \[9\], got \(8,\)"),
    (
        lambda t: finish_step(t(1, 4, 8), t(32, 8), t(32), t(1, 8, 5, 4), t(1, 8, 5, 4), [2, 2], SAME),
        "a patch that divides 5 x 4",
    ),
    (
        lambda t: finish_step(t(3, 4, 8), t(32, 8), t(32), t(1, 8, 4, 4), t(1, 8, 4, 4), [2, 2], SAME),
        r"tokens \[1 or 2, 4, d\]",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_a_kernel_cannot_take_is_refused_with_a_sentence(
    call: Callable[[Callable[..., Tensor]], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(lambda *shape: drawn(*shape, dtype=torch.float32))


def test_kernels_are_operators_with_shapes_known_beforehand() -> None:
    """What lets `torch.compile` and export see them."""
    context, x = drawn(1, 4, 192, dtype=torch.float32), drawn(1, 8, 192, dtype=torch.float32, seed=1)
    torch.library.opcheck(
        torch.ops.taro_rt.joint_attention.default, (context, x, 1, None, [16, 16, 4, 1]),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip
