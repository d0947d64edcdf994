"""Published checkpoints: every layout they come in, and every way in which they can be wrong."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
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

from taro_rt.engines.errors import CheckpointError
from taro_rt.engines.nets.config import PUBLISHED
from taro_rt.export.checkpoints import (
    ATTENTION_NAMES,
    Released,
    State,
    read_released,
    vae_config,
    vocoder_config,
)

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
    assert read.skipped["taro_ckpt.pt"] == ("model", "opt", "args", "steps", "projectors.* (1 tensors)")
    assert "spec_encoder.* (1 tensors)" in read.skipped["cavp_epoch66.ckpt"]
    assert "optimizer_states" in read.skipped["onset_model.ckpt"]
    assert any(
        name.startswith("encoder.*") for name in read.skipped["vae/diffusion_pytorch_model.safetensors"]
    )
    assert len(set(read.sha256.values())) == 5


class Trap:
    """A pickle of it writes a file when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(files: Released, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    save(files.onset, {"state_dict": {}, "hyper_parameters": Trap(touched)})
    with pytest.raises(
        CheckpointError, match=r"onset_model\.ckpt: expected tensors, plain containers .* got"
    ):
        read_released(files, CONFIG)
    assert not touched.exists()


def test_arguments_of_the_training_are_plain_enough(files: Released, states: dict[str, State]) -> None:
    save(files.onset, {"state_dict": states["onset"], "args": argparse.Namespace(rate=1e-4, layers=[1, 2])})
    assert_holds(loaded(files)["onset"], states["onset"])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["taro", "visual", "onset", "vae", "vocoder"])
def test_a_truncated_file_is_named(files: Released, name: str) -> None:
    folder = files.audioldm2 / name
    path = next(folder.glob("*.safetensors")) if folder.is_dir() else getattr(files, name)
    truncate(path)
    with pytest.raises(CheckpointError, match=rf"{path.name}: expected a whole checkpoint"):
        read_released(files, CONFIG)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_is_named(files: Released, content: bytes) -> None:
    files.taro.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"taro_ckpt\.pt: "):
        read_released(files, CONFIG)


def test_swapped_files_are_recognised(files: Released) -> None:
    swapped = replace(files, visual=files.onset, onset=files.visual)
    with pytest.raises(CheckpointError) as caught:
        read_released(swapped, CONFIG)
    assert "onset_model.ckpt: expected the CAVP visual encoder, got the SyncFusion onset" in str(caught.value)
    assert "cavp_epoch66.ckpt: expected the SyncFusion onset network, got the CAVP visual" in str(
        caught.value
    )


def test_every_tensor_that_does_not_fit_is_listed_with_its_file_at_once(
    files: Released, states: dict[str, State]
) -> None:
    visual, onset = dict(states["visual"]), dict(states["onset"])
    del visual["video_project_head.bias"]
    visual["video_extra.weight"] = torch.zeros(2)
    onset["fc.2.bias"] = torch.zeros(3)
    write_visual(files.visual, visual)
    write_onset(files.onset, onset)
    with pytest.raises(CheckpointError) as caught:
        read_released(files, CONFIG)
    message = str(caught.value)
    assert "cavp_epoch66.ckpt: 2 tensors do not fit (1 missing, 1 unexpected, 0 of another shape" in message
    assert "missing video_project_head.bias" in message
    assert "unexpected video_extra.weight" in message
    assert "onset_model.ckpt: 1 tensors do not fit" in message
    assert "fc.2.bias: expected shape [1], got [3]" in message


def test_a_checkpoint_of_another_width_is_refused(files: Released) -> None:
    with pytest.raises(CheckpointError, match=r"x_embedder\.proj\.bias: expected shape \[768\], got \[64\]"):
        read_released(files, PUBLISHED)


def test_a_training_file_without_averaged_weights_is_refused(files: Released) -> None:
    save(files.taro, {"weights": {"a": torch.zeros(1)}, "steps": 1})
    with pytest.raises(CheckpointError, match="in the entry 'ema', got weights, steps"):
        read_released(files, CONFIG)


@pytest.mark.parametrize("name", ["vae", "vocoder"])
def test_a_folder_without_its_config_is_refused(files: Released, name: str) -> None:
    (files.audioldm2 / name / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: expected the config of these weights"):
        read_released(files, CONFIG)


def test_a_folder_without_weights_is_refused(files: Released) -> None:
    (files.audioldm2 / "vocoder" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"vocoder: expected the weights as one of"):
        read_released(files, CONFIG)


def test_a_config_that_promises_another_network_is_refused(files: Released) -> None:
    path = files.audioldm2 / "vocoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "leaky_relu_slope": 0.2}))
    with pytest.raises(CheckpointError, match=r"leaky_relu_slope: expected 0\.1, got 0\.2"):
        read_released(files, CONFIG)


def test_a_missing_file_is_named(files: Released) -> None:
    files.visual.unlink()
    with pytest.raises(CheckpointError, match=r"cavp_epoch66\.ckpt: expected a checkpoint, got No such file"):
        read_released(files, CONFIG)
