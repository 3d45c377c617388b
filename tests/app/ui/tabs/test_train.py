"""The Train tab in a browser: a folder is checked, and a training watched, paused and discarded, in all its states."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.jobs.queue import JobQueue
from app.library import Library
from app.trainings.manager import Trainings
from tests.app.ui.test_accessibility import LOOKS, Checked
from tests.support.browser import keep, overflow
from tests.support.painter import PAINTERS, PainterStudio
from tests.support.pretended import end, pretend

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Trainings]]:
    """A served page and its trainings, whose processes end at once."""
    from app.ui import page

    folder = tmp_path_factory.mktemp("outputs")
    studio = PainterStudio()
    queue = JobQueue(studio, folder, PAINTERS)
    blocks = page.build(studio, queue, Library(folder), folder / "none")
    trainings: Trainings = blocks.atelier.trainings  # type: ignore[attr-defined]
    trainings._command = (sys.executable, "-c", "print('nothing to do')")
    _, url = page.launch(blocks, port=None)
    yield url, trainings
    blocks.close(verbose=False)
    queue.close()


@pytest.fixture
def open_tab(site: tuple[str, Trainings], chromium: Any) -> Iterator[Any]:
    """A function that opens the page at the tab Train. Errors of scripts fail the test."""
    contexts: list[Any] = []
    problems: list[str] = []

    def opened(*, lang: str = "en-US", theme: str = "light", width: int = 1280) -> Any:
        viewport = {"width": width, "height": 900}
        context = chromium.new_context(viewport=viewport, locale=lang, color_scheme=theme)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(site[0], wait_until="domcontentloaded")
        tab.locator("#stage section").wait_for()
        tab.locator("#tab-train-button").click()
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    """A folder of twelve pictures, and two files that are none."""
    for k in range(12):
        card = Image.new("RGB", (80, 60), (20 * k, 120, 220 - 15 * k))
        card.save(tmp_path / f"card {k}.png")
        (tmp_path / f"card {k}.txt").write_text(f"a card of number {k}\n一张卡片")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 cut")
    (tmp_path / "old.gif").write_bytes(b"GIF89a")
    return tmp_path


def look(tab: Any) -> None:
    """Have the page ask how the training goes, as it does when somebody comes back to it; else that takes six seconds."""
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


@pytest.mark.parametrize(("lang", "theme"), LOOKS)
def test_every_state_is_accessible(
    lang: str, theme: str, site: tuple[str, Trainings], open_tab: Any, cats: Path
) -> None:
    trainings = site[1]
    tab = open_tab(lang=lang, theme=theme)
    tab.locator("form.ask-for").wait_for()
    checked = Checked(tab)
    checked.state("the form")
    for fold in tab.locator("form.ask-for summary").all():
        fold.click()
    tab.locator("form.ask-for [name=folder]").fill(str(cats))
    tab.locator("form.ask-for [name=folder]").press("Enter")
    tab.locator(".train .checked").wait_for()
    checked.state("a folder that was checked")
    keep(tab, f"train-checked-{lang}")
    made = pretend(trainings, "running", str(cats))
    look(tab)
    tab.locator(".train .film button").nth(3).wait_for()
    checked.state("running")
    keep(tab, f"train-running-{lang}")
    for how in ("paused", "failed", "done"):
        end(made, how)
        look(tab)
        tab.locator(f".train[data-state={'ended' if how == 'done' else how}]").wait_for()
        checked.state(how)
    tab.locator(".train [data-do=new]").click()
    tab.locator("form.ask-for").wait_for()
    assert not checked.found, checked.found


def test_a_training_is_checked_started_watched_paused_and_discarded(
    site: tuple[str, Trainings], open_tab: Any, cats: Path
) -> None:
    trainings = site[1]
    tab = open_tab()
    tab.locator("form.ask-for [type=submit]").click()
    assert tab.evaluate("document.activeElement.name") == "folder"  # what is missing
    tab.locator("form.ask-for [name=folder]").fill(str(cats / "nowhere"))
    tab.locator("form.ask-for [data-do=check]").click()
    assert "nowhere" in tab.locator(".train .refused").inner_text()
    tab.locator("form.ask-for [name=folder]").fill(str(cats))
    tab.locator("form.ask-for [data-do=check]").click()
    left_out = tab.locator(".train .left-out").inner_text()
    assert "broken.jpg" in left_out and "old.gif" in left_out
    tab.locator("form.ask-for [name=pack]").fill("../up")
    tab.locator("form.ask-for [type=submit]").click()
    tab.locator(".train .toast", has_text="name").wait_for()
    tab.locator("form.ask-for [name=pack]").fill("cards")
    tab.locator("form.ask-for [type=submit]").click()
    tab.locator(".train[data-state=failed]").wait_for()  # the process of this test does nothing
    now = trainings.now()
    assert now is not None and (now.order.network, now.order.pack) == ("pack", "cards")
    assert "nothing to do" in tab.locator(".train .cause").inner_text()
    trainings.forget()

    made = pretend(trainings, "running", str(cats))
    tab.locator(".train .plot[data-name=pixel] .mean").wait_for(state="attached")
    assert tab.locator(".train .plot[data-name=pixel] .mean").get_attribute("d").count("L") > 50
    tab.locator(".trains", has_text="training").wait_for()
    film = tab.locator(".train .film button")
    assert film.count() == 4 and film.nth(3).get_attribute("aria-current") == "true"
    film.nth(3).focus()
    tab.keyboard.press("ArrowLeft")
    assert "640" in tab.locator(".train .sample figcaption").inner_text()
    tab.wait_for_timeout(2000)  # a look does not take away what was chosen
    assert "640" in tab.locator(".train .sample figcaption").inner_text()
    tab.locator(".train [data-do=pause]").click()
    tab.locator(".train .standing", has_text="Saving, then it pauses").wait_for()
    assert (made / "asked").read_text() == "pause"
    end(made, "paused")
    tab.locator(".train [data-do=resume]").wait_for()
    tab.locator(".train [data-do=sure]").click()
    tab.locator(".train dialog.sure [data-do=forget]").click()
    tab.locator("form.ask-for").wait_for()
    assert not made.exists()


def test_it_fits_a_phone(site: tuple[str, Trainings], open_tab: Any) -> None:
    trainings = site[1]
    tab = open_tab(width=360)
    tab.locator("form.ask-for").wait_for()
    assert not overflow(tab)
    made = pretend(trainings, "running")
    look(tab)
    tab.locator(".train .film button").nth(3).wait_for()
    assert not [one for one in overflow(tab) if "film" not in one]
    end(made, "done")
    look(tab)
    tab.locator(".train [data-do=new]").click()
    tab.locator("form.ask-for").wait_for()
