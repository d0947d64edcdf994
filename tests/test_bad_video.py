"""Files that are no video end in one line each; nothing is printed on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media import encode, encode_sound, numbered

from taro_rt.engines.errors import MediaError, NoVideoError, UnreadableError
from taro_rt.engines.stages import Geometry
from taro_rt.runtime.clip import Clip

SMALL = Geometry(onset_resize=16, onset_crop=16, visual_size=16)
FRAMES = numbered(50)


def faulty(folder: Path, fault: str) -> Path:
    sound = np.zeros(48000, np.float32)
    path = folder / "clip.mp4"
    if fault == "name":
        path = folder / f"{'x' * 300}.mp4"
    elif fault == "folder":
        path.mkdir()
    elif fault == "empty":
        path.touch()
    elif fault == "text":
        path.write_text("no video at all\n" * 100)
    elif fault == "no index":
        encode(path, FRAMES)
        path.write_bytes(path.read_bytes()[:2000])
    elif fault == "sound":
        encode_sound(path, sound)
    elif fault == "sound with art":
        art = encode(folder / "art.png", FRAMES[:1], codec="png", pix_fmt="rgb24")
        encode_sound(path, sound, cover=art)
    elif fault == "picture":
        encode(folder / "art.png", FRAMES[:1], codec="png", pix_fmt="rgb24").rename(path)
    elif fault == "no frame":
        encode(path, FRAMES[:3], options={"movflags": "faststart"})
        data = bytearray(path.read_bytes())
        start = data.index(b"mdat") + 4
        data[start:] = b"\x5a" * (len(data) - start)
        path.write_bytes(data)
    elif fault == "endless":
        encode(path, FRAMES[:5], [0, 400, 800, 1200, 1600])
    elif fault == "jump":
        encode(path, FRAMES[:2], [0, 4000])
    return path


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("missing", "got No such file or directory"),
        ("name", "got File name too long"),
        ("folder", "got a folder"),
        ("empty", "got an empty file"),
        ("text", "got something unreadable"),
        ("no index", "got something unreadable"),
        ("sound", "got no video stream beside the sound"),
        ("sound with art", "got only cover art beside the sound"),
        ("picture", "got a still image"),
        ("no frame", "got no decodable frame from h264"),
        ("endless", "expected at most 1200 s of picture in memory, got 1600 s"),
        ("jump", "expected at most 600 s between two frames, got 4000 s"),
    ],
)
def test_refuses_what_is_no_video_in_one_line_that_names_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], fault: str, reason: str
) -> None:
    path = faulty(tmp_path, fault)
    with pytest.raises(MediaError) as caught:
        Clip.read(path, SMALL)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        *((fault, UnreadableError) for fault in ("empty", "text", "no index", "no frame")),
        *((fault, NoVideoError) for fault in ("sound", "sound with art", "picture")),
    ],
)
def test_programs_can_tell_a_broken_file_from_one_without_a_picture(
    tmp_path: Path, fault: str, kind: type[MediaError]
) -> None:
    with pytest.raises(kind):
        Clip.read(faulty(tmp_path, fault), SMALL)
