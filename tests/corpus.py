"""Hostile input: small real videos and manifests, and endlessly many broken versions of them.

Everything follows from a seed. Crafted cases have a name each; `mutated` gives as many more as are wanted.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from media import burst, encode, numbered, remux, turn, with_data

FRAMES = numbered(14, 64, 48)
MAKES_DATA = tuple(map(int, av.__version__.split(".")[:2])) >= (16, 1)
MARKS = (b"tkhd", b"mvhd", b"mdhd", b"stts", b"ctts", b"stsz", b"stco", b"stsc", b"stsd", b"avc1", b"elst")
MARKS += (b"\x1a\x45\xdf\xa3", b"\x16\x54\xae\x6b", b"\x15\x49\xa9\x66", b"strh", b"strf", b"avih", b"idx1")
"""What headers begin with: mutations strike behind these more often than elsewhere."""
EXTREMES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x00010000, 0x7FC00000)
"""As 32 bits: bounds of integers, and a float that is no number."""


def make_seeds(folder: Path) -> list[Path]:
    """Small whole videos of many containers and codecs, some with sound, one with telemetry."""
    sound = burst(0.56, 0.2)
    whole = encode(folder / "whole.mp4", FRAMES, b_frames=2, gop=14)
    extra = [with_data(whole, folder / "data.mp4", "bin_data")] if MAKES_DATA else []
    return [
        *extra,
        encode(folder / "a.mp4", FRAMES, sound=sound, options={"movflags": "faststart"}),
        encode(folder / "b.mp4", FRAMES, b_frames=2, sound=sound),
        remux(whole, folder / "cut.mp4", shift_s=-0.2),
        turn(encode(folder / "turned.mov", FRAMES), 1),
        encode(folder / "a.mkv", FRAMES, b_frames=2, sound=sound),
        encode(folder / "a.webm", FRAMES, codec="libvpx", sound=sound),
        encode(folder / "a.avi", FRAMES, codec="mpeg4", time_base=Fraction(1, 25)),
        encode(folder / "a.ts", FRAMES, b_frames=2),
        encode(folder / "a.flv", FRAMES, time_base=Fraction(1, 1000)),
        encode(folder / "a.gif", FRAMES, codec="gif", pix_fmt="gray", fps=10, time_base=Fraction(1, 100)),
        encode(folder / "a.h264", FRAMES, time_base=Fraction(1, 25)),
        encode(folder / "a.mpg", FRAMES, codec="mpeg2video", time_base=Fraction(1, 25)),
    ]


def mutated(data: bytes, seed: int) -> bytes:
    """A broken version of `data`: one to four changes, most of them in headers."""
    rng, changed = random.Random(seed), bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if changed:
            rng.choice(CHANGES)(changed, rng)
    return bytes(changed)


def _place(data: bytearray, rng: random.Random) -> int:
    marks = [at for mark in MARKS if (at := data.find(mark)) >= 0]
    if marks and rng.random() < 0.6:
        return min(len(data) - 1, rng.choice(marks) + rng.randrange(120))
    return rng.randrange(min(len(data), rng.choice((64, 2048, len(data)))))


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3, 40))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _extreme(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    data[at : at + 4] = struct.pack(rng.choice((">I", "<I")), rng.choice(EXTREMES))


def _cut_off(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 4, 188, 1000))]


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = data[at : at + rng.choice((8, 188, 1500))] * rng.choice((1, 3))


def _scribble(data: bytearray, rng: random.Random) -> None:
    at, n = _place(data, rng), rng.choice((4, 64, 700))
    data[at : at + n] = rng.randbytes(n)


CHANGES: list[Callable[[bytearray, random.Random], None]] = [_flip, _flip, _extreme, _extreme, _extreme]
CHANGES += [_cut_off, _remove, _repeat, _scribble]


def crafted(folder: Path) -> dict[str, Path]:
    """Files that each lie about one thing."""
    made = {}

    def patched(name: str, source: Path, at: int, new: bytes) -> None:
        data = bytearray(source.read_bytes())
        data[at : at + len(new)] = new
        made[name] = folder / f"{name}{source.suffix}"
        made[name].write_bytes(data)

    mp4 = encode(folder / "plain.mp4", FRAMES)
    gif = encode(folder / "plain.gif", FRAMES, codec="gif", pix_fmt="gray", time_base=Fraction(1, 100))
    mkv = encode(folder / "plain.mkv", FRAMES)
    data = mp4.read_bytes()
    patched("huge-picture", gif, 6, b"\xff\xff\xff\xff")
    patched("huge-sample-entry", mp4, data.index(b"avc1") + 28, b"\xff\xff\xff\xff")
    patched("billions-of-frames", mp4, data.index(b"stsz") + 12, b"\xff\xff\xff\xff")
    patched("frame-of-ages", mp4, data.index(b"stts") + 16, b"\x7f\xff\xff\xff")
    patched("no-time-scale", mp4, data.index(b"mdhd") + 16, bytes(4))
    patched("endless-header", mp4, data.index(b"mvhd") + 20, b"\xff\xff\xff\xff")
    patched("nan-duration", mkv, mkv.read_bytes().index(b"\x44\x89") + 3, b"\x7f\xf8\0\0\0\0\0\1")
    made["frame-bomb"] = encode(
        folder / "bomb.gif",
        np.zeros((3000, 2, 2, 3), np.uint8),
        codec="gif",
        pix_fmt="gray",
        fps=50,
        time_base=Fraction(1, 100),
    )
    made["many-streams"] = _many_streams(folder / "streams.mkv", mp4)
    made["playlist"] = folder / "playlist.m3u8"
    made["playlist"].write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://192.0.2.1/a.ts\n#EXT-X-ENDLIST\n"
    )
    made["concat"] = folder / "concat.mp4"
    made["concat"].write_text(f"ffconcat version 1.0\nfile '{mp4}'\n")
    return made


def _many_streams(path: Path, source: Path) -> Path:
    import av

    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = container.streams.video[0]
        copies = [out.add_stream_from_template(stream) for _ in range(300)]
        for packet in container.demux(stream):
            if packet.size:
                packet.stream = copies[0]
                out.mux(packet)
    return path


def mutated_text(text: str, seed: int) -> str:
    """A broken version of a JSON text: changed characters, keys moved, values replaced, parts repeated."""
    rng, changed = random.Random(seed), text
    values = ("NaN", "-1", "1e999", "null", '"../../etc/passwd"', "[]", "{}", "9" * 5000, '"\\ud800"', "true")
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(changed))
        kind = rng.randrange(5)
        if kind == 0:
            changed = (
                changed[:at] + chr(rng.choice((0, 34, 44, 58, 91, 123, 125, 0x2028))) + changed[at + 1 :]
            )
        elif kind == 1:
            changed = changed[:at] + changed[at + rng.choice((1, 7, 90)) :]
        elif kind == 2:
            changed = changed[: at + 40] + changed[at : at + 40] + changed[at + 40 :]
        elif (colon := changed.find(":", at)) >= 0:
            end = min((e for mark in ",}\n" if (e := changed.find(mark, colon)) >= 0), default=len(changed))
            changed = changed[: colon + 1] + rng.choice(values) + changed[end:]
        if not changed:
            return ""
    return changed
