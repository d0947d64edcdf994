"""A picture and its sound on a time line, as editors take it over: OpenTimelineIO, and the XML of MLT.

Both are written here, since a dozen lines need no dependency. Times are whole frames of the clip's own rate.
"""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from taro_rt.runtime.onsets import Onset

Node = dict[str, Any]
HD_LINES = 720
"""From this height on, colours that a file does not describe are taken for BT.709."""


@dataclass(frozen=True)
class Timeline:
    """One picture from 0 on, and one sound from `offset` on."""

    name: str
    rate: Fraction
    """Frames per second, exact."""
    size: tuple[int, int]
    """Width and height of the picture in pixels."""
    pixel_aspect: Fraction
    picture: Path
    sound: Path
    n_frames: int
    """Of the picture."""
    offset: int
    """Frames before the sound."""
    picture_clock: Fraction = Fraction(0)
    """Timecode of the picture's first frame, in frames since midnight."""
    sound_clock: Fraction = Fraction(0)
    """The sound's own, 0 if the file states none."""
    onsets: Sequence[Onset] = ()
    """Times count from the sound's start."""

    @property
    def n_sound(self) -> int:
        """Frames that sound."""
        return self.n_frames - self.offset


def as_otio(timeline: Timeline) -> str:
    """JSON of OpenTimelineIO; media by absolute file URL, a marker per onset on the sound."""
    t = timeline
    picture = _clip(t, t.picture, t.picture_clock, t.n_frames)
    sound = _clip(t, t.sound, t.sound_clock, t.n_sound)
    sound["markers"] = [_marker(t, number, onset) for number, onset in enumerate(t.onsets, 1)]
    gap = {**_item("Gap.1", ""), "source_range": _range(t, Fraction(0), t.offset)}
    tracks = _item("Stack.1", "tracks") | {
        "children": [
            _item("Track.1", "Picture") | {"kind": "Video", "children": [picture]},
            _item("Track.1", "Sound") | {"kind": "Audio", "children": [*([gap] if t.offset else []), sound]},
        ]
    }
    start = _time(t, t.picture_clock) if t.picture_clock else None
    document = {
        "OTIO_SCHEMA": "Timeline.1",
        "metadata": {},
        "name": _text(t.name),
        "global_start_time": start,
        "tracks": tracks,
    }
    return json.dumps(document, indent=1) + "\n"


def as_mlt(timeline: Timeline, folder: Path) -> str:
    """XML of MLT, for a file in `folder`: media are named relative to it."""
    t = timeline
    root = ET.Element("mlt", LC_NUMERIC="C", producer="sequence", title=t.name)
    (width, height), shown = t.size, t.size[0] * t.pixel_aspect / t.size[1]
    profile = {
        "description": "taro-rt", "width": width, "height": height, "progressive": 1,
        "colorspace": 709 if height >= HD_LINES else 601,
        "frame_rate_num": t.rate.numerator, "frame_rate_den": t.rate.denominator,
        "sample_aspect_num": t.pixel_aspect.numerator, "sample_aspect_den": t.pixel_aspect.denominator,
        "display_aspect_num": shown.numerator, "display_aspect_den": shown.denominator,
    }  # fmt: skip
    ET.SubElement(root, "profile", {key: str(value) for key, value in profile.items()})
    for name, path, n, unused in (
        ("picture", t.picture, t.n_frames, "audio_index"),
        ("sound", t.sound, t.n_sound, "video_index"),
    ):
        resource = _relative(path, folder)
        producer = ET.SubElement(root, "producer", {"id": name, "in": "0", "out": str(n - 1)})
        _properties(producer, mlt_service="avformat", resource=resource, **{unused: "-1"})
    for name, offset, n in (("picture", 0, t.n_frames), ("sound", t.offset, t.n_sound)):
        playlist = ET.SubElement(root, "playlist", id=f"{name}_track")
        _properties(playlist, **{"shotcut:video" if name == "picture" else "shotcut:audio": "1"})
        if offset:
            ET.SubElement(playlist, "blank", length=str(offset))
        ET.SubElement(playlist, "entry", {"producer": name, "in": "0", "out": str(n - 1)})
    tractor = ET.SubElement(root, "tractor", id="sequence")
    _properties(tractor, shotcut="1")  # else Shotcut opens it as one clip, without its tracks
    _shotcut_markers(ET.SubElement(tractor, "properties", name="shotcut:markers"), t)
    tracks = ET.SubElement(tractor, "multitrack")
    ET.SubElement(tracks, "track", producer="picture_track")
    ET.SubElement(tracks, "track", producer="sound_track", hide="video")
    mix = ET.SubElement(tractor, "transition")
    _properties(mix, mlt_service="mix", a_track="0", b_track="1", sum="1", always_active="1")
    ET.indent(root, " ")
    return ET.tostring(root, "unicode", xml_declaration=False) + "\n"


def _shotcut_markers(node: ET.Element, t: Timeline) -> None:
    for number, onset in enumerate(t.onsets):
        frames = t.offset + round(Fraction(onset.time_s) * t.rate)
        at = _clock(frames / t.rate)
        marker = ET.SubElement(node, "properties", name=str(number))
        _properties(marker, text=f"onset {number + 1}", start=at, end=at)


def _clock(seconds: Fraction) -> str:
    """00:00:01.250"""
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds / 1000:06.3f}"


def unwritable(paths: Iterable[Path]) -> Path | None:
    """The first name that XML cannot hold: with control characters, or no Unicode at all."""
    return next((path for path in paths if not str(path.absolute()).isprintable()), None)


def _relative(path: Path, folder: Path) -> str:
    try:
        return os.path.relpath(
            os.path.realpath(path), os.path.realpath(folder)
        )  # ".." leaves a link's target
    except ValueError:  # another drive
        return str(path.absolute())


def _properties(node: ET.Element, **properties: str) -> None:
    for name, value in properties.items():
        ET.SubElement(node, "property", name=name).text = value


def _item(schema: str, name: str) -> Node:
    return {
        "OTIO_SCHEMA": schema,
        "metadata": {},
        "name": name,
        "source_range": None,
        "effects": [],
        "markers": [],
        "enabled": True,
    }


def _clip(t: Timeline, path: Path, clock: Fraction, n_frames: int) -> Node:
    media = {
        "OTIO_SCHEMA": "ExternalReference.1",
        "metadata": {},
        "name": _text(path.name),
        "available_range": _range(t, clock, n_frames),
        "available_image_bounds": None,
        "target_url": path.absolute().as_uri(),
    }
    return _item("Clip.2", _text(path.name)) | {
        "source_range": _range(t, clock, n_frames),
        "media_references": {"DEFAULT_MEDIA": media},
        "active_media_reference_key": "DEFAULT_MEDIA",
    }


def _marker(t: Timeline, number: int, onset: Onset) -> Node:
    at = t.sound_clock + Fraction(onset.time_s) * t.rate
    return {
        "OTIO_SCHEMA": "Marker.2",
        "metadata": {"taro-rt": {"strength": onset.strength}},
        "name": f"onset {number}",
        "color": "RED",
        "comment": f"strength {onset.strength:.2f}",
        "marked_range": _range(t, at, 0),
    }


def _range(t: Timeline, start: Fraction, n_frames: int) -> Node:
    duration = _time(t, Fraction(n_frames))
    return {"OTIO_SCHEMA": "TimeRange.1", "start_time": _time(t, start), "duration": duration}


def _time(t: Timeline, value: Fraction) -> Node:
    return {"OTIO_SCHEMA": "RationalTime.1", "rate": float(t.rate), "value": round(float(value), 6)}


def _text(name: str) -> str:
    """JSON has no word for a name that is not Unicode."""
    return name.encode("utf-8", "replace").decode("utf-8")
