"""Which file a sound and a picture make together: decided, and refused, before any model runs."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import DataStream, Stream
from av.video.stream import VideoStream

from taro_rt.engines.errors import MediaError
from taro_rt.runtime.finish import Finish
from taro_rt.runtime.mixing import LAYOUTS
from taro_rt.runtime.probe import VideoInfo
from taro_rt.runtime.source import open_video, tick_of

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Suffix → muxer. By suffix alone libav would take its "ipod" muxer for .m4v, which knows H.264 only."""
SOUND_CODECS = {"mp4": "aac", "mov": "aac", "matroska": "libopus", "webm": "libopus"}
SOUND_RATE_HZ = 48000
"""Opus knows no higher rate; AAC frames of 21 ms end closer to the picture than the 64 ms ones of 16 kHz."""
OPUS_RATES_HZ = (8000, 12000, 16000, 24000, 48000)
MP4_FAMILY = ("mp4", "mov")
"""What has edit lists, and what Apple's players open."""
MAKES_TIMECODE = int(av.__version__.split(".")[0]) >= 18
"""Earlier versions of PyAV do not tell the muxer the frame rate that a timecode counts by."""
ANIMATIONS = ("gif", "apng", "webp")
"""Video codecs in name only: some muxers take them, players do not."""
READ_ONLY = (".avi", ".flv", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".wmv", ".gif", ".3gp", ".ogv")
"""Read, but not written: they lose time stamps, or no player plays the sound in them."""


@dataclass(frozen=True)
class OutputPlan:
    """What writing will do."""

    container: str
    """libavformat's muxer name, or "wav"."""
    audio_codec: str
    rate_hz: int | None
    """Sampling rate in the file; None leaves the sound's own."""
    channels: int = 1
    copies_picture: bool = True
    """False: no container can carry the picture's codec, it is encoded anew as H.264."""
    copies_texts: bool = False
    """Subtitles, and in Matroska attachments."""
    keeps_original: bool = False
    """The original sound is a second track."""
    notices: tuple[str, ...] = field(default=())
    """What the user should know about the output, a sentence each."""

    @property
    def is_wav(self) -> bool:
        """The sound alone."""
        return self.container == "wav"


def plan_output(info: VideoInfo, path: Path, finish: Finish | None = None) -> OutputPlan:
    """How `info`'s picture gets into `path`. Raises `MediaError` if it cannot, naming what can."""
    finish = finish or Finish()
    suffix = path.suffix.lower()
    if suffix == ".wav":
        return _plan_wav(info, path, finish)
    check_suffix(path)
    container = CONTAINERS[suffix]
    with open_video(info.path) as (source, picture):
        refusals = {other: _refusal(info, picture, CONTAINERS[other]) for other in CONTAINERS}
        channels, notices = _channels(info, finish)
        left_out = _left_out(source, info, path, container, finish)
    refusal = refusals[suffix]
    able = [other for other in CONTAINERS if not refusals[other]]
    if refusal and (able or container == "webm"):
        raise MediaError(
            f"{path}: {refusal}; write {' or '.join(able or ['.mp4'])}, or .wav for the sound alone"
        )
    if refusal:
        notices.append(f"{path}: the picture is encoded anew as H.264, because {refusal}")
    codec, rate_hz = SOUND_CODECS[container], finish.rate_hz or SOUND_RATE_HZ
    if codec == "libopus" and rate_hz not in OPUS_RATES_HZ:
        if container == "webm":
            raise MediaError(
                f"{path}: webm cannot carry sound of {rate_hz} Hz; use --rate 48000 or write .mkv"
            )
        codec = "flac"
    return OutputPlan(
        container,
        codec,
        rate_hz,
        channels,
        copies_picture=not refusal,
        copies_texts=container in info.container.split(","),
        keeps_original=finish.audio == "keep-as-second-track" and info.has_audio,
        notices=(*notices, *left_out),
    )


def check_suffix(path: Path) -> None:
    """Raise `MediaError` for a name that is no kind of output, naming one that is."""
    suffix = path.suffix.lower()
    if suffix in CONTAINERS or suffix == ".wav":
        return
    reason = "a kind that is only read" if suffix in READ_ONLY else repr(suffix or "no suffix")
    raise MediaError(
        f"{path}: expected {', '.join(CONTAINERS)} or .wav as output, got {reason}; "
        f"write {path.with_suffix('.mp4').name}"
    )


def default_suffix(video: Path) -> str:
    """The suffix of an output beside `video`. Raises `MediaError` if it cannot be read.

    .mp4 whenever mp4 can carry the picture's codec; else the input's own if that can, else .mkv or .mov; .mp4
    again where the picture must be encoded anew.
    """
    candidates = [s for s in (".mp4", video.suffix.lower(), ".mkv", ".mov") if s in CONTAINERS]
    with open_video(video) as (_, picture):
        return next((s for s in candidates if carries(CONTAINERS[s], picture)), ".mp4")


def default_output(video: Path, folder: Path | None = None) -> Path:
    """clip.mov → clip.taro.mp4 beside it, or in `folder`. Raises `MediaError` if `video` cannot be read."""
    return (folder or video.parent) / f"{video.stem}.taro{default_suffix(video)}"


def carries(container: str, stream: Stream) -> bool:
    """Whether such a file begins: libav's lists of codecs promise too much, VP9 in mov for instance."""
    if isinstance(stream, DataStream):
        return _carries_data(container, stream)
    if stream.codec_context is None or stream.codec_context.codec.canonical_name in ANIMATIONS:
        return False
    with av.open(io.BytesIO(), "w", format=container) as trial:
        try:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
        except (ValueError, av.FFmpegError):
            return False
    return True


def _carries_data(container: str, stream: DataStream) -> bool:
    """Whether a packet of such a stream is found again under its name.

    Of our containers only mp4 and mov take data at all, and mov leaves out the description of any kind that
    it does not know, so that no reader could tell what it is. What comes along is GoPro's telemetry (gpmd).
    """
    file, sample = io.BytesIO(), Packet(b"data")
    sample.pts = sample.dts = 0
    sample.duration, sample.time_base = 1, tick_of(stream)
    try:
        with av.open(file, "w", format=container) as trial:
            sample.stream = trial.add_stream_from_template(stream)
            trial.mux(sample)
        file.seek(0)
        with av.open(file) as trial:
            return stream.name is not None and any(d.name == stream.name for d in trial.streams.data)
    except (ValueError, av.FFmpegError):
        return False


def _keeps_data(container: str, data: DataStream) -> bool:
    """Whether a stream of data survives, be it as a tag: of a timecode, mp4 and mov make a track again."""
    if "timecode" in data.metadata:
        return container not in MP4_FAMILY or MAKES_TIMECODE
    return carries(container, data)


def _plan_wav(info: VideoInfo, path: Path, finish: Finish) -> OutputPlan:
    if finish.audio == "keep-as-second-track" and info.has_audio:
        raise MediaError(f"{path}: a .wav has no second track; write .mp4, or use --audio mix")
    channels, notices = _channels(info, finish)
    rate_hz = finish.rate_hz or (SOUND_RATE_HZ if finish.mixes and info.has_audio else None)
    return OutputPlan("wav", "pcm_s16le", rate_hz, channels, notices=tuple(notices))


def _channels(info: VideoInfo, finish: Finish) -> tuple[int, list[str]]:
    """How many channels the sound gets, and what there is to say about the original.

    The video is opened only where that matters: frames from memory have none.
    """
    if finish.audio != "replace" and not info.has_audio:
        return finish.channels or 1, [f"{info.path}: has no sound to {finish.audio.split('-')[0]}"]
    if finish.channels or not finish.mixes:
        return finish.channels or 1, []
    with open_video(info.path) as (source, _):
        original = source.streams.best("audio")
        assert isinstance(original, AudioStream)
        n_channels = original.channels
    if n_channels in LAYOUTS:
        return n_channels, []
    return 2, [f"{info.path}: its sound of {n_channels} channels is mixed down to stereo"]


def _left_out(
    source: InputContainer, info: VideoInfo, path: Path, container: str, finish: Finish
) -> list[str]:
    """Notices about streams that do not come along."""
    notices, family, n_sounds = [], info.container.split(","), len(source.streams.audio)
    if info.n_subtitles and container not in family:
        hint = "; write .mkv to keep them" if "matroska" in family else ""
        notices.append(f"{path}: subtitle streams left out: {info.n_subtitles}{hint}")
    elif lost := sum(not carries(container, text) for text in source.streams.subtitles):
        hint = "; write .mkv to keep them" if container != "matroska" else ""
        notices.append(f"{path}: subtitle streams that {container} cannot carry left out: {lost}{hint}")
    others = {
        "further video": len(source.streams.video) - 1,
        # one sound is meant to be replaced; that there were several may be news
        "original audio": n_sounds if finish.audio == "replace" and n_sounds > 1 else 0,
        "further audio": n_sounds - 1 if finish.audio != "replace" else 0,
        "data": sum(not _keeps_data(container, data) for data in source.streams.data),
        "attachment": 0
        if container == "matroska" and container in family
        else len(source.streams.attachments),
    }
    notices += [f"{path}: {kind} streams left out: {n}" for kind, n in others.items() if n > 0]
    return notices


def _refusal(info: VideoInfo, picture: VideoStream, container: str) -> str | None:
    """Why `container` cannot take a copy of the picture."""
    if not carries(container, picture):
        return f"{container} cannot carry {info.codec}"
    if info.n_untimed_packets:
        return f"{info.n_untimed_packets} packets of {info.path.name} have no time stamp"
    if info.n_hidden_packets and container not in MP4_FAMILY:
        why = "an edit list hides" if info.span.is_whole else "lie before the part asked for"
        return f"{container} would show the {info.n_hidden_packets} packets that {why}"
    return None
