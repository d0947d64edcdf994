"""Published checkpoints that are damaged, swapped, dangerous or unfit: each ends in one error that tells."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from make_released import make_released, tiny_released_config, tiny_states
from released import save, split_weight_norm, write_diffusers, write_onset, write_visual

from taro_rt.engines.errors import CheckpointError
from taro_rt.engines.nets.config import PUBLISHED
from taro_rt.export.checkpoints import State, read_released
from taro_rt.export.layouts import LAYOUTS, Released, vocoder_config
from taro_rt.export.unpickle import read_file

CONFIG = tiny_released_config()


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    return tiny_states()


@pytest.fixture
def files(tmp_path: Path) -> Released:
    return make_released(tmp_path / "released")


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


def test_code_in_a_file_of_an_old_pytorch_is_refused_and_named(files: Released, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    content = {"state_dict": {}, "hyper_parameters": Trap(touched)}
    torch.save(content, files.onset, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"got also .*pathlib\.Path.*: refused, as unpickling"):
        read_released(files, CONFIG)
    assert not touched.exists()


@pytest.mark.parametrize("name", ["taro", "visual", "onset", "vae", "vocoder"])
def test_a_truncated_file_is_named(files: Released, name: str) -> None:
    folder = files.audioldm2 / name
    path = next(folder.glob("*.safetensors")) if folder.is_dir() else getattr(files, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=rf"{path.name}: expected a whole checkpoint"):
        read_released(files, CONFIG)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_or_altered_anywhere_is_an_error_or_a_dict_and_never_a_crash(
    tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / "a.ckpt"
    content = {"state_dict": {f"layer.{i}.weight": torch.ones(3, 2) for i in range(4)}, "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for trial in range(400):
        damaged = bytearray(whole)
        if trial % 2:
            del damaged[rng.integers(len(whole)) :]
        else:
            for at in rng.integers(0, len(whole), 3):
                damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_file(path)
        except CheckpointError:
            refused += 1
    assert refused > 150


UNUSABLE = {
    "complex": (lambda w: w.to(torch.complex64), "expected floating-point values, got torch.complex64"),
    "integers": (lambda w: w.to(torch.int8), "expected floating-point values, got torch.int8"),
    "sparse": (lambda w: w.to_sparse(), "expected a dense tensor"),
    "without-values": (lambda w: w.to("meta"), "expected a dense tensor"),
    "not-a-number": (lambda w: w / 0 * 0, "expected finite values, got NaN or infinity"),
    "repeated": (lambda w: torch.zeros(1).expand(w.shape), "expected values of its own"),
    "text": (lambda w: "weight", "expected a tensor, got str"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_values_that_are_no_weights_are_refused_with_their_keys_all_at_once(
    files: Released, states: dict[str, State], kind: str
) -> None:
    change, message = UNUSABLE[kind]
    altered = {**states["onset"]}
    for key in ("fc.0.weight", "fc.2.weight"):
        altered[key] = change(altered[key])
    write_onset(files.onset, altered)
    with pytest.raises(CheckpointError) as caught:
        read_released(files, CONFIG)
    assert "onset_model.ckpt: 2 tensors cannot be used" in str(caught.value)
    assert f"model.fc.0.weight: {message}" in str(caught.value)


def test_a_tensor_given_twice_is_refused(files: Released, states: dict[str, State]) -> None:
    twice = {**states["onset"], "model.fc.2.bias": states["onset"]["fc.2.bias"]}
    save(files.onset, {"state_dict": twice})
    with pytest.raises(CheckpointError, match=r"model\.fc\.2\.bias: is given twice"):
        read_released(files, CONFIG)


def test_a_length_that_fits_no_direction_is_refused(files: Released, states: dict[str, State]) -> None:
    split = split_weight_norm(states["vocoder"], ".weight_g", ".weight_v")
    split["conv_pre.weight_g"] = torch.ones(3, 1, 1)
    write_diffusers(files.audioldm2 / "vocoder" / "model.safetensors", split, vocoder_config(CONFIG))
    with pytest.raises(CheckpointError, match=r"conv_pre: expected a direction .* and a length per row"):
        read_released(files, CONFIG)


def test_keys_that_are_no_text_do_no_harm(files: Released, states: dict[str, State]) -> None:
    save(files.taro, {"ema": states["transformer"], 7: 8})  # type: ignore[dict-item]
    assert "7" in read_released(files, CONFIG).skipped["transformer (taro_ckpt.pt)"]


NOTHING = [b"", b"not a checkpoint at all", b"\x80\x02}q\x00.", pickle.dumps({1: 2}, 2)]


@pytest.mark.parametrize("content", NOTHING)
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


@pytest.mark.parametrize("name", ["visual", "onset"])
def test_the_transformer_in_the_place_of_another_is_recognised(files: Released, name: str) -> None:
    shutil.copyfile(files.taro, getattr(files, name))
    with pytest.raises(
        CheckpointError, match=rf"expected the {LAYOUTS[name].what}, got the TARO transformer"
    ):
        read_released(files, CONFIG)


def test_a_pipe_or_a_folder_is_no_checkpoint(files: Released, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(CheckpointError, match="expected a checkpoint, got another kind of thing"):
            read_released(replace(files, onset=path), CONFIG)


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


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000])
def test_a_config_that_is_none_is_refused(files: Released, content: str) -> None:
    (files.audioldm2 / "vae" / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json: expected a JSON object"):
        read_released(files, CONFIG)


def test_a_missing_file_is_named(files: Released) -> None:
    files.visual.unlink()
    with pytest.raises(CheckpointError, match=r"cavp_epoch66\.ckpt: expected a checkpoint, got No such file"):
        read_released(files, CONFIG)
