"""Chapters and attachments beside picture and sound; subtitles are in test_mux."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from media import encode, numbered

from taro_rt.runtime.audio import Audio
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.plan import plan_output
from taro_rt.runtime.probe import probe

FRAMES = numbered(75)


def written(source: Path, target: Path) -> Path:
    info = probe(source)
    write_output(info, Audio(np.zeros(round(info.duration_s * 16000), np.float32), 16000), target)
    return target


def test_chapters_survive_and_move_with_the_picture(tmp_path: Path) -> None:
    source = tmp_path / "chapters.mkv"
    plain = encode(tmp_path / "a.mp4", FRAMES)
    with av.open(str(plain)) as container, av.open(str(source), "w") as out:
        copy = out.add_stream_from_template(container.streams.video[0])
        tick = Fraction(1, 1000)
        out.set_chapters(
            [
                {
                    "id": k,
                    "start": k * 1500,
                    "end": (k + 1) * 1500,
                    "time_base": tick,
                    "metadata": {"title": f"part {k}"},
                }
                for k in range(2)
            ]
        )
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    for name in ("out.mkv", "out.mp4"):
        with av.open(str(written(source, tmp_path / name))) as out:
            kept = [(float(c["start"] * c["time_base"]), c["metadata"]["title"]) for c in out.chapters()]
        assert kept == [(0.0, "part 0"), (1.5, "part 1")]


def test_attachments_stay_in_matroska_and_are_announced_elsewhere(tmp_path: Path) -> None:
    source = tmp_path / "font.mkv"
    with av.open(str(encode(tmp_path / "a.mp4", FRAMES))) as container, av.open(str(source), "w") as out:
        copy = out.add_stream_from_template(container.streams.video[0])
        out.add_attachment("font.ttf", "font/ttf", b"letters")
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    with av.open(str(written(source, tmp_path / "out.mkv"))) as out:
        assert [bytes(s.data) for s in out.streams.attachments] == [b"letters"]
    notices = plan_output(probe(source), tmp_path / "out.mp4").notices
    assert notices == (f"{tmp_path / 'out.mp4'}: attachment streams left out: 1",)
