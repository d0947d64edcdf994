import io
import json

import pytest

from taro_rt.engines.errors import Cancelled
from taro_rt.runtime import progress
from taro_rt.runtime.progress import Bar, JsonLines, TimeLeft, clock, report


def test_a_callback_that_answers_false_cancels() -> None:
    report(None, "onset", 0.5)
    report(lambda stage, fraction: None, "onset", 0.5)
    with pytest.raises(Cancelled, match="onset"):
        report(lambda stage, fraction: False, "onset", 0.5)


def test_the_bar_is_rewritten_in_place_and_wiped_at_the_end() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    for fraction in (0.0, 0.5, 0.5, 1.0):
        bar("denoiser", fraction)
    bar.close()
    _, *lines, wiped, end = stream.getvalue().split("\r")
    assert [line.split()[-1] for line in lines] == ["0%", "50%", "100%"]
    assert len({len(line) for line in [*lines, wiped]}) == 1
    assert wiped.isspace() and end == ""
    assert "\n" not in stream.getvalue()


def test_time_left_is_told_once_something_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    left = TimeLeft()
    assert left("", "generate", 0.0) is None
    now[0] += 10
    assert left("", "generate", 0.25) == pytest.approx(30)
    assert left("", "write", 0.25) is None, "another stage begins anew"
    assert left("b.mp4", "write", 0.25) is None, "and so does another video"


def test_the_bar_shows_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    bar = Bar(stream)
    bar("generate", 0.0)
    now[0] = 600.0
    bar("generate", 0.5)
    assert stream.getvalue().rstrip().endswith("50%   10:00 left")


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (750.4, "12:30"), (3723, "1:02:03")])
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_several_videos_are_told_apart() -> None:
    bar_stream, json_stream = io.StringIO(), io.StringIO()
    for reporter in (Bar(bar_stream), JsonLines(json_stream)):
        reporter.subject = "in/clip.mp4"
        reporter("write", 1.0)
    assert "clip.mp4  write" in bar_stream.getvalue()
    assert json.loads(json_stream.getvalue()) == {"video": "in/clip.mp4", "stage": "write", "progress": 1.0}


def test_a_bar_that_showed_nothing_writes_nothing() -> None:
    stream = io.StringIO()
    Bar(stream).close()
    assert stream.getvalue() == ""


def test_json_lines_come_once_per_percent() -> None:
    stream = io.StringIO()
    lines = JsonLines(stream)
    for fraction in (0.0, 0.001, 0.5, 0.501, 1.0):
        lines("read", fraction)
    lines("write", 1.0)
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert records == [
        {"stage": "read", "progress": 0.0},
        {"stage": "read", "progress": 0.5},
        {"stage": "read", "progress": 1.0},
        {"stage": "write", "progress": 1.0},
    ]
