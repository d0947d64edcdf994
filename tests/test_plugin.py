"""Our kernels as TensorRT's plugins take them: order, limits, PTX for every GPU, and the same sums."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
import triton

from taro_rt.kernels.plugin_attention import PLUGIN_TILES

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"

CAPABILITIES = ((8, 0), (8, 6), (8, 9), (9, 0), (12, 0))
COMPILE = """
import json, sys
from taro_rt.kernels import plugin, plugin_attention
found = []
for capability in {capabilities}:
    for operator in plugin.ENTRIES:
        for warps in plugin.WARPS:
            code = plugin.compiled(operator, {kind!r}, {width}, capability, warps)
            found.append([operator, capability, warps, code.name, code.shared_bytes, code.ptx])
    for operator in plugin_attention.ATTENTION_ENTRIES if {heads} else ():
        for tiles in (plugin_attention.PLUGIN_TILES[k - 1] for k in plugin_attention.tactics(capability)):
            cut = ({kind!r}, {width}, {heads}, capability, tiles)
            code = plugin_attention.compiled_attention(operator, *cut)
            found.append([operator, capability, tiles.warps, code.name, code.shared_bytes, code.ptx])
print(json.dumps(found))
"""


def compiled(
    kind: str = "fp16", width: int = 768, capabilities: Any = CAPABILITIES, heads: int = 0
) -> list[Any]:
    """In a process of its own, where kernels are not those of the interpreter; attention's with `heads`."""
    import json

    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    code = COMPILE.format(capabilities=capabilities, kind=kind, width=width, heads=heads)
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return list(json.loads(ran.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def built() -> list[Any]:
    return compiled(heads=12)


def parameters(ptx: str) -> list[str]:
    """The kinds of an entry's parameters, in order."""
    found = re.search(r"\.visible \.entry \w+\((.*?)\n\)", ptx, re.DOTALL)
    assert found
    return re.findall(r"\.param \.(\w+)", found[1])


def test_every_entry_is_compiled_for_every_gpu(built: list[Any]) -> None:
    assert len(built) == 5 * (3 * 4 + 2 * len(PLUGIN_TILES))


def test_the_ptx_takes_inputs_then_integers_then_outputs_and_nothing_else(built: list[Any]) -> None:
    expected = {
        "ModulateStreams": ["u64"] * 3 + ["u32"] * 6 + ["u64"] * 2,
        "GateModulateStreams": ["u64"] * 5 + ["u32"] * 8 + ["u64"] * 4,
        "GateModulate": ["u64"] * 3 + ["u32"] * 6 + ["u64"] * 2,
        "AttendStreams": ["u64"] * 2 + ["u32"] * 3 + ["u64"] * 2,
        "Attend": ["u64"] * 2 + ["u32"] * 3 + ["u64"],
    }
    for operator, *_, ptx in built:
        assert parameters(ptx) == expected[operator], operator


def test_the_ptx_is_of_a_version_that_drivers_of_cuda_12_8_take(built: list[Any]) -> None:
    assert {re.search(r"\.version (\S+)", ptx)[1] for *_, ptx in built} == {"8.7"}  # type: ignore[index]


def test_gpus_that_the_older_ptx_does_not_know_get_the_newer() -> None:
    """With the older one the compiler ends the process, which no test of one process would outlive."""
    made = compiled(width=192, capabilities=((10, 3), (12, 1)), heads=6)
    assert {re.search(r"\.version (\S+)", ptx)[1] for *_, ptx in made} == {"8.8"}  # type: ignore[index]


@pytest.mark.parametrize(("kind", "width"), [("fp32", 768), ("fp16", 192), ("fp32", 192)])
def test_every_entry_is_compiled_for_the_embedded_width_and_for_float32(kind: str, width: int) -> None:
    assert len(compiled(kind, width, ((8, 0), (9, 0)))) == 2 * 3 * 4


def test_gpus_that_multiply_large_tiles_in_a_memory_of_their_own_get_the_small_ones() -> None:
    made = compiled(capabilities=((10, 0),), heads=12)
    assert sum("Attend" in operator for operator, *_ in made) == 2 * 2


def test_heads_that_the_kernel_does_not_take_are_refused() -> None:
    from taro_rt.kernels.plugin_attention import compiled_attention

    with pytest.raises(ValueError, match=r"expected heads of width .* got 192 values in 8 heads"):
        compiled_attention("Attend", "fp16", 192, 8, (9, 0), PLUGIN_TILES[0])


def test_a_gpu_that_is_not_known_is_refused_in_words() -> None:
    from taro_rt.kernels.plugin import compiled as compile_entry

    with pytest.raises(ValueError, match=r"expected a compute capability of .* got \(11, 0\)"):
        compile_entry("GateModulate", "fp16", 768, (11, 0), 4)


def test_entries_need_a_few_bytes_of_shared_memory_and_attention_what_a_plugin_can_have(
    built: list[Any],
) -> None:
    assert all(shared <= (48 << 10 if "Attend" in operator else 1024) for operator, *_, shared, _ in built)


def test_attention_multiplies_on_tensor_cores(built: list[Any]) -> None:
    assert all("mma" in ptx for operator, *_, ptx in built if "Attend" in operator)


@pytest.mark.parametrize("heads", [3, 6, 12])
def test_attention_is_compiled_for_the_embedded_width_and_other_heads(heads: int) -> None:
    made = compiled(width=192, capabilities=((8, 0), (9, 0)), heads=heads)
    assert sum("Attend" in operator for operator, *_ in made) == 2 * 2 * len(PLUGIN_TILES)


def test_the_changed_ptx_assembles_without_spills(built: list[Any], tmp_path: Path) -> None:
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    for k, (operator, capability, warps, _, _, ptx) in enumerate(built):
        if warps not in (1, 4) and "Attend" not in operator:
            continue
        source = tmp_path / f"{k}.ptx"
        source.write_text(ptx, "utf-8")
        tool = tools / ("ptxas-blackwell" if capability[0] >= 10 else "ptxas")
        target = re.search(r"\.target (\w+)", ptx)[1]  # type: ignore[index]
        said = subprocess.run(
            [tool, "-v", f"-arch={target}", source, "-o", source.with_suffix(".cubin")],
            capture_output=True, text=True,
        )  # fmt: skip
        assert said.returncode == 0, f"{operator}: {said.stderr[-500:]}"
        assert "0 bytes spill stores" in said.stderr, f"{operator}: {said.stderr[-500:]}"
        registers = int(re.search(r"Used (\d+) registers", said.stderr)[1])  # type: ignore[index]
        assert registers <= (255 if "Attend" in operator else 128), (
            f"{operator}: {registers} registers with {warps} warps"
        )


def test_rows_that_loads_of_16_bytes_do_not_fit_are_refused() -> None:
    from taro_rt.kernels.plugin import compiled as compile_entry

    with pytest.raises(ValueError, match="multiple of 16 bytes"):
        compile_entry("GateModulate", "fp16", 60, (9, 0), 4)


@pytest.mark.parametrize(
    ("name", "value"), [("shared", 49153), ("global_scratch_size", 1), ("num_ctas", 2), ("launch_pdl", True)]
)
def test_what_a_plugin_may_not_have_is_refused(name: str, value: Any) -> None:
    from types import SimpleNamespace

    from taro_rt.kernels.aot import check

    good = {
        "shared": 16,
        "global_scratch_size": 0,
        "profile_scratch_size": 0,
        "num_ctas": 1,
        "launch_pdl": False,
    }
    check("x", SimpleNamespace(**good))
    with pytest.raises(ValueError, match="a plugin"):
        check("x", SimpleNamespace(**{**good, name: value}))


def test_ptx_that_uses_a_scratch_pointer_is_refused() -> None:
    from taro_rt.kernels.aot import without_hidden

    ptx = ".visible .entry k(\n\t.param .u64 k_param_0,\n\t.param .u64 k_param_1\n)\n{\n ld [k_param_1];\n}"
    with pytest.raises(ValueError, match="does not use k_param_1"):
        without_hidden(ptx, 1)


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 3])
def test_the_entry_for_x_alone_is_the_reference(rows: int) -> None:
    from taro_rt.kernels import plugin
    from taro_rt.kernels.rows import EPS, Vectors, gate_modulate_streams_reference

    torch.manual_seed(0)
    with torch.device(DEVICE):
        x, update, modulation = torch.randn(2, 9, 32), torch.randn(2, 9, 32), torch.randn(2, rows, 7, 32)
    made, out = torch.full_like(x, float("nan")), torch.full_like(x, float("nan"))
    plugin.gate_modulate_x_entry[(9, 2)](
        x, update, modulation, 0, 9, rows, 7, 4, 1, made, out, D=32, BLOCK=32, EPS=EPS, num_warps=1
    )
    empty = x[:, :0]
    want = gate_modulate_streams_reference(empty, x, empty, update, modulation, Vectors(0, 1, 0, 4))
    assert torch.allclose(made, want[1], atol=1e-6)
    assert torch.allclose(out, want[3], atol=1e-5)


@pytest.mark.gpu
def test_the_entries_for_both_streams_are_the_references() -> None:
    from taro_rt.kernels import plugin
    from taro_rt.kernels.rows import (
        EPS,
        Vectors,
        gate_modulate_streams_reference,
        modulate_streams_reference,
    )

    torch.manual_seed(0)
    streams = [torch.randn(2, n, 32, device=DEVICE) for n in (4, 9, 4, 9)]
    modulation, at = torch.randn(2, 3, 12, 32, device=DEVICE), Vectors(2, 6, 1, 9)
    made = [torch.full_like(s, float("nan")) for s in streams]
    constants = {"D": 32, "BLOCK": 32, "EPS": EPS, "num_warps": 1}
    plugin.gate_modulate_entry[(13, 2)](*streams, modulation, 4, 9, 3, 12, 1, 2, 9, 6, *made, **constants)
    for got, want in zip(made, gate_modulate_streams_reference(*streams, modulation, at), strict=True):
        assert torch.allclose(got, want, atol=1e-5)
    plugin.modulate_entry[(13, 2)](*streams[:2], modulation, 4, 9, 3, 12, 2, 6, *made[:2], **constants)
    for got, want in zip(made[:2], modulate_streams_reference(*streams[:2], modulation, at), strict=True):
        assert torch.allclose(got, want, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(("n", "m"), [(4, 9), (32, 40), (1, 33)])
def test_the_entries_for_attention_are_the_reference(n: int, m: int) -> None:
    from taro_rt.kernels import plugin_attention
    from taro_rt.kernels.attention import joint_attention_reference

    torch.manual_seed(0)
    heads, d, tiles = 2, 32, PLUGIN_TILES[3]
    context, x = (torch.randn(2, k, 3 * d, device=DEVICE).half() for k in (n, m))
    made = [torch.full((2, k, d), float("nan"), device=DEVICE).half() for k in (n, m)]
    scale = 1.4426950408889634 / (d // heads) ** 0.5
    constants = {
        "D": d, "HEAD": d // heads, "SCALE": scale, "QUERIES": tiles.queries, "KEYS": tiles.keys,
        "num_warps": tiles.warps,
    }  # fmt: skip
    programs, of_x = -(-n // tiles.queries), -(-m // tiles.queries)
    plugin_attention.attend_streams_entry[(programs + of_x, 2 * heads)](
        context, x, n, m, heads, *made, **constants
    )
    for got, want in zip(made, joint_attention_reference(context, x, heads), strict=True):
        torch.testing.assert_close(got, want, atol=2e-3, rtol=2e-3)
    alone = torch.full_like(made[1], float("nan"))
    of_context = context[..., d:].contiguous()
    plugin_attention.attend_entry[(of_x, 2 * heads)](of_context, x, n, m, heads, alone, **constants)
    want = joint_attention_reference(of_context, x, heads)[1]
    torch.testing.assert_close(alone, want, atol=2e-3, rtol=2e-3)
