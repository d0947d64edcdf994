"""The page in a real browser: a video in, onsets moved, takes heard, files out. Skipped without one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Page, browsing, find_browser
from media import burst, encode, numbered
from service import TOKEN, Client, serving

from taro_rt.runtime.service.page import page as page_and_policy

PROGRAM = find_browser()
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")
STATE = "document.querySelector('#state').dataset.state"
READY = f"{STATE} === 'idle'"
IDS = ("drop", "file", "editor", "video", "play", "marks", "wave", "make", "cancel", "list", "error")


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> Iterator[Client]:
    with serving(tiny_bundle, max_upload=1 << 20) as client:
        yield client


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert PROGRAM
    with browsing(PROGRAM, tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(browser: Page, client: Client) -> Iterator[Page]:
    """Freshly opened; whatever its console and policy complain about fails the test."""
    browser.problems.clear()
    browser.open(f"http://{client.host}:{client.port}/#token={TOKEN}")
    browser.until("document.querySelector('#about').textContent")
    yield browser
    browser.run("0")  # takes in what was said meanwhile
    assert browser.problems == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds with sound."""
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    return encode(path, numbered(200), fps=25, sound=burst(8.0, 1.0))


@pytest.fixture
def opened(page: Page, clip: Path) -> Page:
    """With a video in it, its onsets found."""
    page.choose_file("#file", clip)
    page.until(f"!document.querySelector('#editor').hidden && {READY} && words.length")
    return page


def generate(page: Page) -> None:
    page.run("document.querySelector('#ask').requestSubmit()")
    page.until(f"{READY} && words.takes.length")


def times(page: Page) -> list[float]:
    found = page.run("words.marks.map(mark => mark.time_s)")
    assert isinstance(found, list)
    return found


@needs_browser
def test_the_token_leaves_the_address_and_stays_in_the_tab(page: Page) -> None:
    assert page.run("location.hash") == ""
    page.call("Page.reload")
    page.until("document.readyState === 'complete' && document.querySelector('#about').textContent")


@needs_browser
def test_without_its_token_the_page_says_where_to_get_it(browser: Page, client: Client) -> None:
    browser.run("sessionStorage.clear()")
    browser.open(f"http://{client.host}:{client.port}/")
    browser.until("!document.querySelector('#error').hidden")
    said = browser.run("document.querySelector('#error').textContent")
    assert "the link that taro-rt serve printed" in said


@needs_browser
def test_a_video_shows_its_picture_and_onsets(opened: Page) -> None:
    opened.until("video.videoWidth === 160 && video.readyState >= 2")
    assert opened.run("document.querySelectorAll('.mark').length") == len(times(opened)) > 0
    assert opened.run("words.length") == pytest.approx(8.0)


@needs_browser
def test_generated_takes_are_shown_and_the_first_is_chosen(opened: Page) -> None:
    generate(opened)
    assert opened.run("words.takes.map(take => take.seed)") == [0, 1]
    assert opened.run("document.querySelectorAll('#list input')[1].checked")
    assert opened.run("video.muted")
    assert opened.run("wave.getContext('2d').getImageData(0, 0, wave.width, wave.height).data.some(v => v)")


@needs_browser
def test_takes_can_be_auditioned_one_after_the_other(opened: Page) -> None:
    generate(opened)
    opened.click("#play")
    opened.until("!video.paused && source")
    opened.run("window.first = source; document.querySelectorAll('#list input')[2].click()")
    opened.until("words.chosen === 1 && source && source !== first")
    opened.run("video.currentTime = video.duration - 0.1")
    opened.until("video.ended && !source")


@needs_browser
def test_a_dragged_onset_is_where_it_was_dropped_and_the_sound_follows(opened: Page) -> None:
    generate(opened)
    before, width = times(opened), opened.run("line.clientWidth")
    sound = opened.run("Array.from(words.takes[0].buffer.getChannelData(0))")
    opened.drag(".mark:last-of-type", -width / 4)
    moved = times(opened)
    assert moved[-1] == pytest.approx(before[-1] - 2, abs=0.02) and moved[:-1] == before[:-1]
    generate(opened)
    assert not np.array_equal(sound, opened.run("Array.from(words.takes[0].buffer.getChannelData(0))"))


@needs_browser
def test_onsets_can_be_edited_with_the_keyboard_alone(opened: Page) -> None:
    before = times(opened)
    opened.run("document.querySelector('.mark').focus()")
    opened.press("ArrowRight")
    assert times(opened)[0] == pytest.approx(before[0] + 0.01)
    opened.press("ArrowDown")
    assert opened.run("+document.activeElement.getAttribute('aria-valuenow')") == pytest.approx(
        before[0] + 0.01, abs=0.001
    )
    opened.press("Delete")
    assert times(opened) == before[1:]
    opened.press("m", "m")
    assert len(times(opened)) == len(before)
    opened.run("document.querySelector('#reset').click()")
    assert times(opened) == before


@needs_browser
def test_a_take_is_downloaded_as_the_service_made_it(opened: Page, client: Client, tmp_path: Path) -> None:
    opened.run("document.querySelector('#format').value = 'wav'")
    generate(opened)
    opened.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    opened.run("document.querySelector('#list button').click()")
    name = opened.run("words.takes[0].name")
    target, stop = tmp_path / name, time.monotonic() + 30
    while not target.exists() and time.monotonic() < stop:
        time.sleep(0.05)
    assert target.stat().st_size == opened.run("words.takes[0].blob.size")


@needs_browser
def test_a_job_can_be_cancelled(opened: Page) -> None:
    opened.run(
        "const sent = send;"
        "send = (path, asked) => sent(path, {...asked, options: {...asked.options, steps: 10000}})"
    )
    opened.run("document.querySelector('#ask').requestSubmit()")
    opened.until(f"{STATE} === 'running' && !document.querySelector('#cancel').disabled")
    opened.click("#cancel")
    opened.until(READY)
    assert opened.run("document.querySelector('#state').textContent") == "cancelled"


@needs_browser
def test_a_file_that_is_no_video_fails_with_its_sentence(page: Page, clip: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    page.choose_file("#file", bad)
    page.until(f"{STATE} === 'failed'")
    assert page.run("document.querySelector('#error').textContent").startswith(
        "bad.mp4: expected a video file, got something unreadable"
    )
    assert page.run("document.querySelector('#editor').hidden")
    page.choose_file("#file", clip)
    page.until(READY)
    assert page.run("document.querySelector('#error').hidden")


@needs_browser
def test_a_video_that_is_too_large_is_not_even_sent(page: Page, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes((1 << 20) + 1))
    page.choose_file("#file", large)
    page.until(f"{STATE} === 'failed'")
    assert "large.mp4: expected at most 1048576 bytes" in page.run(
        "document.querySelector('#error').textContent"
    )


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    html, policy = page_and_policy()
    assert "http://" not in html and "https://" not in html
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert all(f'id="{name}"' in html for name in IDS)
