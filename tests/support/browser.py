"""What the tests of the page do in a tab, and behind it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from app.jobs.queue import JobQueue

SCREENSHOTS = Path(__file__).parents[1] / "screenshots"


def ask(tab: Any, prompt: str) -> None:
    """Type a prompt and press Ctrl+Enter inside the box."""
    tab.locator("#prompt textarea").fill(prompt)
    tab.locator("#prompt textarea").press("Control+Enter")


def wait_state(tab: Any, state: str) -> Any:
    place = tab.locator(f"#stage section.{state}")
    place.wait_for()
    return place


def keep(tab: Any, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    tab.screenshot(path=str(SCREENSHOTS / f"{name}.png"), full_page=True)


def make(queue: JobQueue, prompt: str = "a blue bowl", **settings: Any) -> Path:
    """A finished picture, made without the page."""
    job_id = queue.submit("generate", {"prompt": prompt, "candidates": 2, "keep": 1, **settings}, "test")
    for _ in range(500):
        if (job := queue.job(job_id)).is_over:
            return Path(job.pictures[0]["path"])
        time.sleep(0.02)
    raise AssertionError(queue.job(job_id))


def enlarge(tab: Any, name: str = "") -> Any:
    """The large view of the picture of the Library whose file has this name, else of the first."""
    tab.locator("#tab-library-button").click()
    tab.locator("#library .shot").first.wait_for()
    if name and tab.locator("#library [data-toggle=stacked][aria-pressed=true]").count():
        tab.locator("#library [data-toggle=stacked]").click()  # it may stand behind others
    tab.locator(f"#library .shot[data-name$='{name}']" if name else "#library .shot").first.click()
    large = tab.locator("#library dialog.big article")
    large.wait_for()
    return large


def unfold(tab: Any, accordion: str) -> None:
    """Open an accordion for the first time. What is typed before the next frame is lost: Gradio fills its fields then."""
    tab.locator(f"{accordion} > button").click()
    tab.locator(f"{accordion} label:visible").first.wait_for()
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def overflow(tab: Any) -> list[str]:
    """What sticks out at the right of the window."""
    return tab.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(one => {
             const box = one.getBoundingClientRect();
             return box.width > 0 && box.right > innerWidth + 1 && !one.closest('.strip, .narrow, #announce, .only-heard')
               && getComputedStyle(one).visibility !== 'hidden' && !one.closest('[aria-hidden=true]');
           }).map(one => one.tagName + '#' + one.id + '.' + one.className + ' ' + one.getBoundingClientRect().right)"""
    )
