"""The stand-in's part of `tensorrt.plugin`: what was registered is asked as TensorRT would ask it.

A node that names a plugin is described, tuned, and compiled with every tactic; the kernel that comes of it is
held against the node's tensors. What computes is the function body all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

MAX_SHARED = 48 << 10
registered: dict[str, dict[str, Callable[..., Any]]] = {}


class TensorDesc:
    """A tensor of static shape."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.shape_expr, self.dtype = shape, list(shape), dtype

    def like(self) -> TensorDesc:
        return deepcopy(self)


class KernelLaunchParams(SimpleNamespace):
    grid_x = grid_y = grid_z = block_x = block_y = block_z = 1
    shared_mem = 0


class SymExprs:
    def __init__(self, length: int) -> None:
        self.values: list[Any] = [None] * length

    def __setitem__(self, i: int, value: Any) -> None:
        assert isinstance(value, SymInt32)
        self.values[i] = value


SymIntExprs = SymExprs


class SymInt32:
    def __init__(self, value: int) -> None:
        self.value = value


class AutoTuneCombination:
    def __init__(self, types: str, layout: str, tactics: list[int]) -> None:
        assert layout == "LINEAR" and tactics and min(tactics) > 0
        self.types, self.tactics = types.split(", "), tactics


def _registering(kind: str) -> Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]:
    def registers(name: str, lazy_register: bool = False) -> Callable[..., Any]:
        def take(function: Callable[..., Any]) -> Callable[..., Any]:
            registered.setdefault(name, {})[kind] = function
            return function

        return take

    return registers


register, autotune, aot_impl = (_registering(kind) for kind in ("describe", "tune", "implement"))


def ask(name: str, inputs: list[TensorDesc], outputs: list[TensorDesc], places: str) -> int:
    """Ask for everything a build would ask for; how many kernels there were to choose from.

    Fails where what is said does not suit the node's tensors.
    """
    functions = registered[name]
    described = functions["describe"](*inputs, places)
    described = described if isinstance(described, tuple) else (described,)
    assert [tuple(each.shape_expr) for each in described] == [each.shape for each in outputs], name
    (combination,) = functions["tune"](*inputs, tuple(outputs))
    kinds = {"FP32": "FLOAT", "FP16": "HALF"}
    names = [each.dtype.name for each in (*inputs, *outputs)]
    assert [kinds[kind] for kind in combination.types] == names, name
    for tactic in combination.tactics:
        kernel, ptx, launch, extra = functions["implement"](*inputs, places, tuple(outputs), tactic)
        (entry,) = re.findall(rf"\.visible \.entry {re.escape(kernel)}\((.*?)\n\)", ptx, re.DOTALL)
        n_parameters = len(re.findall(r"\.param ", entry))
        assert n_parameters == len(inputs) + len(extra.values) + len(outputs), name
        assert launch.grid_x >= 1 and launch.grid_y >= 1 and launch.block_x in (32, 64, 128, 256), name
        assert launch.shared_mem <= MAX_SHARED, name
    return len(combination.tactics)
