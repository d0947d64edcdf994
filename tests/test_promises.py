"""What outputs and batches promise when something goes wrong on the way."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from command import invoke
from media import encode, numbered, remux

from taro_rt.engines.errors import MediaError, OptionsError
from taro_rt.engines.stages import Geometry
from taro_rt.runtime import files, wav
from taro_rt.runtime.audio import Audio
from taro_rt.runtime.batch import expand
from taro_rt.runtime.clip import Clip
from taro_rt.runtime.files import atomic_output, atomic_outputs
from taro_rt.runtime.interrupts import Interrupts
from taro_rt.runtime.mux import write_output
from taro_rt.runtime.onsets import read_onsets
from taro_rt.runtime.plan import plan_output
from taro_rt.runtime.probe import probe

FRAMES = numbered(15, 64, 48)
SMALL = Geometry(onset_resize=16, onset_crop=16, visual_size=16)


def run(bundle: Path, *arguments: Any) -> Any:
    return invoke("generate", *arguments, "--bundle", bundle, "--threads", 1, "--steps", 1)


def test_a_second_interrupt_does_not_stop_the_cleaning_up(tmp_path: Path) -> None:
    with Interrupts(), pytest.raises(KeyboardInterrupt), atomic_output(tmp_path / "a.wav", False) as path:
        path.write_text("half")
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            cleaned = True
    assert cleaned and os.listdir(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_takes_come_all_or_none_even_if_a_rename_fails(tmp_path: Path, force: bool) -> None:
    first, second = tmp_path / "a.1.wav", tmp_path / "a.2.wav"
    if force:
        first.write_text("old")
    with pytest.raises(MediaError), atomic_outputs([first, second], force) as temporaries:
        temporaries[0].write_text("new")  # the second is never written, so it cannot be renamed
    assert [p.name for p in tmp_path.iterdir()] == (["a.1.wav"] if force else [])
    assert not force or first.read_text() == "old"


def test_a_file_that_appears_at_the_last_moment_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.wav"
    with pytest.raises(MediaError, match="exists already"), atomic_output(target, False) as path:
        path.write_text("mine")
        target.write_text("theirs")
        monkeypatch.setattr(files, "check_output", lambda path, force: None)
    assert target.read_text() == "theirs" and os.listdir(tmp_path) == ["a.wav"]


def test_a_wav_too_large_for_riff_is_written_as_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = probe(encode(tmp_path / "a.mp4", FRAMES))
    sound = Audio(np.zeros(round(info.duration_s * 16000), np.float32), 16000)
    monkeypatch.setattr(wav, "LARGEST_WAV", 1000)
    write_output(info, sound, tmp_path / "out.wav")
    found = soundfile.info(tmp_path / "out.wav")
    assert (found.format, found.frames) == ("RF64", len(sound.samples))


def test_a_name_that_is_too_long_fails_alone(tmp_path: Path, tiny_bundle: Path) -> None:
    video = encode(tmp_path / "a.mp4", FRAMES)
    result = run(tiny_bundle, f"{'x' * 300}.mp4", video, "--out-dir", tmp_path / "a" / "b", "--json")
    bad, good, total = map(json.loads, result.stdout.splitlines())
    assert "File name too long" in bad["error"]["message"] and good["output"]
    assert (total["written"], total["failed"]) == (1, 1)


def test_two_videos_of_one_name_fail_in_a_second_run_too(tmp_path: Path, tiny_bundle: Path) -> None:
    videos = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        videos.append(encode(tmp_path / name / "a.mp4", FRAMES))
    codes = [
        run(tiny_bundle, *videos, "--out-dir", tmp_path / "out", "--skip-existing").exit_code
        for _ in range(2)
    ]
    assert codes == [5, 5]


def test_engines_are_not_loaded_where_all_is_skipped(tmp_path: Path) -> None:
    video = encode(tmp_path / "a.mp4", FRAMES)
    (tmp_path / "a.taro.mp4").touch()
    assert run(tmp_path / "no-bundle", video, "--skip-existing").exit_code == 0


def test_a_video_under_two_spellings_is_one(tmp_path: Path) -> None:
    video = encode(tmp_path / "a.mp4", FRAMES)
    (tmp_path / "sub").mkdir()
    assert expand([video, tmp_path / "sub" / ".." / "a.mp4"]) == [video]


def test_an_interrupted_batch_says_how_many_were_written(capsys: pytest.CaptureFixture[str]) -> None:
    from taro_rt.engines.errors import Cancelled
    from taro_rt.runtime.terminal import show_each

    def records() -> Any:
        yield {"video": "a.mp4", "skipped": "b.mp4"}
        yield {"video": "c.mp4", "takes": [{"output": "d.mp4"}], "audio_s": 1.0}
        raise KeyboardInterrupt

    with pytest.raises(Cancelled, match="1 videos were written"):
        show_each(records(), SimpleNamespace(close=lambda: None), True)  # type: ignore[arg-type]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["exit_code"] == 130


def test_onsets_of_another_part_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "hits.json"
    path.write_text('{"start_s": 2.0, "onsets": [{"time_s": 0.5}]}')
    assert read_onsets(path, 2.0)[0].time_s == 0.5
    with pytest.raises(OptionsError, match=r"starts at 0 s, got 2\.0; use the same --start"):
        read_onsets(path)


def test_a_clip_of_next_to_no_frames_is_refused(tmp_path: Path) -> None:
    video = encode(tmp_path / "a.mp4", FRAMES[:4], [0, 300, 600, 900])
    with pytest.raises(MediaError, match=r"at least 0\.005 frames per second on average, got 4 in"):
        probe(video)


def test_tags_that_mp4_has_no_name_for_survive(tmp_path: Path) -> None:
    source = encode(
        tmp_path / "a.mov", FRAMES, metadata={"my_tag": "x"}, options={"movflags": "use_metadata_tags"}
    )
    info = probe(source)
    for name in ("out.mp4", "out.mov"):
        write_output(info, Audio(np.zeros(9600, np.float32), 16000), tmp_path / name)
        with av.open(str(tmp_path / name)) as out:
            assert out.metadata["my_tag"] == "x"


def subtitled(folder: Path) -> Path:
    (folder / "a.srt").write_text("1\n00:00:00,200 --> 00:00:05,600\nlong\n")
    return remux(encode(folder / "p.mp4", FRAMES), folder / "a.mkv", subtitles=folder / "a.srt")


def test_a_subtitle_that_outlasts_the_picture_is_no_broken_promise(tmp_path: Path) -> None:
    assert Clip.read(subtitled(tmp_path), SMALL).warnings == ()


def test_subtitles_that_webm_cannot_carry_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:00,200 --> 00:00:00,400\ntext\n")
    picture = encode(tmp_path / "p.webm", FRAMES, codec="libvpx")
    source = remux(picture, tmp_path / "a.mkv", subtitles=tmp_path / "a.srt")
    assert any(
        "cannot carry left out: 1" in n for n in plan_output(probe(source), tmp_path / "o.webm").notices
    )


def test_subtitles_keep_their_disposition(tmp_path: Path) -> None:
    source, forced = tmp_path / "forced.mkv", av.stream.Disposition.forced
    with av.open(str(subtitled(tmp_path))) as container, av.open(str(source), "w") as out:
        copies = {s: out.add_stream_from_template(s) for s in container.streams}
        copies[container.streams.subtitles[0]].disposition = forced.value
        for packet in container.demux():
            if packet.size:
                packet.stream = copies[packet.stream]
                out.mux(packet)
    write_output(probe(source), Audio(np.zeros(9600, np.float32), 16000), tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as out:
        assert out.streams.subtitles[0].disposition & forced
