"""Writing a sound, with the picture of its video or alone.

The picture's packets are copied as they are; only the sound is encoded. The output's time line is ours: first
displayed frame and first sample lie at 0. Metadata and chapters are kept, cover art is left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from taro_rt.engines.errors import MediaError
from taro_rt.runtime.audio import BLOCK_S, Audio
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.mixing import LAYOUTS, exactly, finished, original_sound
from taro_rt.runtime.packets import TIME_BASE, copied, encoded_picture, encoded_sound
from taro_rt.runtime.plan import MP4_FAMILY, SOUND_CODECS, SOUND_RATE_HZ, OutputPlan, carries, plan_output
from taro_rt.runtime.probe import VideoInfo, average_rate, frame_rate
from taro_rt.runtime.progress import Percents, Progress
from taro_rt.runtime.source import open_video
from taro_rt.runtime.timecode import all_later
from taro_rt.runtime.wav import write_wav

if TYPE_CHECKING:
    from av.container.core import Chapter

BIT_RATES = {1: 128_000, 2: 192_000, 6: 448_000}
"""By channels: transparent for AAC and Opus."""
LOSSLESS = {"mp4": "alac", "mov": "alac", "matroska": "flac"}
"""For a second track: 16 bits, without a lead-in that players would have to hide."""
STALE_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")
"""Metadata that describes the old container and would be wrong about the new one."""
KEPT_STREAM_TAGS = ("language", "title", "handler_name", "creation_time", "timecode")


def write_output(
    info: VideoInfo,
    audio: Audio,
    path: Path,
    finish: Finish | None = None,
    plan: OutputPlan | None = None,
    progress: Progress | None = None,
) -> None:
    """Write `audio` to `path`, with the picture of `info.path` unless it is a .wav.

    Raises `MediaError`, and `Cancelled` if `progress` says so. Writes in place: wrap it in `atomic_output`;
    `plan` is what `plan_output` said.
    """
    finish = finish or Finish()
    plan, written = plan or plan_output(info, path, finish), Percents(progress, "write")
    if plan.is_wav:
        write_wav(info, audio, path, finish, plan, progress)
        return
    with open_video(info.path) as (source, picture), _created(path, plan.container, info) as target:
        tags = {k: v for k, v in source.metadata.items() if k.lower() not in STALE_TAGS}
        target.metadata.update(_clocked(tags, picture, info))
        rate_hz = plan.rate_hz or audio.rate_hz
        if plan.copies_picture:
            visible = copied(source, _templates(info, plan, source, picture, target), info)
        else:
            visible = encoded_picture(source, picture, _h264(info, target), info)
        stream = _sound_stream(plan.audio_codec, rate_hz, plan.channels, target)
        blocks = finished(audio, finish, info, rate_hz, plan.channels)
        audible = encoded_sound(stream, blocks, rate_hz, LAYOUTS[plan.channels])
        tracks = [visible, audible]
        if plan.keeps_original:
            tracks.append(_original_track(source, info, plan, target))
        _keep_extras(source, info, plan, target)
        for packet in heapq.merge(*tracks, key=_decode_time):
            written(float(_decode_time(packet)) / info.duration_s)
            target.mux(packet)
    if not shows_a_frame(path):
        raise MediaError(
            f"{info.path}: its picture is too damaged to be copied; write .wav for the sound alone, or "
            "convert the video first"
        )


def shows_a_frame(path: Path) -> bool:
    """Whether a video that was written can be opened and shows anything: damaged packets are copied too."""
    try:
        with av.open(str(path.absolute())) as container:
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                try:
                    if stream.decode(packet):
                        return True
                except av.FFmpegError:
                    continue
    except (av.FFmpegError, IndexError):
        return False
    return False


@contextmanager
def _created(path: Path, container: str, info: VideoInfo) -> Iterator[OutputContainer]:
    try:
        # else mp4 would drop all tags but those it has names for
        options = {"movflags": "use_metadata_tags"} if container in MP4_FAMILY else {}
        with av.open(str(path.absolute()), "w", format=container, container_options=options) as target:
            yield target
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            # the folder, because the name is mostly a temporary one
            raise MediaError(
                f"{path.parent}: the video cannot be written there ({error.strerror}); choose another folder"
            ) from error
        raise MediaError(
            f"{info.path}: its picture cannot be put into {container} ({error.strerror}); "
            "write another kind of file, or .wav for the sound alone"
        ) from error


def _templates(
    info: VideoInfo, plan: OutputPlan, source: InputContainer, picture: VideoStream, target: OutputContainer
) -> dict[Stream, Stream]:
    """Input stream → output stream for all that is copied, the picture first."""
    # opaque: only the decoder's description is used, so codecs without an encoder can be copied
    copy = target.add_stream_from_template(picture, opaque=True)
    # for information only: Matroska would leave it to be guessed, wrongly
    copy.codec_context.framerate = average_rate(info)
    if info.codec == "hevc" and plan.container in MP4_FAMILY:
        copy.codec_context.codec_tag = "hvc1"  # the only tag that Apple's players accept
    streams: dict[Stream, Stream] = {picture: copy}
    if plan.copies_texts:
        for text in source.streams.subtitles:
            if carries(plan.container, text):
                streams[text] = target.add_stream_from_template(text, opaque=True)
    for data in source.streams.data:
        if carries(plan.container, data):
            streams[data] = target.add_stream_from_template(data)
    for stream, made in streams.items():
        if stream is not picture:
            made.disposition = stream.disposition.value  # type: ignore[assignment]  # PyAV 16 takes an int
        tags = {k: v for k, v in stream.metadata.items() if k.lower() in KEPT_STREAM_TAGS}
        made.metadata.update(_clocked(tags, picture, info))
    return streams


def _clocked(tags: dict[str, str], picture: VideoStream, info: VideoInfo) -> dict[str, str]:
    """The tags, with a timecode that is right at the first displayed frame of a part.

    It is all that is needed of a timecode track: mp4 and mov make one of the picture's tag.
    """
    if not info.span.start_s:
        return tags
    return all_later(tags, info.start_s - info.origin_s, frame_rate(picture, info))


def _h264(info: VideoInfo, target: OutputContainer) -> VideoStream:
    stream = target.add_stream(
        "libx264",
        rate=average_rate(info),
        options={"crf": "18", "bf": "0"},
        width=info.width + info.width % 2,  # yuv420p halves both sides
        height=info.height + info.height % 2,
        pix_fmt="yuv420p",
        time_base=TIME_BASE,
    )
    stream.codec_context.flags |= Flags.frame_duration  # with bf 0: a long last frame keeps its length
    return stream


def _sound_stream(codec: str, rate_hz: int, channels: int, target: OutputContainer) -> AudioStream:
    layout, bit_rate = LAYOUTS[channels], BIT_RATES[channels]
    stream = target.add_stream(codec, rate=rate_hz, layout=layout, bit_rate=bit_rate)
    assert isinstance(stream, AudioStream)
    return stream


def _original_track(
    source: InputContainer, info: VideoInfo, plan: OutputPlan, target: OutputContainer
) -> Iterator[Packet[Stream]]:
    """A second track with the original sound, encoded anew, without loss where the container can.

    A copy would begin damaged: a codec needs the packets before its first sound, and of containers only some
    can hide them, each in its own way.
    """
    original = source.streams.best("audio")
    assert isinstance(original, AudioStream)
    channels = original.channels if original.channels in LAYOUTS else 2
    codec = LOSSLESS.get(plan.container, SOUND_CODECS[plan.container])
    rate_hz = original.rate if plan.container in LOSSLESS and original.rate else SOUND_RATE_HZ
    made = _sound_stream(codec, rate_hz, channels, target)
    made.metadata.update({k: v for k, v in original.metadata.items() if k.lower() in KEPT_STREAM_TAGS})
    made.metadata.setdefault("title", "original sound")
    made.disposition = Disposition(0).value  # type: ignore[assignment]  # PyAV 16 takes an int
    return _encoded_original(info, made, channels, rate_hz)


def _encoded_original(
    info: VideoInfo, stream: AudioStream, channels: int, rate_hz: int
) -> Iterator[Packet[Stream]]:
    with original_sound(info, rate_hz, channels) as sound:
        blocks = exactly(sound, round(info.duration_s * rate_hz), round(BLOCK_S * rate_hz))
        yield from encoded_sound(stream, blocks, rate_hz, LAYOUTS[channels])


def _keep_extras(source: InputContainer, info: VideoInfo, plan: OutputPlan, target: OutputContainer) -> None:
    """Chapters, moved with the picture, and in Matroska attachments."""
    kept: list[Chapter] = []
    for chapter in source.chapters():
        tick = chapter["time_base"] or Fraction(1)
        ticks = round(Fraction(info.start_s) / tick)
        low, high = max(0, chapter["start"] - ticks), chapter["end"] - ticks
        if high > 0 and low * tick < info.duration_s:
            kept.append({**chapter, "start": low, "end": high})
    if kept:
        target.set_chapters(kept)
    if plan.copies_texts and plan.container == "matroska":
        for file in source.streams.attachments:
            target.add_attachment(file.name or "attachment", file.mimetype or "", file.data)


def _decode_time(packet: Packet[Stream]) -> Fraction:
    return (packet.dts or 0) * packet.time_base
