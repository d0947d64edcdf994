"""Transposed convolutions as convolutions, for OpenVINO: the same sums by kernels that are faster.

A transposed convolution of stride s is s convolutions, one for each remainder of the output's place by s.
Here they are one convolution with s times the channels, whose outputs are then laid one between the other.
Import ov.py first: importing OpenVINO by itself tells its makers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from openvino import opset13 as ops


def without_transposed(model: Any) -> None:
    """Replace, in place, every transposed convolution along one axis of `model`.

    Those with dilation, or with another length than padding alone gives, stay as they are.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ConvolutionBackpropData" and node.get_output_partial_shape(0).rank == 3:
            _replace(node)


def _replace(node: Any) -> None:
    """y[q s + r - pad] is the sum over i of x[q - i] w[i s + r]: a convolution with taps i for every r."""
    given, has_shape = node.get_attributes(), node.get_input_size() > 2
    (stride,), (begin,), (end,) = given["strides"], given["pads_begin"], given["pads_end"]
    x, weight = node.input_value(0), node.input_value(1)
    if given["dilations"] != [1] or given["output_padding"] != [0] or given["auto_pad"] != "explicit":
        return
    if has_shape or weight.get_partial_shape().is_dynamic:
        return
    c_in, c_out, kernel = weight.get_partial_shape().to_shape()
    taps = -(-kernel // stride)
    whole = ops.pad(weight, _ints(0, 0, 0), _ints(0, 0, taps * stride - kernel), "constant", np.float32(0))
    split = ops.reshape(whole, _ints(c_in, c_out, taps, stride), False)
    flipped = ops.gather(split, _ints(*reversed(range(taps))), _ints(2))
    phases = ops.reshape(ops.transpose(flipped, _ints(3, 1, 0, 2)), _ints(stride * c_out, c_in, taps), False)
    y = ops.convolution(x, phases, [1], [taps - 1], [taps - 1], [1])  # [b, s c, q]
    y = ops.transpose(ops.reshape(y, _ints(0, stride, c_out, -1), True), _ints(0, 2, 3, 1))  # [b, c, q, s]
    y = ops.reshape(y, _ints(0, 0, -1), True)
    surplus = taps * stride - kernel + end
    if begin or surplus:
        y = ops.slice(y, _ints(begin), _ints(-surplus or 2**31 - 1), _ints(1), _ints(2))
    node.output(0).replace(y.output(0))


def _ints(*values: int) -> Any:
    return ops.constant(np.array(values, np.int64))
