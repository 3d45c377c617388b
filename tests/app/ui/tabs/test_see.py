"""The See tab in a browser: names as bars, heat over the picture, taught labels, scores, and pictures of other tabs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.jobs.queue import JobQueue
from app.ui.tray import Question, Tray, prompt_of, shown
from pipelines.errors import BadInput
from tests.support.browser import ask, keep, make, overflow, wait_state

pytestmark = pytest.mark.browser
FILES = "input[type=file]:has(+ #see-upload)"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A red thing left, a blue one right, on white."""
    image = Image.new("RGB", (96, 96), "white")
    image.paste("red", (10, 34, 38, 62))
    image.paste("blue", (58, 34, 86, 62))
    image.save(tmp_path / "two.png")
    return tmp_path / "two.png"


def plain(folder: Path, colour: str, name: str) -> Path:
    Image.new("RGB", (40, 40), colour).save(folder / name)
    return folder / name


def opened(tab: Any) -> Any:
    tab.locator("#tab-see-button").click()
    tab.locator("#see-stage section").wait_for()
    return tab


def way(tab: Any, mode: str) -> None:
    tab.locator(f'#see-form label:has([value="{mode}"])').click()


def test_pictures_are_named_by_any_labels(visit: Callable[..., Any], tmp_path: Path) -> None:
    tab = opened(visit())
    files = [str(plain(tmp_path, colour, f"{colour}.png")) for colour in ("red", "blue")]
    tab.set_input_files(FILES, files)
    tab.locator("#see-answer .gauges").first.wait_for()  # by all names that are known
    tab.locator("#see-form [name=labels]").fill("red, green，blue")
    tab.locator("#see-form [name=labels]").press("Control+Enter")
    first = tab.locator("#see-answer .gauges:not([hidden]) li.first")
    tab.locator("#see-answer p.small", has_text="over the 3 labels").wait_for()
    assert "red" in first.inner_text() and "%" in first.inner_text()
    assert tab.locator("#see-stage .strip button").all_inner_texts() == ["red", "blue"]
    tab.locator("#see-stage [data-see='1']").click()
    assert "blue" in first.inner_text()
    tab.locator("#see-stage [data-act=remove]").click()
    tab.wait_for_function("document.querySelectorAll('#see-stage [data-see]').length === 1")


def test_heat_shows_where_a_word_is(visit: Callable[..., Any], two: Path) -> None:
    tab = opened(visit())
    tab.set_input_files(FILES, str(two))
    tab.locator("#see-answer .gauges").first.wait_for()
    way(tab, "why")
    tab.locator("#see-form [name=prompt]").fill("red and blue")
    tab.locator("#see-form [name=prompt]").press("Control+Enter")
    heats = tab.locator("#see-answer [data-heat]")
    heats.first.wait_for()
    assert heats.count() == 3 and heats.nth(1).inner_text() == "red"
    assert tab.locator("#see-stage .frame.heated .heat").get_attribute("src").startswith("data:image/png")
    peak = "getComputedStyle(document.querySelector('#see-stage .frame')).getPropertyValue('--x')"
    assert float(tab.evaluate(peak)) < 0.5
    heats.nth(2).click()
    assert float(tab.evaluate(peak)) > 0.5
    heats.nth(2).click()
    assert tab.locator("#see-stage .frame.heated").count() == 0
    assert tab.locator("#see-answer .verdict").inner_text()


def test_why_is_one_click_from_a_candidate(visit: Callable[..., Any], queue: JobQueue) -> None:
    tab = visit()
    ask(tab, "a red bowl")
    wait_state(tab, "done")
    tab.locator("#stage figure:visible [data-act=see]").click()
    tab.locator("#see-answer .reasons").wait_for()
    assert tab.locator("#see-form [name=prompt]").input_value() == "a red bowl"
    assert tab.locator("#see-form [name=mode]:checked").input_value() == "why"
    assert tab.locator("#see-stage .frame.heated").count() == 1
    assert "rank 1 of 16" in tab.locator("#see-answer .reasons").inner_text()


def test_labels_are_taught_and_used(visit: Callable[..., Any], tmp_path: Path) -> None:
    tab = opened(visit())
    way(tab, "teach")
    tab.set_input_files(FILES, str(plain(tmp_path, "red", "0.png")))
    tab.locator("#see-note .trouble", has_text="write the label first").wait_for()
    for label, colours in (("warm", ("red", "#ff2010", "#e01008")), ("cold", ("blue", "#1020ff", "#0818e0"))):
        tab.locator("#see-form [name=label]").fill(label)
        files = [str(plain(tmp_path, colour, f"{label}{k}.png")) for k, colour in enumerate(colours)]
        tab.set_input_files(FILES, files)
        tab.locator("#see-answer .groups b", has_text=label).wait_for()
    tab.locator("#see-form [name=label]").press("Control+Enter")
    tab.locator("#see-answer svg.shots circle").first.wait_for()
    assert tab.locator("#see-answer svg.shots circle").count() == 2  # one and two a label
    with tab.expect_download() as download:
        tab.locator("#see-answer a[download]").click()
    assert download.value.suggested_filename.startswith("warm-cold-")
    tab.locator("#see-answer [data-act=use]").click()
    tab.locator("#see-form .own[aria-pressed=true]").wait_for()
    tab.set_input_files(FILES, str(plain(tmp_path, "#2030f0", "new.png")))
    first = tab.locator("#see-answer .gauges:not([hidden]) li.first")
    first.wait_for()
    assert "cold" in first.inner_text()


def test_pictures_are_scored_as_csv(visit: Callable[..., Any], tmp_path: Path) -> None:
    tab = opened(visit())
    tab.set_input_files(FILES, [str(plain(tmp_path, colour, f"{colour}.png")) for colour in ("red", "blue")])
    tab.locator("#see-answer .gauges").first.wait_for()
    way(tab, "score")
    tab.locator("#see-form [name=prompt]").fill("something blue")
    tab.locator("#see-form .transport [data-ways=score] button").click()
    tab.locator("#see-answer .scored li").first.wait_for()
    assert tab.locator("#see-answer .scored img").first.get_attribute("alt") == "blue"
    with tab.expect_download() as download:
        tab.locator("#see-answer a[download]").click()
    assert "blue,something blue,0." in Path(download.value.path()).read_text()


def test_what_is_wrong_is_told_beside_the_form(visit: Callable[..., Any], tmp_path: Path, two: Path) -> None:
    tab = opened(visit())
    tab.locator("#see-form .transport [data-ways=name] button").click()
    tab.locator("#see-note .trouble", has_text="no picture yet").wait_for()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    tab.set_input_files(FILES, [str(tmp_path / "broken.png"), str(two)])
    tab.locator("#see-note .trouble").wait_for()
    tab.locator("#see-stage [data-see]").wait_for(state="attached")
    tab.locator("#see-form summary").click()
    tab.locator("#see-form [name=templates]").fill("a photo")
    tab.locator("#see-form [name=labels]").fill("red")
    tab.locator("#see-form [name=labels]").press("Control+Enter")
    tab.locator("#see-answer .trouble", has_text="must hold {label} once").wait_for()


@pytest.mark.parametrize(("width", "language", "scheme"), [(360, "zh-CN", "light"), (1280, "en-US", "dark")])
def test_it_fits_small_and_large(
    visit: Callable[..., Any], two: Path, width: int, language: str, scheme: str
) -> None:
    tab = opened(visit(width=width, height=800, lang=language, theme=scheme))
    tab.set_input_files(FILES, str(two))
    tab.locator("#see-answer .gauges").first.wait_for()
    way(tab, "why")
    tab.locator("#see-form [name=prompt]").fill("red and blue")
    tab.locator("#see-form [name=prompt]").press("Control+Enter")
    tab.locator("#see-answer .reasons").wait_for()
    assert overflow(tab) == []
    keep(tab, f"see-{width}-{language}-{scheme}")


def test_the_tray_and_the_question(queue: JobQueue) -> None:
    """What comes from a browser is believed in nothing; the oldest pictures make room."""
    assert Question.read("[") == Question.read("3") == Question()
    read = Question.read('{"mode": "why", "at": -3, "prompt": 5, "labels": null}')
    assert read == Question("why", 0, prompt="5")
    tray = Tray()
    for k in range(30):
        tray = tray.with_pictures([shown(Image.new("RGB", (4, 4), (k, 0, 0)), str(k))])
    assert len(tray.pictures) == 24 and tray.pictures[0].name == "6" and tray.at(99) == 23
    assert tray.with_pictures([tray.pictures[3]], first=True).pictures[0].name == "9"
    assert len(tray.taught("a", list(tray.pictures)).taught("a", list(tray.pictures[:1])).groups["a"]) == 24
    for k in range(20):
        tray = tray.taught(str(k), [])
    with pytest.raises(BadInput, match="21 labels"):
        tray.taught("one more", [])
    assert prompt_of("optimize", {"prompt": "a cup ^ a castle:2 | fog | blur:-0.3 @80"}) == "a castle, fog"
    assert prompt_of("generate", {"prompt": "a cup: blue | red"}) == "a cup: blue | red"
    assert make(queue, "a green bowl").suffix == ".png"
