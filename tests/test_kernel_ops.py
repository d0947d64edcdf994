"""What holds for all kernels: the switch, refusals with a sentence, registration as operators."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_cases import DEVICE, drawn
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton")
from taro_rt.kernels.attention import joint_attention, joint_attention_reference
from taro_rt.kernels.conv import leaky_conv, leaky_conv_reference
from taro_rt.kernels.finish import finish_conv, finish_conv_reference
from taro_rt.kernels.launch import Launch
from taro_rt.kernels.linear import linear_streams, linear_streams_reference
from taro_rt.kernels.norm import group_norm, group_norm_reference
from taro_rt.kernels.rows import (
    Vectors,
    gate_modulate_streams,
    gate_modulate_streams_reference,
    modulate_streams,
    modulate_streams_reference,
)
from taro_rt.kernels.step import Update, finish_step, finish_step_reference
from taro_rt.kernels.switch import VARIABLE

pytestmark = pytest.mark.gpu
FIRST, SAME = Vectors(0, 0), Update(1.0, 1.0, 1.0)


def f32(*shape: int) -> Tensor:
    return drawn(*shape, dtype=torch.float32)


def calls() -> dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]]:
    """Every kernel, its reference, and arguments that suit them."""
    context, x, modulation = f32(1, 4, 64), f32(1, 8, 64), f32(1, 2, 8, 64)
    layer, latents = (f32(32, 64), f32(32)), f32(1, 8, 4, 8)
    return {
        "modulate": (modulate_streams, modulate_streams_reference, (context, x, modulation, Vectors(0, 2))),
        "gate_modulate": (
            gate_modulate_streams,
            gate_modulate_streams_reference,
            (context, x, context, x, modulation, Vectors(0, 2, 4, 5)),
        ),
        "attention": (joint_attention, joint_attention_reference, (f32(1, 4, 192), f32(1, 8, 192), 1)),
        "linear": (linear_streams, linear_streams_reference, (context, x, layer, layer, True)),
        "conv": (leaky_conv, leaky_conv_reference, (x, f32(3, 32, 64), f32(32), -1)),
        "step": (finish_step, finish_step_reference, (x, *layer, latents, latents, [2, 2], SAME)),
        "norm": (group_norm, group_norm_reference, (latents, *(f32(8),) * 2, 4, 1e-6, f32(8), True)),
        "finish": (
            finish_conv,
            finish_conv_reference,
            (latents, f32(8), latents, None, 0.5, 0.1, True, True),
        ),
    }


NAMES = ("modulate", "gate_modulate", "attention", "linear", "step", "conv", "norm", "finish")
OPERATORS: dict[str, tuple[str, Callable[[], tuple[Any, ...]]]] = {
    "modulate": ("modulate_streams", lambda: (f32(1, 4, 64), f32(1, 8, 64), f32(1, 2, 4, 64), [0, 2, 0, 0])),
    "gate_modulate": (
        "gate_modulate_streams",
        lambda: (f32(1, 4, 64), f32(1, 8, 64), f32(1, 4, 64), f32(1, 8, 64), f32(1, 2, 8, 64), [0, 2, 4, 5]),
    ),
    "attention": ("joint_attention", lambda: (f32(1, 4, 192), f32(1, 8, 192), 1, None, [16, 16, 4, 1])),
    "linear": (
        "linear_streams",
        lambda: (
            f32(1, 4, 64), f32(1, 8, 64), f32(32, 64), f32(32), f32(48, 64), f32(48),
            True, [32, 32, 32, 4, 1],
        ),
    ),
    "norm": ("group_norm", lambda: (f32(1, 32, 8), f32(8), f32(8), 4, 1e-6, f32(8), True)),
    "finish": ("finish_conv", lambda: (f32(1, 1, 9, 8), f32(8), None, None, [1.0, 0.1], True, True)),
    "conv": ("leaky_conv", lambda: (f32(1, 8, 64), f32(3, 32, 64), f32(32), -1, 1, None, 9, 0.1)),
    "step": (
        "finish_step",
        lambda: (f32(1, 8, 64), f32(32, 64), f32(32), f32(1, 8, 4, 8), f32(1, 8, 4, 8), [2, 2], [1.0] * 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_switched_off_the_reference_computes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, reference, arguments = calls()[name]
    monkeypatch.setattr(Launch, "run", lambda self: pytest.fail("a kernel was launched"))
    monkeypatch.setenv(VARIABLE, "off")
    torch.testing.assert_close(kernel(*arguments), reference(*arguments), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_switched_on_a_kernel_is_launched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _, arguments = calls()[name]
    launched = []
    monkeypatch.setattr(Launch, "run", lambda self: launched.append(self))
    kernel(*arguments)
    assert len(launched) == (3 if name == "norm" else 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_is_an_operator_whose_shapes_are_known_beforehand(name: str) -> None:
    """What lets `torch.compile` and export see it."""
    operator, arguments = OPERATORS[name]
    overload = getattr(torch.ops.taro_rt, operator).default
    torch.library.opcheck(overload, arguments(), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("name", NAMES)
def test_shapes_come_out_of_tensors_without_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Launch, "run", lambda self: pytest.fail("a kernel was launched"))
    with FakeTensorMode(allow_non_fake_inputs=True):
        kernel, reference, arguments = calls()[name]
        made, want = kernel(*arguments), reference(*arguments)
    made, want = ([t] if isinstance(t, Tensor) else list(t) for t in (made, want))
    assert [(t.shape, t.dtype, t.device) for t in made] == [(t.shape, t.dtype, t.device) for t in want]


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: modulate_streams(f32(1, 4, 8), f32(1, 5, 16), f32(1, 1, 2, 8), FIRST), "expected streams"),
    (
        lambda: modulate_streams(f32(1, 4, 8), f32(1, 5, 8), f32(1, 1, 2, 8), Vectors(0, 3)),
        "5 vectors or more, 8",
    ),
    (lambda: modulate_streams(f32(1, 4, 8), f32(1, 5, 8), f32(2, 6, 6, 8), FIRST), r"\[1, rows, 2 vectors"),
    (lambda: modulate_streams(f32(1, 8, 4).mT, f32(1, 5, 8), f32(1, 1, 2, 8), FIRST), "contiguous"),
    (lambda: modulate_streams(f32(1, 4, 8).half(), f32(1, 5, 8), f32(1, 1, 2, 8), FIRST), "of one type"),
    (
        lambda: modulate_streams(f32(1, 1, 4100), f32(1, 1, 4100), f32(1, 1, 2, 4100), FIRST),
        "at most 4096, got 4100",
    ),
    (
        lambda: gate_modulate_streams(
            f32(1, 4, 8), f32(1, 5, 8), f32(1, 4, 8), f32(1, 4, 8), f32(1, 1, 2, 8), FIRST
        ),
        "updates shaped like their streams",
    ),
    (lambda: joint_attention(f32(1, 4, 30), f32(1, 5, 30), 1), "heads of width 16, 32, 64, 128, got 10"),
    (lambda: joint_attention(f32(1, 4, 64), f32(1, 5, 192), 1), r"a context \[b, n, 192\]"),
    (lambda: joint_attention(f32(1, 4, 192), f32(1, 5, 192), 1, f32(8)), r"a bias \[9\], got \(8,\)"),
    (lambda: joint_attention(f32(1, 4, 192), f32(1, 5, 192), 1, f32(9).half()), "a bias of float32"),
    (lambda: joint_attention(f32(1, 192, 4).mT, f32(1, 5, 192), 1), "side by side"),
    (
        lambda: linear_streams(f32(1, 4, 8), f32(1, 5, 8), (f32(3, 8), f32(3)), (f32(3, 7), f32(3))),
        r"a weight \[o, 8\] and its bias \[o\], got \[\(3, 7\), \(3,\)\]",
    ),
    (lambda: leaky_conv(f32(1, 9, 8), f32(3, 4, 7), f32(4), -1), r"x \[b, t, c\] and a weight \[k, o, c\]"),
    (lambda: leaky_conv(f32(1, 9, 8), f32(3, 4, 8), f32(3), -1), r"a bias \[4\], got \(3,\)"),
    (
        lambda: leaky_conv(f32(1, 9, 8), f32(3, 4, 8), f32(4), -1, residual=f32(1, 9, 8)),
        r"a residual \[1, 9, 4\]",
    ),
    (lambda: leaky_conv(f32(1, 8, 9).mT, f32(3, 4, 8), f32(4), -1), "contiguous"),
    (lambda: group_norm(f32(1, 24, 2, 2), f32(24), f32(24), 8, 1e-6, None, True), r"got \(24, 8\)"),
    (lambda: group_norm(f32(1, 8, 2, 2), f32(8), f32(4), 4, 1e-6, None, True), r"bias \[8\], got"),
    (lambda: finish_conv(f32(1, 8, 2, 2), f32(4)), r"of one shape \[b, h, w, c\] and a bias \[c\]"),
    (lambda: finish_conv(f32(1, 8, 2, 2), f32(8).half()), "of one type on one device"),
    (lambda: finish_conv(f32(1, 8, 2, 2), f32(8), total=False), "got neither"),
    (
        lambda: finish_step(
            f32(1, 4, 8), f32(32, 8), f32(32), f32(1, 8, 5, 4), f32(1, 8, 5, 4), [2, 2], SAME
        ),
        "a patch that divides 5 x 4",
    ),
    (
        lambda: finish_step(
            f32(3, 4, 8), f32(32, 8), f32(32), f32(1, 8, 4, 4), f32(1, 8, 4, 4), [2, 2], SAME
        ),
        r"tokens \[1 or 2, 4, d\]",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_a_kernel_cannot_take_is_refused_with_a_sentence(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert f"set {VARIABLE}=off" in str(refusal.value)


def test_the_device_of_these_tests_is_one_that_kernels_reach() -> None:
    assert f32(1).device.type == DEVICE
