"""Broadcast WAV (EBU Tech 3285): a sound that knows its time of day, with a named cue point per onset.

The samples are those of `write_wav`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from taro_rt.engines.contract import Array
from taro_rt.runtime.onsets import Onset
from taro_rt.runtime.wav import LARGEST_WAV

FULL_SCALE = 32768
"""Samples are rounded down and 1.0 is cut, as libsndfile does, so that both writers give the same ones."""
UNKNOWN = 0xFFFFFFFF
"""A size of 32 bits that RF64 states in 64 elsewhere."""


def write_bwf(
    path: Path,
    blocks: Iterable[Array],
    shape: tuple[int, int],
    rate_hz: int,
    time_reference: int,
    description: str,
    onsets: Sequence[Onset] = (),
) -> None:
    """Write blocks [channels, n] within full scale, together of `shape` [channels, samples], in 16 bits.

    `time_reference` is the first sample's, counted from midnight; onset times count from the first sample.
    What RIFF cannot count becomes RF64. Raises OSError.
    """
    channels, n_samples = shape
    width, mode = 2 * channels, {1: "mono", 2: "stereo"}.get(channels, "multitrack")
    n_bytes = width * n_samples
    history = f"A=PCM,F={rate_hz},W=16,M={mode},T=taro-rt\r\n"
    head = _chunk(b"bext", _bext(description, time_reference, history))
    head += _chunk(b"fmt ", struct.pack("<HHIIHH", 1, channels, rate_hz, width * rate_hz, width, 16))
    tail = _cues(onsets, n_samples, rate_hz)
    is_large = n_bytes + len(head) + len(tail) >= LARGEST_WAV
    n_riff = 4 + len(head) + 8 + n_bytes + len(tail) + (36 if is_large else 0)
    with path.open("wb") as file:
        if is_large:
            file.write(struct.pack("<4sI4s", b"RF64", UNKNOWN, b"WAVE"))
            file.write(_chunk(b"ds64", struct.pack("<QQQI", n_riff, n_bytes, n_samples, 0)))
        else:
            file.write(struct.pack("<4sI4s", b"RIFF", n_riff, b"WAVE"))
        file.write(head + struct.pack("<4sI", b"data", UNKNOWN if is_large else n_bytes))
        for block in blocks:
            scaled = np.floor(block.T * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1)
            file.write(scaled.astype("<i2").tobytes())
        file.write(tail)


def _bext(description: str, time_reference: int, history: str) -> bytes:
    """Version 1. Without a date: the same sound makes the same file. Even, since libsndfile looks for the
    next chunk of RF64 without the byte that pads an odd one.
    """
    text = description.encode("ascii", "replace")[:256]
    return struct.pack(
        "<256s32s32s10s8sQH64s190s", text, b"taro-rt", b"", b"", b"", time_reference, 1, b"", b""
    ) + history.encode("ascii").ljust(len(history) + len(history) % 2, b"\0")


def _cues(onsets: Sequence[Onset], n_samples: int, rate_hz: int) -> bytes:
    """A cue point per onset, and the list of their labels."""
    if not onsets:
        return b""
    points, labels = [struct.pack("<I", len(onsets))], [b"adtl"]
    for number, onset in enumerate(onsets, 1):
        at = min(round(onset.time_s * rate_hz), n_samples - 1)
        points.append(struct.pack("<II4sIII", number, at, b"data", 0, 0, at))
        label = f"onset {number} ({onset.strength:.2f})".encode("ascii") + b"\0"
        labels.append(_chunk(b"labl", struct.pack("<I", number) + label))
    return _chunk(b"cue ", b"".join(points)) + _chunk(b"LIST", b"".join(labels))


def _chunk(name: bytes, data: bytes) -> bytes:
    """Chunks begin at even bytes."""
    return struct.pack("<4sI", name, len(data)) + data + b"\0" * (len(data) % 2)
