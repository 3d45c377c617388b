"""A pipeline without a designed tab, in a real browser: its tab comes from its Settings alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.jobs.queue import Job, JobQueue
from app.library import Library
from pipelines.core.record import read_record
from pipelines.io.images import open_picture
from tests.support.browser import enlarge, keep, overflow, unfold
from tests.support.stripes import PIPELINES, StripesStudio

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, JobQueue]]:
    """A page over a table of pipelines with one more row."""
    from app.ui import page

    folder = tmp_path_factory.mktemp("outputs")
    made = StripesStudio()
    queue = JobQueue(made, folder, PIPELINES)
    blocks = page.build(made, queue, Library(folder), tmp_path_factory.mktemp("examples"))
    _, url = page.launch(blocks, port=None)
    yield url, queue
    blocks.close(verbose=False)
    queue.close()


def enter(tab: Any) -> None:
    tab.locator("#tab-stripes-button").click()
    tab.locator("#stripes-stage section").wait_for()


def wait_state(tab: Any, state: str) -> Any:
    place = tab.locator(f"#stripes-stage section.{state}")
    place.wait_for()
    return place


def newest(queue: JobQueue) -> Job:
    return next(job for job in queue.jobs(count=20) if job.pipeline == "stripes")


def test_a_pipeline_without_page_code_has_a_tab_that_runs(
    visit: Any, queue: JobQueue, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 40), "navy").save(tmp_path / "navy.png")
    tab = visit()
    assert tab.locator("#tab-stripes-button").inner_text() == "Stripes"
    enter(tab)
    form = tab.locator("#stripes-bench")
    for words in (
        "count",
        "picture",
        "direction",
        "which way the stripes run",
        "bold",
        "stripes twice as wide",
    ):
        assert words in form.inner_text(), words
    unfold(tab, "#stripes-advanced")
    assert "how dark the stripes are" in form.inner_text()
    keep(tab, "plain-empty-en-light-1280")
    tab.locator("#stripes-count input").fill("3")
    tab.locator("#stripes-seed input").fill("7")
    tab.locator("#stripes-bold input").check()
    tab.locator("#stripes-picture input[type=file]").set_input_files(tmp_path / "navy.png")
    tab.locator("#stripes-picture img").wait_for(state="attached")
    tab.locator("#stripes-prompt textarea").fill("slow <b>stripes</b>")
    tab.locator("#stripes-prompt textarea").press("Control+Enter")
    running = wait_state(tab, "running")
    running.locator(".tiles img").first.wait_for()
    assert "striping" in running.inner_text()
    keep(tab, "plain-running-en-light-1280")
    done = wait_state(tab, "done")
    assert done.locator("figure img").count() == 3
    assert done.locator("figure img").first.get_attribute("alt") == "slow <b>stripes</b>"
    keep(tab, "plain-done-en-light-1280")
    with tab.expect_download() as download:
        done.locator("a[download]").first.click()
    download.value.save_as(tmp_path / "saved.png")
    settings = read_record(tmp_path / "saved.png", PIPELINES).settings
    assert (settings["count"], settings["seed"], settings["bold"]) == (3, 7, True)
    assert open_picture(settings["picture"]).size == (40, 40)

    tab.locator("#stripes-count input").fill("1")
    done.locator("[data-act=reuse]").first.click()
    tab.locator("#stripes-note", has_text="settings of the picture").wait_for()
    assert tab.locator("#stripes-count input").input_value() == "3"
    tab.reload(wait_until="domcontentloaded")  # the address brings back the run and its tab
    assert wait_state(tab, "done").locator("figure img").count() == 3
    assert tab.locator("#stripes-prompt textarea").input_value() == "slow <b>stripes</b>"
    enlarge(tab).locator("[data-to=reuse]").click()
    tab.locator("#stripes-note", has_text="settings of the picture").wait_for()


def test_it_stops_and_says_what_is_wrong(visit: Any, queue: JobQueue) -> None:
    tab = visit(theme="dark")
    enter(tab)
    tab.locator("#stripes-prompt textarea").fill("")
    tab.locator("#stripes-transport [data-act=start]").click()
    tab.locator("#stripes-note .trouble", has_text="The prompt is empty").wait_for()
    tab.locator("#stripes-prompt textarea").fill("slow stripes")
    tab.locator("#stripes-transport [data-act=start]").click()
    wait_state(tab, "running")
    tab.locator("#stripes-transport [data-act=stop]").click()
    wait_state(tab, "stopped")
    tab.locator("#stripes-transport [data-act=again]").wait_for()
    keep(tab, "plain-stopped-en-dark-1280")


def test_both_languages_and_360_pixels(visit: Any, queue: JobQueue) -> None:
    tab = visit(lang="zh-CN", width=360, height=740)
    tab.locator("#tabs button", has_text="条纹").first.wait_for(state="attached")
    tab.evaluate("document.querySelector('#tab-stripes-button').click()")
    tab.locator("#stripes-stage section").wait_for()
    assert "还没有" in tab.locator("#stripes-stage").inner_text()
    tab.locator("#stripes-prompt textarea").fill("条纹")
    tab.locator("#stripes-transport [data-act=start]").click()
    wait_state(tab, "done")
    assert overflow(tab) == []
    keep(tab, "plain-done-zh-light-360")
