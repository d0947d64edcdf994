"""Published checkpoints: every layout they come in, and every way in which they can be wrong."""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from make_released import make_released, tiny_released_config, tiny_states
from released import (
    save,
    split_weight_norm,
    write_diffusers,
    write_onset,
    write_transformer,
    write_visual,
)
from safetensors.torch import save_file

from taro_rt.export.checkpoints import State, read_released
from taro_rt.export.layouts import ATTENTION_NAMES, Released, vae_config, vocoder_config

CONFIG = tiny_released_config()


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    return tiny_states()


@pytest.fixture
def files(tmp_path: Path) -> Released:
    return make_released(tmp_path / "released")


def loaded(files: Released) -> dict[str, State]:
    networks = read_released(files, CONFIG).networks
    return {name: dict(net.state_dict()) for name, net in networks.by_name().items()}


def assert_holds(net: State, expected: State, atol: float = 0.0) -> None:
    assert net
    for key, value in net.items():
        torch.testing.assert_close(value, expected[key].to(value.dtype), rtol=0, atol=atol, msg=key)


def test_every_network_gets_the_tensors_of_its_file(files: Released, states: dict[str, State]) -> None:
    nets = loaded(files)
    for name, net in nets.items():
        assert_holds(net, states["vae" if name == "decoder" else name])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_visual_encoder_is_read_with_and_without_the_wrapper_of_its_training(
    files: Released, states: dict[str, State], prefix: str
) -> None:
    write_visual(files.visual, states["visual"], prefix)
    assert_holds(loaded(files)["visual"], states["visual"])


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_the_onset_network_is_read_with_and_without_the_wrappers_of_its_training(
    files: Released, states: dict[str, State], prefix: str
) -> None:
    write_onset(files.onset, states["onset"], prefix)
    assert_holds(loaded(files)["onset"], states["onset"])


@pytest.mark.parametrize("name", ["transformer", "visual", "onset"])
def test_tensors_at_the_root_of_a_file_are_found(
    files: Released, states: dict[str, State], name: str
) -> None:
    save(files.taro if name == "transformer" else getattr(files, name), states[name])
    assert_holds(loaded(files)[name], states[name])


def test_the_averaged_weights_are_taken_and_not_the_raw_ones(
    files: Released, states: dict[str, State]
) -> None:
    raw = {key: torch.zeros_like(value) for key, value in states["transformer"].items()}
    save(files.taro, {"model": raw, "ema": states["transformer"], "steps": 1})
    assert_holds(loaded(files)["transformer"], states["transformer"])


@pytest.mark.parametrize(
    ("length", "direction"),
    [
        (".weight_g", ".weight_v"),
        (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    ],
)
def test_weight_norm_is_folded(
    files: Released, states: dict[str, State], length: str, direction: str
) -> None:
    split = split_weight_norm(states["vocoder"], length, direction)
    write_diffusers(files.audioldm2 / "vocoder" / "model.safetensors", split, vocoder_config(CONFIG))
    assert_holds(loaded(files)["vocoder"], states["vocoder"], atol=1e-6)


def test_older_names_of_the_vaes_attention_are_understood(files: Released, states: dict[str, State]) -> None:
    def older(key: str) -> str:
        for old, new in ATTENTION_NAMES.items():
            key = key.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        return key

    renamed = {older(key): value for key, value in states["vae"].items()}
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in renamed
    path = files.audioldm2 / "vae" / "diffusion_pytorch_model.safetensors"
    write_diffusers(path, renamed, vae_config(CONFIG))
    assert_holds(loaded(files)["decoder"], states["vae"])


def test_pickled_weights_serve_where_a_folder_has_no_safetensors(
    files: Released, states: dict[str, State]
) -> None:
    shutil.rmtree(files.audioldm2)
    write_diffusers(
        files.audioldm2 / "vae" / "diffusion_pytorch_model.bin", states["vae"], vae_config(CONFIG)
    )
    write_diffusers(
        files.audioldm2 / "vocoder" / "pytorch_model.bin", states["vocoder"], vocoder_config(CONFIG)
    )
    assert_holds(loaded(files)["vocoder"], states["vocoder"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_widened(
    files: Released, states: dict[str, State], dtype: torch.dtype
) -> None:
    narrow = {key: value.to(dtype) for key, value in states["transformer"].items()}
    write_transformer(files.taro, narrow)
    assert_holds(loaded(files)["transformer"], narrow)


def test_files_of_pytorch_before_1_6_are_read(files: Released, states: dict[str, State]) -> None:
    torch.save({"state_dict": states["visual"]}, files.visual, _use_new_zipfile_serialization=False)
    assert_holds(loaded(files)["visual"], states["visual"])


def test_what_only_training_needs_is_named(files: Released) -> None:
    read = read_released(files, CONFIG)
    assert read.skipped["transformer (taro_ckpt.pt)"] == (
        "model",
        "opt",
        "args",
        "steps",
        "projectors.* (1 tensors)",
    )
    assert "spec_encoder.* (1 tensors)" in read.skipped["visual (cavp_epoch66.ckpt)"]
    assert "optimizer_states" in read.skipped["onset (onset_model.ckpt)"]
    assert any(
        name.startswith("encoder.*") for name in read.skipped["decoder (diffusion_pytorch_model.safetensors)"]
    )
    assert len(set(read.sha256.values())) == 5


def test_arguments_of_the_training_are_plain_enough(files: Released, states: dict[str, State]) -> None:
    save(files.onset, {"state_dict": states["onset"], "args": argparse.Namespace(rate=1e-4, layers=[1, 2])})
    assert_holds(loaded(files)["onset"], states["onset"])


def test_where_the_tensors_were_taken_from_is_told(files: Released, states: dict[str, State]) -> None:
    assert read_released(files, CONFIG).taken["transformer (taro_ckpt.pt)"] == "entry 'ema'"
    save(files.taro, states["transformer"])
    assert read_released(files, CONFIG).taken["transformer (taro_ckpt.pt)"] == "the root of the file"


def test_files_of_one_name_are_told_apart(files: Released) -> None:
    files.visual.parent.joinpath("a").mkdir()
    moved = replace(files, visual=files.visual.rename(files.visual.parent / "a" / files.onset.name))
    sha256 = read_released(moved, CONFIG).sha256
    assert sha256["visual (onset_model.ckpt)"] != sha256["onset (onset_model.ckpt)"]


def test_safetensors_are_known_by_their_content(files: Released, states: dict[str, State]) -> None:
    written = files.onset.with_suffix(".safetensors")
    save_file({key: value.contiguous() for key, value in states["onset"].items()}, written)
    os.replace(written, files.onset)
    assert_holds(loaded(files)["onset"], states["onset"])


def test_statistics_of_the_vocoder_are_named_and_left(files: Released) -> None:
    assert "mean (1 tensors)" in read_released(files, CONFIG).skipped["vocoder (model.safetensors)"]
