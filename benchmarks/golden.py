"""The deterministic rule behind the golden vectors: weights and inputs of every network from one seed.

Stands in for trained weights wherever numbers must be reproducible (spec: golden vectors, sections 1 to 3).
Everything is drawn in float64, one generator per name, and cast to float32 once.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
import torch

from taro_rt.engines.contract import Array
from taro_rt.engines.nets.config import PUBLISHED, NetworkConfig, TransformerConfig
from taro_rt.engines.nets.networks import Networks
from taro_rt.engines.nets.tables import position_table
from taro_rt.engines.nets.vae import Vae

if TYPE_CHECKING:  # it reads files with packages that drawing numbers does not need
    from taro_rt.export.checkpoints import State

NETS = ("transformer", "visual", "onset", "vae", "vocoder")
DEPTHS = {
    4: replace(PUBLISHED, transformer=TransformerConfig(depth=4, width=256, heads=4)),
    12: PUBLISHED,
}
"""The sizes fixtures are made with: as published, and the same with a small transformer."""

ALIGNED = (416, 2048, 768)
"""Tokens of the audio encoder that training aligns to, hidden width, width of a token (spec B8)."""

DAMPED = {"visual": "conv3.bn.weight", "onset": "conv2.1.weight"}
"""Norms that end a residual branch; damping them keeps deep sums of random branches bounded."""

ROOT_2 = math.sqrt(2)
GAINS = {
    "transformer": {"context_embedder.weight": math.sqrt(512), "[ty]_embedder.mlp.[02].weight": 1.5, "*": 1},
    "visual": {"video_project_head.weight": 1, "*": ROOT_2},
    "onset": {"*": ROOT_2},
    "vae": {
        "*to_[qkv].weight": 1,
        "*to_out.0.weight": 1,
        "encoder.conv_out.weight": 1,
        "decoder.conv_out.weight": 1,
        "*": ROOT_2,
    },
    "vocoder": {
        "conv_pre.weight": 1,
        "conv_post.weight": 0.5,
        "resblocks.*.convs2.*.weight": 0.5,
        "*": ROOT_2,
    },
}
"""Gain of every matrix and kernel; the first pattern that fits its key counts."""

# fmt: off
BFLOAT16_TIMES = np.array(
    [
        1.0, 0.9609375, 0.921875, 0.87890625, 0.83984375, 0.80078125, 0.7578125, 0.71875, 0.6796875, 0.640625,
        0.6015625, 0.55859375, 0.51953125, 0.48046875, 0.44140625, 0.3984375, 0.359375, 0.3203125, 0.28125,
        0.240234375, 0.2001953125, 0.16015625, 0.1201171875, 0.080078125, 0.0400390625, 0.0,
    ],
    np.float32,
)
"""The grid of the released script (spec B5)."""
# fmt: on


def rng(name: str, seed: int) -> np.random.Generator:
    """The generator of one name."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) ^ seed))


def states(config: NetworkConfig, seed: int) -> dict[str, State]:
    """The weights of all networks of `config`, what only training needs included."""
    return {net: weights(net, config, seed) for net in NETS}


def weights(net: str, config: NetworkConfig, seed: int) -> State:
    """The weights of one network by canonical key."""
    found = shapes(net, config)
    with ThreadPoolExecutor() as threads:  # each tensor has a generator of its own, which lets others go on
        drawn = threads.map(lambda key: tensor(net, key, found[key], config, seed), found)
        return {key: torch.from_numpy(values) for key, values in zip(found, drawn, strict=True)}


def shapes(net: str, config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the released tensors by canonical key."""
    with torch.device("meta"):
        built = {**Networks.build(config).by_name(), "vae": Vae(config.vae, config.latent_scale)}
    found = {key: tuple(value.shape) for key, value in built[net].state_dict().items()}
    return {**found, **unused_shapes(net, config)}


def unused_shapes(net: str, config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """What our networks lack, as inference does not need it: the alignment head, the vocoder's statistics."""
    if net == "transformer":
        return alignment_shapes(config)
    return dict.fromkeys(("mean", "scale"), (config.vocoder.mel_bins,)) if net == "vocoder" else {}


def alignment_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """The alignment head (spec B8)."""
    rows, columns = grid(config)
    tokens, hidden, width = ALIGNED
    layers = {
        "0": (tokens, rows * columns, 1),
        "2": (hidden, config.transformer.width),
        "4": (hidden, hidden),
        "6": (width, hidden),
    }
    found: dict[str, tuple[int, ...]] = {}
    for i, shape in layers.items():
        found[f"projectors.0.{i}.weight"] = shape
        found[f"projectors.0.{i}.bias"] = shape[:1]
    return found


def grid(config: NetworkConfig) -> tuple[int, int]:
    """Rows and columns of the latents' patches."""
    geometry, (height, width) = config.geometry(), config.transformer.patch
    return geometry.latent_frames // height, geometry.latent_bins // width


def tensor(
    net: str, key: str, shape: tuple[int, ...], config: NetworkConfig, seed: int
) -> np.typing.NDArray[np.float32 | np.int64]:
    """One tensor of one network (section 2); the first rule that applies."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key == "pos_embed":
        return position_table(config.transformer.width, *grid(config)).unsqueeze(0).numpy()
    if net == "vocoder" and key in ("mean", "scale"):
        return np.full(shape, key == "scale", np.float32)
    n = rng(f"{net}:{key}", seed).standard_normal(shape)
    if key.endswith("running_mean"):
        n = 0.1 * n
    elif key.endswith("running_var"):
        n = 0.5 + np.abs(n)
    elif len(shape) == 1 and key.endswith(".weight"):  # scale of a norm
        n = 1 + 0.1 * n
        if net in DAMPED and key.endswith(DAMPED[net]):
            n = n * 0.4
    elif len(shape) <= 1:
        n = 0.05 * n
    else:
        n = n * (gain(net, key) / math.sqrt(fan_in(net, key, shape, config)))
    return n.astype(np.float32)


def gain(net: str, key: str) -> float:
    return next(gain for pattern, gain in GAINS[net].items() if fnmatchcase(key, pattern))


def fan_in(net: str, key: str, shape: tuple[int, ...], config: NetworkConfig) -> float:
    """Inputs of one output; a transposed convolution of kernel k reaches each output k / stride times."""
    if net == "vocoder" and key.startswith("upsampler."):
        return shape[0] * shape[2] / config.vocoder.strides[int(key.split(".")[1])]
    return math.prod(shape[1:])


def sha256(state: State) -> str:
    """Over every key in sorted order: the key, then its values as little-endian bytes."""
    digest = hashlib.sha256()
    for key in sorted(state):
        values = state[key].numpy()
        digest.update(key.encode())
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def normal(name: str, shape: tuple[int, ...], seed: int) -> Array:
    """Standard normal values."""
    return rng(f"input:{name}", seed).standard_normal(shape).astype(np.float32)


def blocky(name: str, shape: tuple[int, ...], cell: int, seed: int) -> Array:
    """Pictures [..., h, w] in [0, 1]: random squares of `cell` pixels and some noise."""
    *leading, height, width = shape
    generator = rng(f"input:{name}", seed)
    cells = generator.random((*leading, height // cell, width // cell))
    pixels = cells.repeat(cell, axis=-2).repeat(cell, axis=-1)
    pixels += 0.05 * generator.standard_normal(shape)
    return np.clip(pixels, 0, 1).astype(np.float32)


def latents(seed: int) -> Array:
    """What every trajectory starts from, [1, 8, 204, 16]."""
    return normal("latents", (1, 8, 204, 16), seed)


def noise(step: int, seed: int) -> Array:
    """Noise of one step of the SDE, shaped like the latents."""
    return normal(f"noise.{step}", (1, 8, 204, 16), seed)


def onset(seed: int) -> Array:
    """Onset values [1, 120]."""
    return normal("onset_feats", (1, 120), seed)


def context(seed: int) -> Array:
    """Visual features [1, 32, 512], each of length 1."""
    rows = normal("context", (1, 32, 512), seed).astype(np.float64)
    return (rows / np.sqrt((rows**2).sum(axis=-1, keepdims=True))).astype(np.float32)
