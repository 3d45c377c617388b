"""Small comforts of the page: the first visit, the keys, earlier prompts, and the title while a run goes on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.browser import ask, wait_state

pytestmark = pytest.mark.browser


def test_the_first_visit_has_three_steps_and_comes_once(visit: Any) -> None:
    tab = visit()
    band = tab.locator("#welcome")
    band.wait_for()
    assert "1/3" in band.inner_text()
    band.locator("[data-welcome=next]").click()
    assert "2/3" in band.inner_text() and "pointed" in (tab.locator("#go").get_attribute("class") or "")
    band.locator("[data-welcome=next]").click()
    band.locator("[data-welcome=next]").wait_for(state="hidden")
    assert "3/3" in band.inner_text()
    band.locator("[data-welcome=skip]").click()
    band.wait_for(state="hidden")
    assert tab.locator(".pointed").count() == 0
    tab.reload(wait_until="domcontentloaded")
    tab.locator("#stage section").wait_for()
    tab.wait_for_function(
        "document.querySelector('#announce').getAttribute('aria-live')"
    )  # the page has arrived
    band.wait_for(state="hidden")


def test_a_question_mark_shows_the_keys_but_not_while_typing(visit: Any) -> None:
    tab = visit()
    prompt = tab.locator("#prompt textarea")
    prompt.fill("")
    prompt.press("?")
    tab.locator("#keys").wait_for(state="hidden")
    assert prompt.input_value() == "?"
    tab.locator("#tab-generate-button").press("?")
    assert "earlier prompts" in tab.locator("#keys").inner_text()
    tab.keyboard.press("Escape")
    tab.locator("#keys").wait_for(state="hidden")
    tab.locator("[data-keys]").first.click()
    tab.locator("#keys [data-keys]").click()
    tab.locator("#keys").wait_for(state="hidden")


def test_earlier_prompts_come_back_by_the_arrow_keys(visit: Any) -> None:
    tab = visit()
    for words in ("a red heart", "a blue moon"):
        ask(tab, words)
        wait_state(tab, "done")
    prompt = tab.locator("#prompt textarea")
    prompt.fill("")
    for key, shown in (
        ("ArrowUp", "a blue moon"),
        ("ArrowUp", "a red heart"),
        ("ArrowUp", "a red heart"),  # there is none before it
        ("ArrowDown", "a blue moon"),
        ("ArrowDown", ""),
    ):
        prompt.press(key)
        assert prompt.input_value() == shown
    prompt.fill("half a line")
    prompt.press("ArrowUp")  # the caret stands at the end: the key is the box's own
    assert prompt.input_value() == "half a line"


def test_the_title_tells_how_far_a_run_is(visit: Any) -> None:
    tab = visit()
    ask(tab, "a slow red heart")
    wait_state(tab, "running")
    tab.wait_for_function("/^[0-9]+% · Atelier$/.test(document.title)")
    wait_state(tab, "done")
    tab.wait_for_function("document.title === 'Atelier'")
