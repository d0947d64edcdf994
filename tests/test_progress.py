import io
import json

import pytest

from taro_rt.engines.errors import Cancelled
from taro_rt.runtime.progress import Bar, JsonLines, report


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
