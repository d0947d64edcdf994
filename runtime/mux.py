"""Which file a sound and a picture make together, and writing it.

The picture's packets are copied as they are; only the sound is encoded. The output's time line is ours: first
displayed frame and first sample lie at 0. The original sound and cover art are left out.
"""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from taro_rt.engines.errors import MediaError
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.packets import TIME_BASE, copied, encoded_picture, encoded_sound
from taro_rt.runtime.probe import VideoInfo
from taro_rt.runtime.source import open_video

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Suffix → muxer. By suffix alone libav would take its "ipod" muxer for .m4v, which knows H.264 only."""
SOUND_CODECS = {"mp4": "aac", "mov": "aac", "matroska": "libopus", "webm": "libopus"}
SOUND_RATE_HZ = 48000
"""Opus knows no higher rate; AAC frames of 21 ms end closer to the picture than the 64 ms ones of 16 kHz."""
SOUND_BIT_RATE = 128_000
"""Mono, so transparent for both codecs."""
MP4_FAMILY = ("mp4", "mov")
"""What has edit lists, and what Apple's players open."""
ANIMATIONS = ("gif", "apng", "webp")
"""Video codecs in name only: some muxers take them, players do not."""
STALE_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")
"""Metadata that describes the old container and would be wrong about the new one."""
KEPT_STREAM_TAGS = ("language", "title", "handler_name", "creation_time", "timecode")


@dataclass(frozen=True)
class OutputPlan:
    """What `write_video` will do."""

    container: str
    """libavformat's muxer name, or "wav"."""
    audio_codec: str
    rate_hz: int | None
    """Sampling rate in the file; None leaves the sound's own."""
    copies_picture: bool = True
    """False: no container can carry the picture's codec, it is encoded anew as H.264."""
    copies_subtitles: bool = False
    notices: tuple[str, ...] = ()
    """What the user should know about the output, a sentence each."""

    @property
    def is_wav(self) -> bool:
        """The sound alone: use `write_wav`."""
        return self.container == "wav"


def plan_output(info: VideoInfo, path: Path) -> OutputPlan:
    """How `info`'s picture gets into `path`. Raises `MediaError` if it cannot, naming what can."""
    suffix = path.suffix.lower()
    if suffix == ".wav":
        return OutputPlan("wav", "pcm_s16le", None)
    if suffix not in CONTAINERS:
        raise MediaError(
            f"{path}: expected {', '.join(CONTAINERS)} or .wav as output, got {suffix or 'no suffix'!r}; "
            f"write {path.with_suffix('.mp4').name}"
        )
    container = CONTAINERS[suffix]
    with open_video(info.path) as (_, picture):
        refusals = {other: _refusal(info, picture, CONTAINERS[other]) for other in CONTAINERS}
    refusal = refusals[suffix]
    able = [other for other in CONTAINERS if not refusals[other]]
    if refusal and (able or container == "webm"):
        raise MediaError(
            f"{path}: {refusal}; write {' or '.join(able or ['.mp4'])}, or .wav for the sound alone"
        )
    family = info.container.split(",")
    keeps_subtitles = info.n_subtitles > 0 and container in family
    notices = []
    if refusal:
        notices.append(f"{path}: the picture is encoded anew as H.264, because {refusal}")
    if info.n_subtitles and not keeps_subtitles:
        hint = "; write .mkv to keep them" if "matroska" in family else ""
        notices.append(f"{path}: subtitle streams left out: {info.n_subtitles}{hint}")
    return OutputPlan(
        container, SOUND_CODECS[container], SOUND_RATE_HZ, not refusal, keeps_subtitles, tuple(notices)
    )


def default_output(video: Path) -> Path:
    """clip.mov → clip.taro.mp4 beside it. Raises `MediaError` if `video` cannot be read.

    The suffix is .mp4 whenever mp4 can carry the picture's codec; else the input's own if that can, else .mkv
    or .mov; .mp4 again where the picture must be encoded anew.
    """
    candidates = [s for s in (".mp4", video.suffix.lower(), ".mkv", ".mov") if s in CONTAINERS]
    with open_video(video) as (_, picture):
        suffix = next((s for s in candidates if _carries(CONTAINERS[s], picture)), ".mp4")
    return video.with_name(f"{video.stem}.taro{suffix}")


def write_video(info: VideoInfo, audio: Audio, path: Path) -> None:
    """Write the picture of `info.path` and `audio` to `path`; rotation and metadata are kept.

    Raises `MediaError`. Writes in place: wrap it in `atomic_output`, and keep .wav paths for `write_wav`.
    """
    plan = plan_output(info, path)
    if plan.is_wav:
        raise MediaError(f"{path}: expected a video file name, got .wav; use write_wav for the sound alone")
    with open_video(info.path) as (source, picture), _created(path, plan.container) as target:
        target.metadata.update({k: v for k, v in source.metadata.items() if k.lower() not in STALE_TAGS})
        if plan.copies_picture:
            visible = copied(source, _templates(info, plan, source, picture, target), info)
        else:
            visible = encoded_picture(source, picture, _h264(info, target), info)
        audible = encoded_sound(_sound_stream(plan, target), audio)
        for packet in heapq.merge(visible, audible, key=_decode_time):
            target.mux(packet)


def _refusal(info: VideoInfo, picture: VideoStream, container: str) -> str | None:
    """Why `container` cannot take a copy of the picture."""
    if not _carries(container, picture):
        return f"{container} cannot carry {info.codec}"
    if info.n_untimed_packets:
        return f"{info.n_untimed_packets} packets of {info.path.name} have no time stamp"
    if info.n_hidden_packets and container not in MP4_FAMILY:
        return f"{container} would show the {info.n_hidden_packets} packets that an edit list hides"
    return None


def _carries(container: str, stream: Stream) -> bool:
    """Whether such a file begins: libav's lists of codecs promise too much, VP9 in mov for instance."""
    if stream.codec_context is None or stream.codec_context.codec.canonical_name in ANIMATIONS:
        return False
    with av.open(io.BytesIO(), "w", format=container) as trial:
        try:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
        except (ValueError, av.FFmpegError):
            return False
    return True


@contextmanager
def _created(path: Path, container: str) -> Iterator[OutputContainer]:
    try:
        with av.open(str(path.absolute()), "w", format=container) as target:
            yield target
    except av.FFmpegError as error:
        # the folder, because the name is mostly a temporary one
        raise MediaError(
            f"{path.parent}: the video cannot be written there ({error.strerror}); choose another folder"
        ) from error


def _templates(
    info: VideoInfo, plan: OutputPlan, source: InputContainer, picture: VideoStream, target: OutputContainer
) -> dict[Stream, Stream]:
    """Input stream → output stream for all that is copied, the picture first."""
    # opaque: only the decoder's description is used, so codecs without an encoder can be copied
    copy = target.add_stream_from_template(picture, opaque=True)
    copy.codec_context.framerate = _rate(info)
    if info.codec == "hevc" and plan.container in MP4_FAMILY:
        copy.codec_context.codec_tag = "hvc1"  # the only tag that Apple's players accept
    streams: dict[Stream, Stream] = {picture: copy}
    if plan.copies_subtitles:
        for text in source.streams.subtitles:
            if _carries(plan.container, text):
                streams[text] = target.add_stream_from_template(text, opaque=True)
    for stream, made in streams.items():
        made.metadata.update({k: v for k, v in stream.metadata.items() if k in KEPT_STREAM_TAGS})
    return streams


def _h264(info: VideoInfo, target: OutputContainer) -> VideoStream:
    stream = target.add_stream(
        "libx264",
        rate=_rate(info),
        options={"crf": "18", "bf": "0"},
        width=info.width + info.width % 2,  # yuv420p halves both sides
        height=info.height + info.height % 2,
        pix_fmt="yuv420p",
        time_base=TIME_BASE,
    )
    stream.codec_context.flags |= Flags.frame_duration  # with bf 0: a long last frame keeps its length
    return stream


def _rate(info: VideoInfo) -> Fraction:
    """For information only: Matroska would leave it to be guessed, wrongly."""
    return Fraction(info.average_fps).limit_denominator(1001)


def _sound_stream(plan: OutputPlan, target: OutputContainer) -> AudioStream:
    stream = target.add_stream(plan.audio_codec, rate=plan.rate_hz, layout="mono", bit_rate=SOUND_BIT_RATE)
    assert isinstance(stream, AudioStream)
    return stream


def _decode_time(packet: Packet[Stream]) -> Fraction:
    return (packet.dts or 0) * packet.time_base
