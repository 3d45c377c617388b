"""Accessibility by axe-core: no serious rule in any state of a run, in both languages and themes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.jobs.queue import JobQueue
from tests.support.browser import ask, make, wait_state

pytestmark = pytest.mark.browser

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
# Everything that WCAG 2.2 asks for at AA, and the rule for names that lack the words that are seen.
RUN = """async (only) => {
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
  const rules = only ? { runOnly: { type: "rule", values: only } }
    : { runOnly: { type: "tag", values: tags }, rules: { "label-content-name-mismatch": { enabled: true } } };
  const found = await axe.run(document, { ...rules, resultTypes: ["violations"], preload: false });
  return found.violations.filter((one) => ["serious", "critical"].includes(one.impact)).map((one) =>
    one.id + ": " + one.nodes.slice(0, 4).map((node) => node.target + " " + node.html.slice(0, 160)).join(" | "));
}"""
OTHER_THEME = (
    """() => { for (const one of [document.documentElement, document.body]) one.classList.toggle("dark"); }"""
)
LOOKS = [("en-US", "light"), ("zh-CN", "dark")]  # each state is seen in the other theme, too


class Checked:
    """A tab whose states are checked one after another; what is found is told at the end."""

    def __init__(self, tab: Any) -> None:
        self.tab, self.found = tab, dict[str, list[str]]()
        tab.evaluate(AXE)

    def state(self, name: str) -> None:
        found = self.tab.evaluate(RUN, None)
        self.tab.emulate_media(reduced_motion="reduce")
        self.tab.evaluate(OTHER_THEME)
        found += self.tab.evaluate(RUN, ["color-contrast"])
        self.tab.evaluate(OTHER_THEME)
        if found:
            self.found[name] = found


@pytest.fixture(params=LOOKS, ids=["en", "zh"])
def checked(request: pytest.FixtureRequest, visit: Any) -> Iterator[Checked]:
    lang, theme = request.param
    one = Checked(visit(lang=lang, theme=theme))
    yield one
    told = "\n".join(f"{state}\n  " + "\n  ".join(found) for state, found in one.found.items())
    assert not one.found, told


def test_generate(checked: Checked) -> None:
    tab = checked.tab
    checked.state("empty")
    ask(tab, "a slow xqzt heart")
    wait_state(tab, "running").locator("img").first.wait_for()
    checked.state("running")
    tab.locator("#stop").click()
    wait_state(tab, "stopped")
    checked.state("stopped")
    ask(tab, "a heart")
    wait_state(tab, "done")
    tab.locator("#stage [data-link]").first.click()
    checked.state("done")
    ask(tab, "a crash")
    wait_state(tab, "failed")
    checked.state("failed")
    tab.locator("#cut").evaluate("one => { one.hidden = false; }")
    tab.locator("#advanced > button").click()
    checked.state("a cut line, and all settings")


def test_optimize(checked: Checked) -> None:
    tab = checked.tab
    tab.locator("#tab-optimize-button").click()
    tab.locator("#canvas section").wait_for()
    checked.state("empty")
    tab.locator("#opt-steps input").fill("40")
    tab.locator("#opt-prompt textarea").fill("a slow castle | a moon:0.5")
    tab.locator("#opt-prompt textarea").press("Control+Enter")
    tab.locator("#canvas section.running img").first.wait_for()
    checked.state("running")
    tab.locator("#optimize-buttons [data-act=pause]").click()
    tab.locator("#canvas section.stopped").wait_for()
    checked.state("paused")
    tab.locator("#opt-prompt textarea").fill("a castle")
    tab.locator("#opt-prompt textarea").press("Control+Enter")
    tab.locator("#canvas section.done").wait_for()
    checked.state("done")


def test_edit(checked: Checked, tmp_path: Path) -> None:
    tab = checked.tab
    tab.locator("#tab-edit-button").click()
    tab.locator("#proof section").wait_for()
    checked.state("empty")
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(tmp_path / "photo.png")
    tab.locator("input[type=file]:has(+ #edit-upload)").set_input_files(tmp_path / "photo.png")
    tab.locator("#proof section.ready img.now").wait_for()
    checked.state("ready")
    tab.locator("#edit-form [name=source]").fill("a gradient")
    tab.locator("#edit-form [name=prompt]").fill("a sunset")
    tab.locator("#edit-buttons [data-act=edit]").click()
    tab.locator("#proof section.done").wait_for()
    checked.state("done")


def test_library_and_models(checked: Checked, studio: tuple[str, JobQueue]) -> None:
    tab = checked.tab
    make(studio[1], "something")
    tab.locator("#tab-library-button").click()
    tab.locator("#library .shot img").first.wait_for()
    checked.state("library")
    tab.locator("#library [data-menu=date] summary").click()
    checked.state("library: a menu")
    tab.keyboard.press("Escape")
    tab.locator("#library .shot").first.focus()
    tab.keyboard.press("Space")
    checked.state("library: one is chosen")
    tab.keyboard.press("Enter")
    tab.locator("#library dialog.big .family h3").wait_for()
    checked.state("library: one is large")
    tab.keyboard.press("Escape")
    tab.keyboard.press("?")
    checked.state("library: its keys")
    tab.keyboard.press("Escape")
    tab.locator("#tab-models-button").click()
    tab.locator("#models .pack").first.wait_for()
    checked.state("models")
