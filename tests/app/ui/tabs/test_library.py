"""The Library tab in a browser: searching, choosing, working on pictures, seeing them large and beside each other."""

from __future__ import annotations

import base64
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.jobs.queue import JobQueue
from tests.support.browser import enlarge, keep, overflow
from tests.support.wall import hang

pytestmark = pytest.mark.browser
SHOTS = "#library .pictures .shot"


@pytest.fixture(scope="module", autouse=True)
def wall(studio: tuple[str, JobQueue]) -> None:
    """Six pictures, two a day, and two more that look the same as the first."""
    colours = ("#d01818", "#18a018", "#1818d0", "#f0a0a0", "#a0f0a0", "#a0a0f0")
    for k, colour in enumerate(colours):
        hang(studio[1].folder, f"p{k}", colour, prompt=f"a {colour} card", age=100 + k * 43_200, seed=k)
    for k in range(2):
        hang(studio[1].folder, f"twin{k}", "#d01819", prompt="a #d01818 card", age=120 + k, seed=20 + k)


def opened(tab: Any) -> Any:
    tab.locator("#tab-library-button").click()
    tab.locator(SHOTS).first.wait_for()
    tab.wait_for_timeout(300)  # the index is begun
    tab.locator("#library .filling [data-do=index]").wait_for(state="detached")
    tab.wait_for_function("() => !document.querySelector('.library.asking')")
    return tab


def shot(tab: Any, name: str) -> Any:
    return tab.locator(f"{SHOTS}[data-name$='{name}.png']")


def names(tab: Any) -> list[str]:
    """The names of the pictures on the wall, in order."""
    return tab.locator(SHOTS).evaluate_all("all => all.map((one) => one.dataset.id.match(/(\\w+).png$/)[1])")


def chosen(tab: Any) -> int:
    return tab.locator(f"{SHOTS}[aria-pressed=true]").count()


def search(tab: Any, text: str) -> None:
    tab.locator("#library [type=search]").fill(text)
    with tab.expect_response("**/library/find"):
        tab.locator("#library [type=search]").press("Enter")
    tab.wait_for_function("() => !document.querySelector('.library.asking')")


def test_it_opens_with_the_newest_and_searches_by_words(visit: Callable[..., Any]) -> None:
    tab = opened(visit())
    assert tab.locator("#library .day").count() >= 2
    search(tab, "blue")
    assert names(tab)[0] == "p2"
    search(tab, "green:1 blue:0.1")
    assert names(tab)[0] == "p1"
    tab.locator("#library [data-do=clear]").click()
    tab.locator("#library .day").first.wait_for()
    search(tab, "x" * 500)
    tab.locator("#library .toast").wait_for(state="hidden")


def test_keys_move_choose_star_and_undo(visit: Callable[..., Any]) -> None:
    tab = opened(visit())
    tab.locator(SHOTS).first.focus()
    tab.keyboard.press("Space")
    assert chosen(tab) == 1 and "1 chosen" in tab.locator("#library .tray").inner_text()
    tab.keyboard.press("Shift+ArrowRight")
    tab.keyboard.press("Shift+ArrowRight")
    assert chosen(tab) == 3
    tab.keyboard.press("s")
    starred = tab.locator(f"{SHOTS}[data-star=yes]")
    starred.nth(2).wait_for()
    tab.locator("#library .toast", has_text="3 got a star").wait_for()
    tab.keyboard.press("Escape")
    tab.locator("#library .tray").wait_for(state="hidden")
    assert chosen(tab) == 0
    tab.locator("#library [data-toggle=starred]").click()
    tab.wait_for_function(f"() => document.querySelectorAll('{SHOTS}').length === 3")
    tab.locator("#library [data-toggle=starred]").click()
    tab.wait_for_function(f"() => document.querySelectorAll('{SHOTS}').length > 3")
    tab.keyboard.press("Control+z")
    starred.first.wait_for(state="detached")


def test_a_band_drawn_with_the_mouse_chooses(visit: Callable[..., Any]) -> None:
    tab = opened(visit())
    first, third = (tab.locator(SHOTS).nth(k).bounding_box() for k in (0, 1))
    tab.mouse.move(first["x"] + 10, first["y"] + 10)
    tab.mouse.down()
    tab.mouse.move(third["x"] + 20, third["y"] + 30, steps=4)
    tab.mouse.up()
    tab.locator("#library dialog.big").wait_for(state="hidden")
    assert chosen(tab) == 2
    tab.locator(SHOTS).nth(1).click()  # among chosen ones a click lets go
    assert chosen(tab) == 1
    tab.keyboard.press("Control+a")
    assert chosen(tab) == tab.locator(SHOTS).count()


def test_more_like_and_unlike_these(visit: Callable[..., Any]) -> None:
    tab = opened(visit())
    shot(tab, "p2").focus()
    tab.keyboard.press("m")
    tab.locator("#library .token").wait_for()
    tab.locator(f"{SHOTS} .nearness").first.wait_for()
    assert names(tab)[0] in ("p2", "p5")
    shot(tab, "p1").locator(".tick").click()
    tab.locator("#library .tray [data-do=unlike]").click()
    tab.locator("#library .token.minus").wait_for()
    for _ in range(2):
        tab.locator("#library .token").first.click()
    tab.locator("#library .token").first.wait_for(state="detached")


def test_a_dropped_picture_is_searched_by(visit: Callable[..., Any], tmp_path: Path) -> None:
    Image.new("RGB", (900, 600), "#10c010").save(tmp_path / "green.png")
    data = base64.b64encode((tmp_path / "green.png").read_bytes()).decode()
    tab = opened(visit())
    tab.evaluate(
        """data => {
             const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0)), files = new DataTransfer();
             files.items.add(new File([bytes], 'green.png', {type: 'image/png'}));
             document.querySelector('#library .pictures').dispatchEvent(
               new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true}));
           }""",
        data,
    )
    tab.locator("#library .token").wait_for()
    tab.locator(f"{SHOTS} .nearness").first.wait_for()
    assert names(tab)[0] == "p1"


def test_tags_filter_and_a_note_stays(visit: Callable[..., Any]) -> None:
    tab = opened(visit())
    for name in ("p1", "p2"):
        shot(tab, name).locator(".tick").click()
    tab.locator("#library .tray [data-menu=tags] summary").click()
    tab.locator("#library .tray [name=add-tag]").fill("for the <cover>")
    tab.keyboard.press("Enter")
    tab.locator("#library .toast", has_text="for the <cover>").wait_for()
    tab.keyboard.press("Escape")
    tab.locator("#library .narrow [data-menu=tag] summary").click()
    tab.locator("#library .narrow [data-choose=tag]", has_text="cover").click()
    tab.wait_for_function(f"() => document.querySelectorAll('{SHOTS}').length === 2")
    large = enlarge(tab, "p1.png")
    assert "for the <cover>" in large.locator(".tagged").inner_text()
    large.locator("[name=note]").fill("the best <b>one</b>")
    large.locator(".noting [type=submit]").click()
    tab.locator("#library .toast", has_text="note is kept").wait_for()
    tab.keyboard.press("Escape")
    assert enlarge(tab, "p1.png").locator("[name=note]").input_value() == "the best <b>one</b>"


def test_the_bin_takes_gives_back_and_is_emptied(visit: Callable[..., Any], queue: JobQueue) -> None:
    lost = hang(queue.folder, "lost", "#808080", prompt="a grey card")
    kept = hang(queue.folder, "kept", "#8f8f10", prompt="an olive card")
    tab = opened(visit())
    for name in ("lost", "kept"):
        shot(tab, name).wait_for()
        shot(tab, name).focus()
        tab.keyboard.press("Delete")
        shot(tab, name).wait_for(state="detached")
    end = time.monotonic() + 20
    while (lost.exists() or kept.exists()) and time.monotonic() < end:
        tab.wait_for_timeout(50)  # the wall shows it before the server has answered
    assert not lost.exists() and not kept.exists()
    tab.locator("#library .toast [data-do=undo]").click()
    shot(tab, "kept").wait_for()
    assert kept.is_file()
    tab.locator("#library [data-toggle=binned]").click()
    tab.wait_for_function(f"() => document.querySelectorAll('{SHOTS}').length === 1")
    tab.locator("#library .narrow [data-do=sure]").click()
    tab.locator("#library dialog.sure [data-do=empty]").click()
    tab.locator("#library .toast", has_text="1 files deleted").wait_for()
    assert "The bin is empty" in tab.locator("#library .nothing").inner_text()
    kept.unlink()


def test_a_stack_opens_and_closes(visit: Callable[..., Any]) -> None:
    tab = opened(visit())
    search(tab, "red")
    stack = tab.locator(f"{SHOTS}.stack").first
    stack.wait_for()
    before = tab.locator(SHOTS).count()
    stack.locator(".pile").click()
    tab.locator(f"{SHOTS}[data-behind]").first.wait_for()
    assert tab.locator(SHOTS).count() == before + 2
    stack.focus()
    tab.keyboard.press("e")
    tab.locator(f"{SHOTS}[data-behind]").first.wait_for(state="detached")


def test_two_are_compared_under_a_slider(visit: Callable[..., Any]) -> None:
    tab = opened(visit())
    for name in ("p1", "p2"):
        shot(tab, name).locator(".tick").click()
    shot(tab, "p2").focus()
    tab.keyboard.press("c")
    beside = tab.locator("#library dialog.beside")
    beside.locator(".pane").nth(1).wait_for()
    assert "seed 1" in beside.inner_text() and "seed 2" in beside.inner_text()
    beside.locator("label:has([value=slide])").click()
    beside.locator(".wipe").fill("20")
    cut = "getComputedStyle(document.querySelector('#library .over')).getPropertyValue('--cut').trim()"
    assert tab.evaluate(cut) == "20%"
    assert beside.locator(".over img").nth(1).get_attribute("alt") != beside.locator(
        ".over img"
    ).first.get_attribute("alt")
    tab.keyboard.press("Escape")
    beside.wait_for(state="hidden")


def test_chosen_ones_are_packed(visit: Callable[..., Any]) -> None:
    tab = opened(visit())
    for name in ("p1", "p2"):
        shot(tab, name).locator(".tick").click()
    with tab.expect_download() as download:
        tab.locator("#library .tray [data-do=zip]").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        held = archive.namelist()
    assert {"p1.png", "p2.png", "contact-sheet-1.jpg", "pictures.csv"} <= set(held)


def test_the_large_view_turns_and_sends_on(visit: Callable[..., Any]) -> None:
    tab = visit()
    large = enlarge(tab, "p1.png")
    assert "a #18a018 card" in large.locator(".prompt").inner_text()
    assert large.locator(".family h3").inner_text() == "Where it comes from"
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function(
        "() => !document.querySelector('#library dialog.big article').dataset.id.includes('p1.png')"
    )
    tab.keyboard.press("ArrowLeft")
    tab.locator("#library dialog.big .prompt", has_text="#18a018").wait_for()
    large.locator("[data-to=remix]").click()
    tab.locator("#note", has_text="with a new seed").wait_for()
    assert tab.locator("#prompt textarea").input_value() == "a #18a018 card"
    tab.locator("#roll input:checked").wait_for(state="attached")


def test_a_folder_of_this_computer(visit: Callable[..., Any], tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "#1030e0").save(tmp_path / "photo.jpg")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    tab = opened(visit())
    tab.locator("#library .narrow [data-menu=folder] summary").click()
    tab.locator("#library [name=folder]").fill(str(tmp_path / "nowhere"))
    tab.keyboard.press("Enter")
    tab.locator("#library .toast.trouble", has_text="no folder").wait_for()
    tab.locator("#library .narrow [data-menu=folder] summary").click()
    tab.locator("#library [name=folder]").fill(str(tmp_path))
    tab.keyboard.press("Enter")
    tab.wait_for_function(f"() => document.querySelectorAll('{SHOTS}').length === 1")
    tab.locator("#library [data-toggle=binned]").wait_for(state="hidden")
    tab.locator("#library .filling [data-do=broken]").click()
    tab.locator("#library dialog.told-of", has_text="broken.png").wait_for()
    tab.keyboard.press("Escape")
    tab.locator(SHOTS).first.click()
    tab.locator("#library dialog.big [data-to=edit]").click()
    tab.locator("#proof section.ready img.now").wait_for()


@pytest.mark.parametrize(
    ("width", "language", "theme"),
    [(360, "zh-CN", "dark"), (360, "en-US", "light"), (1280, "zh-CN", "light")],
)
def test_it_fits_small_and_large(visit: Callable[..., Any], width: int, language: str, theme: str) -> None:
    tab = opened(visit(width=width, height=800, lang=language, theme=theme))
    keep(tab, f"library-wall-{width}-{language}-{theme}")
    assert overflow(tab) == []
    for k in range(2):
        tab.locator(SHOTS).nth(k).focus()
        tab.keyboard.press("Space")
    assert tab.locator("#library .tray").bounding_box()["width"] <= width
    keep(tab, f"library-chosen-{width}-{language}-{theme}")
    tab.keyboard.press("Enter")
    tab.locator("#library dialog.big .family h3").wait_for()
    assert tab.locator("#library dialog.big").bounding_box()["width"] <= width
    keep(tab, f"library-large-{width}-{language}-{theme}")
