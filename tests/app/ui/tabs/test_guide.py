"""The engine "Diffusion" of Optimize's tab in a real browser, over the same fake that grows a shape."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.jobs.queue import Job, JobQueue
from app.ui.html import guide_form
from pipelines.guide.settings import GuideSettings
from tests.support.browser import keep, overflow

pytestmark = pytest.mark.browser


def enter(tab: Any) -> None:
    tab.locator("#tab-optimize-button").click()
    tab.locator("#canvas section").wait_for()


def choose(tab: Any, engine: str) -> None:
    tab.locator(f"#opt-engine [value={engine}]").check()


def start(tab: Any, prompt: str) -> None:
    tab.locator("#opt-prompt textarea").fill(prompt)
    tab.locator("#opt-prompt textarea").press("Control+Enter")


def looked_at(tab: Any, queue: JobQueue) -> Job:
    return queue.job(tab.locator("#canvas section").get_attribute("data-job"))


def test_the_chip_chooses_and_the_form_is_read_and_filled(visit: Any, queue: JobQueue) -> None:
    tab = visit()
    enter(tab)
    tab.locator("#opt-steps").wait_for()
    tab.locator("#opt-guide").wait_for(state="hidden")
    choose(tab, "guide")
    tab.locator("#opt-guide").wait_for()
    tab.locator("#opt-steps").wait_for(state="hidden")
    keep(tab, "guide-empty-en-light-1280")
    tab.locator("#opt-guide [name=steps]").fill("30")
    for fold in tab.locator("#opt-guide summary").all():
        fold.click()
    tab.locator("#opt-guide [name=cut_overview]").fill("[3]*500+[1]*500")
    tab.locator("#opt-guide [name=symmetry]").select_option("vertical")
    start(tab, "a tower")
    tab.locator("#canvas section.done").wait_for()
    job = looked_at(tab, queue)
    assert job.pipeline == "guide" and job.settings["prompt"] == "a tower" and job.settings["steps"] == 30
    assert job.settings["cut_overview"] == "[3]*500+[1]*500" and job.settings["symmetry"] == "vertical"
    assert tab.locator("#optimize-buttons [data-act=more]").count() == 0
    tab.locator("#timeline .tick").first.wait_for()
    keep(tab, "guide-done-en-light-1280")
    choose(tab, "optimize")
    tab.reload()
    enter(tab)
    tab.locator("#canvas section.done").wait_for()
    tab.locator("#opt-guide [name=steps]").wait_for()  # the run that is shown says the engine
    assert tab.locator("#opt-guide [name=steps]").input_value() == "30"
    assert tab.locator("#opt-guide [name=symmetry]").input_value() == "vertical"


def test_a_change_on_the_way_is_a_fork(visit: Any, queue: JobQueue) -> None:
    tab = visit()
    enter(tab)
    choose(tab, "guide")
    start(tab, "a slow tower")
    tab.locator("#timeline .tick").first.wait_for()
    first = looked_at(tab, queue).id
    tab.locator("#opt-guide [name=clip_guidance_scale]").fill("900")
    tab.locator("#opt-guide [name=steps]").fill("70")
    tab.locator("#optimize-buttons [data-act=apply]").click()
    tab.locator(f"#canvas section[data-job]:not([data-job='{first}'])").wait_for()
    fork = looked_at(tab, queue)
    assert fork.pipeline == "guide" and '"clip_guidance_scale": "900"' in fork.settings["changes"]
    tab.locator("#opt-note", has_text="steps").wait_for()  # cannot change on the way


def test_every_setting_has_one_field() -> None:
    knobs = {knob.name: knob for knob in GuideSettings.knobs()}
    made = str(guide_form.form(knobs))
    assert sorted(re.findall(r' name="(\w+)"', made)) == sorted(knobs)
    assert set(" ".join(guide_form.FOLDS.values()).split()) <= {k.name for k in knobs.values() if k.advanced}
    assert made.count("<details") == len(guide_form.FOLDS)


@pytest.mark.parametrize("lang", ["en-US", "zh-CN"])
def test_nothing_sticks_out_at_360_pixels(visit: Any, queue: JobQueue, lang: str) -> None:
    tab = visit(lang=lang, width=360, height=740, theme="dark" if lang == "zh-CN" else "light")
    enter(tab)
    choose(tab, "guide")
    for fold in tab.locator("#opt-guide summary").all():
        fold.click()
    assert overflow(tab) == []
    keep(tab, f"guide-form-{lang[:2]}-360")
    told = tab.locator("#opt-guide").inner_text()
    words = (
        ("CLIP 引导强度", "全景视图数", "帧数")
        if lang == "zh-CN"
        else ("CLIP guidance scale", "overview cuts")
    )
    assert [word for word in words if word not in told] == []
