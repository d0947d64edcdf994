"""What of a sound survives the bundle's VAE and vocoder, before anything is generated: figures to listen by.

python -m taro_rt.training.reconstruction [--bundle default] [--output record.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from taro_rt.engines.backends import Engines, load_engines
from taro_rt.engines.bundle import Bundle
from taro_rt.engines.contract import Array
from taro_rt.engines.nets.config import NetworkConfig
from taro_rt.engines.nets.vae import Vae
from taro_rt.training import metrics
from taro_rt.training.clips import HELD_OUT, sound
from taro_rt.training.data import scene_of
from taro_rt.training.evaluate import FIRST_TEST_ROW
from taro_rt.training.kept import kept
from taro_rt.training.mel import N_FFT, LogMel
from taro_rt.training.scenes import KINDS
from taro_rt.training.scores import FRAMES, Judges, mel_of


def compare(own: list[Array], made: list[Array]) -> dict[str, float]:
    """Means over sounds at 16 kHz [n] of what tells two of them apart.

    `spectral_convergence` is ||A - B|| / ||A|| of STFT magnitudes (1024 samples); `spectral_snr_db` the same
    in decibels; `waveform_snr_db` also counts phase, which no vocoder is told.
    """
    rows = []
    for a, b in zip(own, made, strict=True):
        n = min(len(a), len(b))
        a, b = a[:n], b[:n]
        difference = float(np.linalg.norm(magnitude(a) - magnitude(b)))
        convergence = difference / max(float(np.linalg.norm(magnitude(a))), 1e-9)
        snr_db = 10 * np.log10(float(np.square(a).sum()) / max(float(np.square(a - b).sum()), 1e-12))
        mel_error = np.abs(mel_of(a) - mel_of(b)).mean()
        rows.append(
            (convergence, -20 * np.log10(max(convergence, 1e-9)), snr_db, 20 / np.log(10) * mel_error)
        )
    names = ("spectral_convergence", "spectral_snr_db", "waveform_snr_db", "log_mel_error_db")
    return dict(zip(names, np.mean(rows, 0).tolist(), strict=True))


def magnitude(samples: Array) -> Array:
    """STFT magnitudes of a sound [n]."""
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(torch.from_numpy(samples), N_FFT, N_FFT // 4, window=window, return_complex=True)
    return np.asarray(spectrum.abs().numpy())


@torch.inference_mode()
def reconstructed(engines: Engines, vae: Vae, samples: Array) -> tuple[Array, Array]:
    """A sound [n] by the vocoder from its own mel, and from the mel that the VAE gives back."""
    mel = LogMel()(torch.from_numpy(samples)[None])[:, :FRAMES]
    mean, _ = vae.moments(mel)
    decoded = engines.decoder(latents=(vae.latent_scale * mean).numpy())["mel"]
    return tuple(engines.vocoder(mel=np.ascontiguousarray(m))["wave"][0] for m in (mel.numpy(), decoded))


def figures(engines: Engines, config: NetworkConfig, rows: range) -> dict[str, object]:
    """The record's figures for the sounds of held-out clips."""
    vae = Vae(config.vae, config.latent_scale)
    vae.load_state_dict(kept("vae"))
    scenes = [scene_of(HELD_OUT + row) for row in rows]
    own = [np.asarray(sound(scene), np.float32) for scene in scenes]
    kinds = np.array([KINDS.index(scene.kind) for scene in scenes])
    pairs = [reconstructed(engines, vae, samples) for samples in own]
    judges = Judges.read()
    _, real_judged, real_taught = judges.hear(np.stack([mel_of(samples) for samples in own]))
    record: dict[str, object] = {}
    for name, made in zip(("vocoder", "vae_and_vocoder"), map(list, zip(*pairs, strict=True)), strict=True):
        chances, judged, taught = judges.hear(np.stack([mel_of(samples) for samples in made]))
        record[name] = {
            **compare(own, made),
            "class_accuracy": metrics.accuracy(chances, kinds),
            "fd": metrics.frechet(taught, real_taught),
            "fad": metrics.frechet(judged, real_judged),
        }
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--clips", type=int, default=140)
    parser.add_argument("--output", type=Path, help="write the record here as JSON")
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    rows = range(FIRST_TEST_ROW, FIRST_TEST_ROW + args.clips)
    engines = load_engines(bundle, "onnxruntime")
    record = {
        "clips": args.clips,
        "first_row": FIRST_TEST_ROW,
        "vocoder_sha256": bundle.manifest.files["vocoder.safetensors"].sha256,
        **figures(engines, bundle.manifest.networks, rows),
    }
    text = json.dumps(record, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
