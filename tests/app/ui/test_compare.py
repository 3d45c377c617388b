"""Two results of a tool under a slider."""

from __future__ import annotations

from typing import Any

import pytest

from app.jobs.queue import JobQueue
from tests.support.browser import ask, overflow, wait_state

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "lang"), [(1280, "en-US"), (360, "zh-CN")])
def test_two_results_lie_under_a_slider(visit: Any, queue: JobQueue, width: int, lang: str) -> None:
    tab = visit(width=width, lang=lang)
    ask(tab, "a red kite")
    wait_state(tab, "done")
    tab.locator("#sheet [data-look='2']").click()
    tab.locator("#stage figure:visible [data-compare]").click()
    dialog = tab.locator("#beside")
    panes = dialog.locator(".pane")
    dialog.wait_for()
    assert panes.count() >= 4 and not overflow(tab)
    shown = tab.locator("#stage figure:not([hidden]) img").get_attribute("src")
    first, second = dialog.locator(".over img").all()
    assert str(first.get_attribute("src")).endswith(str(shown))  # the one that is looked at
    slider = dialog.locator(".wipe")
    assert slider.evaluate("one => one === document.activeElement")
    slider.press("ArrowLeft")
    assert dialog.locator(".over").evaluate("one => one.style.getPropertyValue('--cut')") == "49%"
    before = second.get_attribute("src")
    panes.nth(3).click()
    assert panes.nth(3).get_attribute("aria-pressed") == "true" and before == first.get_attribute("src")
    tab.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def test_the_last_runs_are_compared_in_every_tool(visit: Any, queue: JobQueue) -> None:
    tab = visit()
    tab.locator("#tab-optimize-button").click()
    for prompt in ("a leaf", "a longer leaf"):
        tab.locator("#opt-prompt textarea").fill(prompt)
        tab.locator("#opt-steps input").first.fill("6")
        tab.locator("#opt-prompt textarea").press("Control+Enter")
        tab.locator(f"#canvas section.done img.now[alt='{prompt}']").first.wait_for(state="attached")
    tab.locator("#optimize-earlier [data-compare], .earlier:visible [data-compare]").first.click()
    assert tab.locator("#beside .pane").count() >= 3
    tab.locator("#beside .close").click()
    tab.locator("#beside").wait_for(state="hidden")
