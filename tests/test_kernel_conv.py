"""The vocoder's convolutions in one launch each against plain PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import TOLERANCE, drawn, exact, off, poisoned, types

pytest.importorskip("triton")
from taro_rt.kernels.conv import leaky_conv, leaky_conv_reference, phases, taps

pytestmark = pytest.mark.gpu


@types
@pytest.mark.parametrize(("channels", "outputs"), [(32, 32), (64, 64), (80, 144), (16, 1)])
@pytest.mark.parametrize(("size", "dilation", "times"), [(3, 1, 300), (7, 3, 63), (11, 5, 130), (11, 5, 1)])
def test_a_convolution_with_what_stands_around_it(
    dtype: torch.dtype, channels: int, outputs: int, size: int, dilation: int, times: int
) -> None:
    inputs = (
        drawn(2, times, channels, dtype=dtype),
        drawn(size, outputs, channels, dtype=dtype, seed=1, spread=(size * channels) ** -0.5),
        drawn(outputs, dtype=dtype, seed=2),
        -(size // 2) * dilation,
        dilation,
        drawn(2, times, outputs, dtype=dtype, seed=3),
    )
    with poisoned():
        made = leaky_conv(*inputs)
    assert made.dtype == dtype
    assert off(made, exact(leaky_conv_reference, *inputs)) < TOLERANCE[dtype]


@pytest.mark.parametrize(("size", "dilation"), [(3, 1), (11, 5)])
def test_it_is_the_convolution_of_the_vocoder(size: int, dilation: int) -> None:
    """Same padding, the weight of a `Conv1d` rearranged."""
    dtype = torch.float32
    x, weight = drawn(1, 20, 100, dtype=dtype), drawn(24, 20, size, dtype=dtype, seed=1, spread=0.1)
    bias, half = drawn(24, dtype=dtype, seed=2), size // 2
    want = F.conv1d(F.leaky_relu(x, 0.1), weight, bias, padding=half * dilation, dilation=dilation)
    got = leaky_conv(x.mT.contiguous(), taps(weight), bias, -half * dilation, dilation)
    assert off(got.mT, want) < TOLERANCE[dtype]


@pytest.mark.parametrize(("size", "stride"), [(16, 5), (16, 4), (8, 2), (4, 2), (21, 10)])
def test_a_transposed_convolution_is_one_by_phases(size: int, stride: int) -> None:
    """The sizes of the published vocoder, and of the tests' own; the padding is cut off afterwards."""
    dtype, times, outputs = torch.float32, 50, 12
    x = drawn(1, 20, times, dtype=dtype)
    weight = drawn(20, outputs, size, dtype=dtype, seed=1, spread=0.1)
    bias, padding = drawn(outputs, dtype=dtype, seed=2), (size - stride) // 2
    want = F.conv_transpose1d(F.leaky_relu(x, 0.1), weight, bias, stride, padding)  # [1, o, t']
    rearranged = phases(weight, stride)
    moments = -(-(want.shape[2] + padding) // stride)
    with poisoned():
        made = leaky_conv(
            x.mT.contiguous(), rearranged, bias.repeat(stride), 1 - len(rearranged), length=moments
        )
    got = made.view(1, moments * stride, outputs)[:, padding : padding + want.shape[2]]
    assert off(got.mT, want) < TOLERANCE[dtype]


def test_entries_of_a_batch_may_lie_apart() -> None:
    """As they do in what an upsampler leaves after cutting its padding off."""
    dtype = torch.float32
    whole, weight = drawn(2, 40, 32, dtype=dtype), drawn(3, 32, 32, dtype=dtype, seed=1, spread=0.1)
    part, bias = whole[:, 5:35], drawn(32, dtype=dtype, seed=2)
    with poisoned():
        made = leaky_conv(part, weight, bias, -1, residual=part)
    assert off(made, leaky_conv_reference(part, weight, bias, -1, residual=part)) < TOLERANCE[dtype]
